"""The recipe: every number that decides how a model is trained, checked, printable, and the same thing as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, get_origin, get_type_hints

from tokenmix.heads import HEADS
from tokenmix.names import unknown
from tokenmix.recipes.values import (
    RATE,
    SHARE,
    checked,
    choice,
    literal,
    not_negative,
    positive,
    rule,
    set_part,
)
from tokenmix.safety import LEAST_CROP, LIMITS, image_problem, parse_json, shown
from tokenmix.tasks import DEFAULT_TASK, find_task
from tokenmix.tasks.classification.augment import AUGMENTS, CROP_INTERPOLATIONS, is_rand_augment
from tokenmix.tasks.classification.objective import DISTILLS
from tokenmix.tasks.dense.augment import DENSE_AUGMENTS

SCHEMA = "tokenmix.recipe/1"
OPTIMIZERS = ("adamw", "sgd")
SCHEDULES = ("cosine", "linear", "poly", "step", "constant")
PRECISIONS = ("float32", "bfloat16", "float16")
PREPROCESSES = ("data", "model")
NOTES = ("source", "expect", "cost")  # words about the recipe: they change nothing about the run
RESERVED = {  # model arguments that have a place of their own
    "num_classes": "it comes from the data",
    "drop_rate": "set the recipe key drop_rate",
    "drop_path_rate": "set the recipe key drop_path_rate",
}
CLASSIFICATION_ONLY = (
    *("multi_scale", "crop_pct", "label_smoothing", "crop_scale", "crop_interpolation", "rand_augment"),
    *("color_jitter", "erase_rate", "mixup", "cutmix", "teacher"),
)
DENSE_ONLY = ("layer_decay_layers", "head_lr", "freeze_norms")


def _too_large(size: tuple[int, int]) -> str | None:
    return (
        f"of at most {LIMITS['side']:,} pixels a side, {LIMITS['pixels']:,} together" if image_problem(size) else None
    )


def _too_small(share: float) -> str | None:
    return f"at least {LEAST_CROP}" if share < LEAST_CROP else None


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train: immutable, compared by value; a variant is ``dataclasses.replace`` or ``override``.

    Whole numbers are accepted for numbers, lists for tuples, and stored as what the field says, so that a recipe that
    went through JSON equals the one that did not.

    Args:
        source: Where the numbers come from: paper and section, repository, commit.
        expect: What a faithful run reaches.
        cost: What it takes, in EMACs (10^18 multiply-accumulates: images times three times the forward pass, a
            teacher's forward pass included, see ``tokenmix.bench.cost.training_macs``), and on which machines the
            authors ran it.
        model: A name for ``timm.create_model``, ours included.
        model_args: Further arguments for it; JSON values only, tuples become lists.
        weights: Where the training starts: None, fresh weights; ``pretrained``, those that timm downloads for the
            model; or a file or run folder for ``tokenmix.load_checkpoint``. A classifier for other classes is left out.
            A dense model takes all from one with the same head, and from any other its backbone.
        head: A name in ``tokenmix.heads.HEADS`` for a segmenter or detector, of which ``model`` is the backbone;
            ``model_args`` may then hold the head's options too. None: ``model`` as it is.
        task: The name of a task, see ``tokenmix.tasks.find_task``.
        task_args: Further arguments of it, such as ``aux_weight`` of segmentation; JSON values only.
        data: What ``tokenmix.data.load_data`` takes.
        image_size: (height, width) of the images in pixels, in training and evaluation; one number means a square, None
            the data set's own.
        multi_scale: Sides of square training images in pixels, one drawn for every step; a step with smaller images
            than ``image_size`` has more of them, never fewer than ``batch_size``. Empty: always ``image_size``.
        preprocess: Whose mean, standard deviation, crop share and interpolation: the ``data`` set's, or those of the
            ``model``'s timm configuration, with which its published weights were trained.
        crop_pct: Share of the shorter side that evaluation keeps, instead of what ``preprocess`` says.
        batch_size: Images per optimiser step, over all processes; never rescaled silently.
        accumulate: Parts in which a process works through its share of a step, to need less memory; validation takes
            batches of that size too.
        epochs: Passes over the training images; a fraction stops within one.
        steps: Optimiser steps of the run, which then ends after them whatever ``epochs`` says; there is a validation
            after each pass over the training images and at the end.
        warmup_epochs: Epochs in which the learning rate rises linearly; part of ``epochs``.
        warmup_steps: The same in steps; only one of the two may be set.
        warmup_lr: Where that rise begins.
        cooldown_epochs: Epochs at the end that stay at ``min_lr``; part of ``epochs``.
        freeze_epochs: Epochs at the start in which only the classifier learns.
        optimizer: ``adamw`` or ``sgd`` (with Nesterov momentum).
        lr: Peak learning rate.
        min_lr: Last learning rate of the cosine, linear and poly schedules.
        schedule: ``cosine``, ``linear``, ``poly``, ``step`` or ``constant``, see
            ``tokenmix.train.schedule.learning_rate``.
        power: Of the poly schedule.
        milestones: Of the step schedule: the epochs after which the learning rate falls.
        milestone_factor: By which it is multiplied then.
        layer_decay: Factor on the learning rate per layer from the classifier or head down, in the model's own grouping
            of layers; None gives all the same.
        layer_decay_layers: Of dense models: into how many layers that groups the backbone, as mmdetection does, see
            ``tokenmix.train.optimizer.learning_rates``. None: each block is a layer.
        head_lr: Of dense models: factor on the learning rate of all but the backbone.
        freeze_norms: Of dense models: the batch norms of the backbone, those behind its levels too, normalise by their
            running statistics in training, and leave them as they are. Their weights learn.
        weight_decay: Not applied to biases, norms, layer scales and what the model's ``no_weight_decay()`` names.
        betas: AdamW's two decay rates.
        momentum: SGD's.
        label_smoothing: Share of each label spread over all classes.
        drop_rate: Dropout before the classifier; None leaves the model's own default.
        drop_path_rate: Stochastic depth; None leaves the model's own default.
        clip_grad: Largest norm of all gradients together; None does not clip.
        ema_decay: Decay per step of the averaged weights, which are then the ones evaluated and kept; it grows to this
            from 0.1 as (1 + step) / (10 + step). None keeps none.
        augment: ``none``, ``light``, ``standard`` or ``imagenet``, see
            ``tokenmix.tasks.classification.augment``; the next five keys
            change or add parts, see ``tokenmix.data.Augment``. For dense tasks see ``tokenmix.tasks.dense.augment``.
        augment_args: For dense tasks: parts of ``tokenmix.data.DenseAugment`` that are other than the name says.
        crop_scale: Smallest and largest share of a photo's area that a random crop keeps.
        crop_interpolation: Of random crops: ``bicubic``, ``bilinear`` or ``random``; None: as in evaluation.
        rand_augment: timm's RandAugment by its string, such as ``rand-m9-mstd0.5-inc1``.
        color_jitter: Largest relative change of brightness, contrast and saturation.
        erase_rate: Share of the images in which a rectangle becomes noise.
        mixup: Alpha of mixup (arXiv:1710.09412), 0 for none; it mixes the images that a process works through at once.
        cutmix: Alpha of cutmix (arXiv:1905.04899), 0 for none.
        mix_switch: Share of cutmix where both are on.
        teacher: A model that the trained one imitates: a timm name, or all that ``tokenmix.checkpoints.open_model``
            takes; None for none. Models with two classifiers learn from it with the second one.
        teacher_weights: A file with the weights of a teacher that timm names; None lets timm download them.
        distill: ``hard``, the teacher's class, or ``soft``, its probabilities.
        distill_weight: Share of the loss that the teacher decides.
        distill_temperature: Of soft probabilities.
        precision: ``float32``, or autocast in training to ``bfloat16``, or to ``float16`` with scaled gradients;
            evaluation is always float32.
        channels_last: NHWC memory layout; the numbers may differ in the last digits.
        grad_checkpointing: Recompute the blocks' activations instead of storing them; the running statistics of batch
            norms then follow every step twice.
        sync_batchnorm: Batch norm over the images of all processes, which torch can do on GPUs; without it each process
            normalises its own.
        compile: ``torch.compile`` in training; the numbers may differ in the last digits.
        max_bad_steps: Consecutive steps with a loss that is not finite, skipped, after which training stops.
        seed: Of the weights, the data order, the augmentation and the dropout.

    Raises:
        ValueError: A value of the wrong type or out of range; the message names the key.
    """

    source: str
    expect: str
    cost: str = "not counted"
    model: str
    model_args: dict[str, Any] = field(default_factory=dict)
    weights: str | None = None
    head: str | None = field(default=None, metadata=choice(HEADS))
    task: str = DEFAULT_TASK
    task_args: dict[str, Any] = field(default_factory=dict)
    data: str = "digits"
    image_size: tuple[int, int] | None = field(
        default=None,
        metadata=rule("both 1 or more", lambda value: min(value) >= 1) | {"problem": _too_large},
    )
    multi_scale: tuple[int, ...] = field(
        default=(),
        metadata=rule("all 1 or more", lambda value: all(side >= 1 for side in value))
        | {"problem": lambda value: _too_large((max(value, default=1), 1))},
    )
    preprocess: str = field(default="data", metadata=choice(PREPROCESSES))
    crop_pct: float | None = field(
        default=None, metadata=rule("above 0 and at most 1", lambda value: 0 < value <= 1) | {"problem": _too_small}
    )
    batch_size: int = field(default=64, metadata=positive("batch"))
    accumulate: int = field(default=1, metadata=positive("batch"))
    epochs: float = field(default=50.0, metadata=positive("epochs"))
    steps: int | None = field(default=None, metadata=positive("steps"))
    warmup_epochs: float = field(default=0.0, metadata=not_negative("epochs"))
    warmup_steps: int = field(default=0, metadata=not_negative("steps"))
    warmup_lr: float = field(default=0.0, metadata=not_negative("factor"))
    cooldown_epochs: float = field(default=0.0, metadata=not_negative("epochs"))
    freeze_epochs: int = field(default=0, metadata=not_negative("epochs"))
    optimizer: str = field(default="adamw", metadata=choice(OPTIMIZERS))
    lr: float = field(default=1e-3, metadata=positive("factor"))
    min_lr: float = field(default=0.0, metadata=not_negative("factor"))
    schedule: str = field(default="cosine", metadata=choice(SCHEDULES))
    power: float = field(default=1.0, metadata=positive("factor"))
    milestones: tuple[float, ...] = field(
        default=(), metadata=rule("ascending and above 0", lambda value: all(a < b for a, b in pairwise((0, *value))))
    )
    milestone_factor: float = field(default=0.1, metadata=positive("factor"))
    layer_decay: float | None = field(
        default=None, metadata=rule("above 0 and at most 1", lambda value: 0 < value <= 1)
    )
    layer_decay_layers: int | None = field(default=None, metadata=positive("depth"))
    head_lr: float = field(default=1.0, metadata=positive("factor"))
    freeze_norms: bool = False
    weight_decay: float = field(default=0.05, metadata=not_negative("factor"))
    betas: tuple[float, float] = field(
        default=(0.9, 0.999),
        metadata=rule("both at least 0 and below 1", lambda value: all(0 <= beta < 1 for beta in value)),
    )
    momentum: float = field(default=0.9, metadata=RATE)
    label_smoothing: float = field(default=0.0, metadata=RATE)
    drop_rate: float | None = field(default=None, metadata=RATE)
    drop_path_rate: float | None = field(default=None, metadata=RATE)
    clip_grad: float | None = field(default=None, metadata=positive("steps"))
    ema_decay: float | None = field(default=None, metadata=RATE)
    augment: str = field(default="light", metadata=choice(dict.fromkeys((*AUGMENTS, *DENSE_AUGMENTS))))
    augment_args: dict[str, Any] = field(default_factory=dict)
    crop_scale: tuple[float, float] | None = field(
        default=None,
        metadata=rule("in order, above 0 and at most 1", lambda value: 0 < value[0] <= value[1] <= 1),
    )
    crop_interpolation: str | None = field(default=None, metadata=choice(CROP_INTERPOLATIONS))
    rand_augment: str | None = field(
        default=None, metadata=rule("a string of timm's such as 'rand-m9-mstd0.5-inc1'", is_rand_augment)
    )
    color_jitter: float | None = field(default=None, metadata=SHARE)
    erase_rate: float = field(default=0.0, metadata=SHARE)
    mixup: float = field(default=0.0, metadata=not_negative("factor"))
    cutmix: float = field(default=0.0, metadata=not_negative("factor"))
    mix_switch: float = field(default=0.5, metadata=SHARE)
    teacher: str | None = None
    teacher_weights: str | None = None
    distill: str = field(default="hard", metadata=choice(DISTILLS))
    distill_weight: float = field(default=0.5, metadata=SHARE)
    distill_temperature: float = field(default=1.0, metadata=positive("factor"))
    precision: str = field(default="float32", metadata=choice(PRECISIONS))
    channels_last: bool = False
    grad_checkpointing: bool = False
    sync_batchnorm: bool = False
    compile: bool = False
    max_bad_steps: int = field(default=10, metadata=positive("steps"))
    seed: int = field(default=0, metadata=not_negative("seed"))

    def __post_init__(self) -> None:
        kinds = _kinds()
        for entry in dataclasses.fields(self):
            object.__setattr__(self, entry.name, checked(entry, kinds[entry.name], getattr(self, entry.name)))
        find_task(self.task)
        for name in self.model_args:
            if name in RESERVED:
                raise ValueError(f"recipe key 'model_args' must not hold {name!r}: {RESERVED[name]}")
        if self.task == "classification" and self.augment_args:
            raise ValueError("recipe key 'augment_args' is for dense tasks; classification has keys of its own")
        for entry in dataclasses.fields(self) if self.task != "classification" else ():
            if entry.name in CLASSIFICATION_ONLY and getattr(self, entry.name) != entry.default:
                remedy = f"set {entry.name}={entry.default!r} for {self.task}"
                raise ValueError(f"recipe key {entry.name!r} is for classification: {remedy}")
        for name in ("min_lr", "warmup_lr"):
            if (value := getattr(self, name)) > self.lr:
                raise ValueError(f"recipe key {name!r} must not be above lr={self.lr:g}, got {value:g}")
        self._check_length()
        self._check_schedule()
        if self.head is not None and HEADS[self.head].task != self.task:
            raise ValueError(
                f"recipe key 'head': {self.head} is for the task {HEADS[self.head].task!r}, but task is {self.task!r}"
            )
        for entry in dataclasses.fields(self) if self.head is None else ():
            if entry.name in DENSE_ONLY and getattr(self, entry.name) != entry.default:
                raise ValueError(f"recipe key {entry.name!r} is for a dense model: set head too, or leave it out")
        if self.layer_decay_layers is not None and self.layer_decay is None:
            raise ValueError("recipe key 'layer_decay_layers' needs 'layer_decay', the factor from layer to layer")
        if self.teacher_weights is not None and self.teacher is None:
            raise ValueError("recipe key 'teacher_weights' needs 'teacher', the timm name of the model they belong to")

    def _check_length(self) -> None:
        """That the parts of the run are no longer than the run."""
        if self.warmup_epochs and self.warmup_steps:
            raise ValueError("recipe keys 'warmup_epochs' and 'warmup_steps' exclude each other: set one of them to 0")
        if self.steps is None:
            for name in ("warmup_epochs", "cooldown_epochs", "freeze_epochs"):
                if (value := getattr(self, name)) > self.epochs:
                    raise ValueError(
                        f"recipe key {name!r} must not be above epochs={self.epochs:g}, got {value:g}: set both"
                    )
            return
        for name in ("warmup_epochs", "cooldown_epochs"):
            if getattr(self, name):
                remedy = "set warmup_steps instead" if name == "warmup_epochs" else f"set {name}=0"
                raise ValueError(f"recipe key {name!r} counts epochs, but the run counts steps={self.steps}: {remedy}")
        if self.warmup_steps > self.steps:
            raise ValueError(
                f"recipe key 'warmup_steps' must not be above steps={self.steps}, got {self.warmup_steps}: set both"
            )

    def _check_schedule(self) -> None:
        """That what belongs to one schedule is there with it and with no other."""
        if (self.schedule == "step") != bool(self.milestones):
            raise ValueError(
                "recipe keys schedule='step' and 'milestones', the epochs after which the learning rate falls, need "
                f"each other: schedule is {self.schedule!r}, milestones {self.milestones}"
            )
        if self.milestones and self.steps is None and self.milestones[-1] >= self.epochs:
            raise ValueError(
                f"recipe key 'milestones' must be below epochs={self.epochs:g}, got {self.milestones}: set both"
            )
        if self.power != 1 and self.schedule != "poly":
            raise ValueError(f"recipe key 'power' is for schedule='poly', but schedule is {self.schedule!r}")

    @property
    def length(self) -> str:
        """In words: ``"300 epochs"`` or ``"160,000 steps"``."""
        return f"{self.epochs:g} epochs" if self.steps is None else f"{self.steps:,} steps"

    def to_json(self) -> str:
        """The recipe as indented JSON, readable by ``from_json``."""
        return json.dumps({"schema": SCHEMA, **dataclasses.asdict(self)}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """The recipe that ``to_json`` wrote; keys that are left out have their defaults.

        Raises:
            ValueError: No JSON object, another schema, an unknown or missing key, or a bad value.
        """
        try:
            values = parse_json(text)
        except ValueError as error:
            raise ValueError(f"the recipe: {error}") from None
        return cls.from_values(values)

    @classmethod
    def from_values(cls, values: Any, name: str = "the recipe") -> Recipe:
        """The recipe of what its JSON says; see `from_json`.

        Args:
            values: A mapping of keys to values.
            name: For messages.

        Raises:
            ValueError: See `from_json`.
        """
        if not isinstance(values, dict):
            raise ValueError(f"{name} must be a JSON object of keys and values")
        values = dict(values)
        schema = values.pop("schema", SCHEMA)
        if schema != SCHEMA:
            raise ValueError(f"{name} has the schema {shown(schema)}; this version reads {SCHEMA!r}")
        for key in values:
            _field(key)
        missing = [
            entry.name
            for entry in dataclasses.fields(cls)
            if entry.default is dataclasses.MISSING
            and entry.default_factory is dataclasses.MISSING
            and entry.name not in values
        ]
        if missing:
            raise ValueError(f"{name} lacks {', '.join(missing)}")
        return cls(**values)


def override(recipe: Recipe, overrides: Iterable[str]) -> Recipe:
    """The recipe with ``key=value`` settings applied: ``["epochs=3", "model_args.mixers=pool"]``.

    Values are Python literals; what is none is text, and a field that holds text takes its value as it stands. A dotted
    key sets one entry of a field that is a mapping. ``epochs`` without ``warmup_epochs`` scales the warm-up and the
    milestones too, and so does ``steps`` where the recipe counts steps.

    Raises:
        ValueError: No ``=``, an unknown key (with a suggestion), or a value that the field refuses.
    """
    changes: dict[str, Any] = {}
    for setting in overrides:
        key, equals, text = setting.partition("=")
        if not equals:
            raise ValueError(f"{setting!r} is no setting; write key=value, for example epochs=3")
        name, *path = key.strip().split(".")
        _field(name)
        kind = _kinds()[name]
        if not path:
            changes[name] = literal(text, kind)
            continue
        if get_origin(kind) is not dict:
            raise ValueError(f"recipe key {name!r} has no parts, got {key.strip()!r}")
        changes.setdefault(name, json.loads(json.dumps(getattr(recipe, name))))
        set_part(changes[name], path, literal(text, Any), key.strip())
    epochs, steps = changes.get("epochs"), changes.get("steps")
    if "warmup_epochs" not in changes and "steps" not in changes and isinstance(epochs, int | float) and epochs > 0:
        recipe = with_epochs(recipe, epochs)
    if recipe.steps is not None and isinstance(steps, int) and steps > 0:
        recipe = _scaled(recipe, steps / recipe.steps, steps=steps)
    return dataclasses.replace(recipe, **changes)


def with_epochs(recipe: Recipe, epochs: float) -> Recipe:
    """The recipe for another number of epochs, those of its parts in proportion: warm-up, milestones and so on.

    Raises:
        ValueError: It counts steps.
    """
    if recipe.steps is not None:
        raise ValueError(
            f"the recipe counts steps={recipe.steps}, not epochs: set steps=N, or steps=none epochs={epochs:g} and "
            "warmup_steps as you want it"
        )
    return _scaled(recipe, epochs / recipe.epochs, epochs=epochs)


def _scaled(recipe: Recipe, share: float, **length: Any) -> Recipe:
    """The recipe with another length, and its parts in proportion."""
    return dataclasses.replace(
        recipe,
        **length,
        warmup_epochs=recipe.warmup_epochs * share,
        warmup_steps=round(recipe.warmup_steps * share),
        cooldown_epochs=recipe.cooldown_epochs * share,
        freeze_epochs=round(recipe.freeze_epochs * share),
        milestones=tuple(milestone * share for milestone in recipe.milestones),
    )


def differences(one: Recipe, other: Recipe) -> list[str]:
    """The keys in which two recipes would train differently, each as ``key (this -> that)``."""
    pairs = ((entry.name, getattr(one, entry.name), getattr(other, entry.name)) for entry in dataclasses.fields(one))
    return [f"{name} ({a!r} -> {b!r})" for name, a, b in pairs if a != b and name not in NOTES]


def _kinds() -> dict[str, Any]:
    return get_type_hints(Recipe)


def _field(name: str) -> dataclasses.Field[Any]:
    """The field of that name, or an error with the nearest one."""
    fields = {entry.name: entry for entry in dataclasses.fields(Recipe)}
    if name not in fields:
        raise ValueError(unknown("recipe key", name, fields))
    return fields[name]
