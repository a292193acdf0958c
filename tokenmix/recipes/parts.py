"""The parts of a recipe that every task has: the model, the optimiser, the schedule, and the run itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, ClassVar

from tokenmix.checked_values import FACTOR, RATE, Checked, choice, from_files, not_negative, positive, rule
from tokenmix.text_tables import counted

OPTIMIZERS = ("adamw", "sgd")
SCHEDULES = ("cosine", "onecycle", "linear", "poly", "step", "constant")
PRECISIONS = ("float32", "bfloat16", "float16")
FALLING = ("cosine", "onecycle", "linear", "poly")  # the schedules that fall to a last rate
READ_BY = {  # of the schedule or the optimiser, by these names of it alone
    "schedule.cooldown_epochs": FALLING,
    "schedule.min_lr": FALLING,
    "schedule.milestone_factor": ("step",),
    "optimizer.betas": ("adamw",),
    "optimizer.momentum": ("sgd",),
}
PUBLISHED = "pretrained"  # weights: timm's own
RESERVED = {  # model arguments that have a place of their own
    "num_classes": "it comes from the data",
    "drop_rate": "set the recipe key drop_rate",
    "drop_path_rate": "set the recipe key drop_path_rate",
}


@dataclass(frozen=True, kw_only=True)
class Model(Checked):
    """The network, and the weights at which it starts.

    Args:
        name: A name for ``timm.create_model``, ours included, or of a network of the task's own.
        args: Further arguments for it; JSON values only, tuples become lists.
        weights: Where the training starts: None, fresh weights; ``pretrained``, those that timm downloads for the
            model; or a file or run folder for ``tokenmix.load_checkpoint``. A classifier for other classes is left out.
            A dense model takes all from one with the same head, and from any other its backbone.
        head: A name in ``tokenmix.heads.HEADS`` for a segmenter or detector, of which ``name`` is the backbone;
            ``args`` may then hold the head's options too. None: the model as it is.
        drop_rate: Dropout before the classifier; None leaves the model's own default.
        drop_path_rate: Stochastic depth; None leaves the model's own default.

    Examples:
        >>> from tokenmix.recipes import Model
        >>> Model(name="mixernet_pico", args={"mixers": "pool"}, drop_path_rate=0.1).args
        {'mixers': 'pool'}
    """

    part: ClassVar[str] = "model"
    name: str = field(metadata=from_files(lambda value: ":" not in value))  # an unknown one is told where it is built
    args: dict[str, Any] = field(default_factory=dict)
    weights: str | None = field(default=None, metadata=from_files(lambda value: value == PUBLISHED))
    head: str | None = None
    drop_rate: float | None = field(default=None, metadata=RATE)
    drop_path_rate: float | None = field(default=None, metadata=RATE)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.args:
            if name in RESERVED:
                raise ValueError(f"recipe key 'model.args' must not hold {name!r}: {RESERVED[name]}")


@dataclass(frozen=True, kw_only=True)
class Optimizer(Checked):
    """How a gradient changes the weights.

    Args:
        name: ``adamw`` or ``sgd`` (with Nesterov momentum).
        lr: Peak learning rate.
        weight_decay: Not applied to biases, norms, layer scales and what the model's ``no_weight_decay()`` names.
        betas: AdamW's two decay rates.
        momentum: SGD's.
        clip_grad: Largest norm of all gradients together; None does not clip.
        layer_decay: Factor on the learning rate per layer from the classifier or head down, in the model's own grouping
            of layers; None gives all the same.
        ema_decay: Decay per step of the averaged weights, which are then the ones evaluated and kept; it grows to this
            from 0.1 as (1 + step) / (10 + step). None keeps none.

    Examples:
        >>> from tokenmix.recipes import Optimizer
        >>> Optimizer(name="sgd", lr=0.1).momentum
        0.9
    """

    part: ClassVar[str] = "optimizer"
    name: str = field(default="adamw", metadata=choice(OPTIMIZERS))
    lr: float = field(default=1e-3, metadata=positive("factor"))
    weight_decay: float = field(default=0.05, metadata=not_negative("factor"))
    betas: tuple[float, float] = field(
        default=(0.9, 0.999),
        metadata=rule("both at least 0 and below 1", lambda value: all(0 <= beta < 1 for beta in value)),
    )
    momentum: float = field(default=0.9, metadata=RATE)
    clip_grad: float | None = field(default=None, metadata=positive("steps"))
    layer_decay: float | None = field(default=None, metadata=FACTOR)
    ema_decay: float | None = field(default=None, metadata=RATE)


@dataclass(frozen=True, kw_only=True)
class Schedule(Checked):
    """How long the training is, and how the learning rate moves on the way.

    Args:
        name: ``cosine``, ``onecycle``, ``linear``, ``poly``, ``step`` or ``constant``, see
            ``tokenmix.train.schedule.learning_rate``.
        epochs: Passes over the training samples; a fraction stops within one.
        steps: Optimiser steps of the run, which then ends after them whatever ``epochs`` says; there is a validation
            after each pass over the training samples and at the end.
        warmup_epochs: Epochs in which the learning rate rises linearly; part of ``epochs``.
        warmup_steps: The same in steps; only one of the two may be set.
        warmup_lr: Where that rise begins.
        cooldown_epochs: Epochs at the end that stay at ``min_lr``; part of ``epochs``.
        freeze_epochs: Epochs at the start in which only the classifier learns.
        min_lr: Last learning rate of the cosine, onecycle, linear and poly schedules.
        power: Of the poly schedule.
        milestones: Of the step schedule: the epochs after which the learning rate falls.
        milestone_factor: By which it is multiplied then.

    Examples:
        >>> from tokenmix.recipes import Schedule
        >>> Schedule(epochs=300, warmup_epochs=20).length
        '300 epochs'
    """

    part: ClassVar[str] = "schedule"
    name: str = field(default="cosine", metadata=choice(SCHEDULES))
    epochs: float = field(default=50.0, metadata=positive("epochs"))
    steps: int | None = field(default=None, metadata=positive("steps"))
    warmup_epochs: float = field(default=0.0, metadata=not_negative("epochs"))
    warmup_steps: int = field(default=0, metadata=not_negative("steps"))
    warmup_lr: float = field(default=0.0, metadata=not_negative("factor"))
    cooldown_epochs: float = field(default=0.0, metadata=not_negative("epochs"))
    freeze_epochs: int = field(default=0, metadata=not_negative("epochs"))
    min_lr: float = field(default=0.0, metadata=not_negative("factor"))
    power: float = field(default=1.0, metadata=positive("factor"))
    milestones: tuple[float, ...] = field(
        default=(), metadata=rule("ascending and above 0", lambda value: all(a < b for a, b in pairwise((0, *value))))
    )
    milestone_factor: float = field(default=0.1, metadata=positive("factor"))

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_length()
        self._check_form()

    @property
    def length(self) -> str:
        """In words: ``"300 epochs"`` or ``"160,000 steps"``."""
        return counted(float(self.epochs), "epoch") if self.steps is None else counted(self.steps, "step")

    def scaled(self, share: float, **length: Any) -> Schedule:
        """The schedule with another ``length``, which is that share of its own, and its parts in proportion."""
        return Schedule(
            **vars(self)
            | length
            | {
                "warmup_epochs": self.warmup_epochs * share,
                "warmup_steps": round(self.warmup_steps * share),
                "cooldown_epochs": self.cooldown_epochs * share,
                "freeze_epochs": round(self.freeze_epochs * share),
                "milestones": tuple(milestone * share for milestone in self.milestones),
            }
        )

    def _check_length(self) -> None:
        """That the parts of the run are no longer than the run."""
        if self.warmup_epochs and self.warmup_steps:
            raise ValueError(
                "recipe keys 'schedule.warmup_epochs' and 'schedule.warmup_steps' exclude each other: set one to 0"
            )
        if self.steps is None:
            for name in ("warmup_epochs", "cooldown_epochs", "freeze_epochs"):
                if (value := getattr(self, name)) > self.epochs:
                    raise ValueError(
                        f"recipe key {self.key(name)!r} must not be above epochs={self.epochs:g}, got {value:g}: "
                        "set both"
                    )
            return
        for name in ("warmup_epochs", "cooldown_epochs"):
            if getattr(self, name):
                remedy = "set warmup_steps instead" if name == "warmup_epochs" else f"set {name}=0"
                raise ValueError(
                    f"recipe key {self.key(name)!r} counts epochs, but the run counts steps={self.steps}: {remedy}"
                )
        if self.warmup_steps > self.steps:
            raise ValueError(
                f"recipe key 'schedule.warmup_steps' must not be above steps={self.steps}, got {self.warmup_steps}: "
                "set both"
            )

    def _check_form(self) -> None:
        """That what belongs to one form of the schedule is there with it and with no other."""
        if (self.name == "step") != bool(self.milestones):
            raise ValueError(
                "recipe keys schedule='step' and 'schedule.milestones', the epochs after which the learning rate "
                f"falls, need each other: schedule is {self.name!r}, milestones {self.milestones}"
            )
        if self.milestones and self.steps is None and self.milestones[-1] >= self.epochs:
            raise ValueError(
                f"recipe key 'schedule.milestones' must be below epochs={self.epochs:g}, got {self.milestones}: "
                "set both"
            )
        if self.power != 1 and self.name != "poly":
            raise ValueError(f"recipe key 'schedule.power' is for schedule='poly', but the schedule is {self.name!r}")


@dataclass(frozen=True, kw_only=True)
class Run(Checked):
    """On what a model is trained, in which batches, and how a machine computes it.

    Args:
        data: What ``tokenmix.sources.load_data`` takes.
        batch_size: Samples per optimiser step, over all processes; never rescaled silently.
        accumulate: Parts in which a process works through its share of a step, to need less memory; validation takes
            batches of that size too.
        precision: ``float32``, or autocast in training to ``bfloat16``, or to ``float16`` with scaled gradients;
            evaluation is always float32.
        channels_last: NHWC memory layout; the numbers may differ in the last digits.
        grad_checkpointing: Recompute the blocks' activations instead of storing them; the running statistics of batch
            norms then follow every step twice.
        sync_batchnorm: Batch norm over the samples of all processes, which torch can do on GPUs; without it each
            process normalises its own.
        compile: ``torch.compile`` in training; the numbers may differ in the last digits.
        max_bad_steps: Consecutive steps with a loss that is not finite, skipped, after which training stops.
        patience: Validations in a row without a better one after which the training ends early; the weights of the
            best one are kept, as always. 0: it runs to its end, which a learning rate that falls to its end wants.
        slack: By how much, in the headline's unit, a validation may be worse than the best one before it and yet count
            as no worse, so that its later weights are kept: what chance explains where few samples are validated.
        seed: Of the weights, the data order, the augmentation and the dropout.

    Examples:
        >>> from tokenmix.recipes import Run
        >>> Run(data="photos", batch_size=256, accumulate=4).precision
        'float32'
    """

    part: ClassVar[str] = "run"
    data: str = "digits"
    batch_size: int = field(default=64, metadata=positive("batch"))
    accumulate: int = field(default=1, metadata=positive("batch"))
    precision: str = field(default="float32", metadata=choice(PRECISIONS))
    channels_last: bool = False
    grad_checkpointing: bool = False
    sync_batchnorm: bool = False
    compile: bool = False
    max_bad_steps: int = field(default=10, metadata=positive("steps"))
    patience: int = field(default=0, metadata=not_negative("epochs"))
    slack: float = field(default=0.0, metadata=not_negative("factor"))
    seed: int = field(default=0, metadata=not_negative("seed"))
