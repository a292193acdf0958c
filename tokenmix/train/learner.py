"""What learns: a task with its optimiser, teacher, averaged weights and scale, and one step of it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.modules.batchnorm import _BatchNorm

from tokenmix.data import DataSet
from tokenmix.heads.levels import levels_of
from tokenmix.recipes.recipe import Recipe
from tokenmix.shortage import shortage
from tokenmix.tasks import Batch, Task, to_device
from tokenmix.train.checkpoint import load_weights
from tokenmix.train.distill import Teacher
from tokenmix.train.distributed import Group, laid_out
from tokenmix.train.ema import Average
from tokenmix.train.mixing import Mixing
from tokenmix.train.model import (
    build_model,
    classifier_of,
    make_task,
    preparation,
    synchronise,
)
from tokenmix.train.optimizer import make_optimizer
from tokenmix.train.start import initial_weights


class Learner:
    """The part of a run that a step changes, the same in every process.

    Args:
        recipe: What to do.
        data: For its classes and how its images are prepared.
        model: Makes the network, or None: the recipe names it.
        group: The processes that learn together.

    Raises:
        ValueError: There is no such model or teacher, or the model cannot do what the recipe asks for.
    """

    def __init__(self, recipe: Recipe, data: DataSet, model: Callable[[], nn.Module] | None, group: Group) -> None:
        self.recipe, self.group, self.device = recipe, group, group.device
        self.classes, self.names = len(data.classes), data.classes
        torch.manual_seed(recipe.seed)
        given: dict[str, Any] = {
            "head": recipe.head,
            "drop_rate": recipe.drop_rate,
            "drop_path_rate": recipe.drop_path_rate,
        }
        network: Any = model() if model else build_model(recipe.model, self.classes, **given, **recipe.model_args)
        self.preparation = preparation(recipe, data, network)
        self.mixing = Mixing(recipe, self.classes) if recipe.mixup or recipe.cutmix else None
        self.teacher = None
        if recipe.teacher is not None:
            mean, std = self.preparation["mean"], self.preparation["std"]
            self.teacher = Teacher(recipe, data, mean, std, self.device)
            if hasattr(network, "set_distilled_training") and len(classifier_of(network)) == 2:
                network.set_distilled_training(True)
        if recipe.grad_checkpointing:
            if not hasattr(network, "set_grad_checkpointing"):
                raise ValueError("recipe key 'grad_checkpointing': the model has no set_grad_checkpointing()")
            network.set_grad_checkpointing(True)
        task: Task = make_task(recipe, network, self.classes)
        if recipe.sync_batchnorm and group.world > 1:
            synchronise(task, self.device)
        layout = torch.channels_last if recipe.channels_last else torch.preserve_format
        self.task = task.to(device=self.device, memory_format=layout)  # type: ignore[call-overload]
        self.average = Average(self.task, recipe.ema_decay) if recipe.ema_decay else None
        group.shard(self.task)
        if self.average:
            group.shard(self.average.task)
        self.optimizer = make_optimizer(recipe, self.task.model)
        self.parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=recipe.precision == "float16")
        self.classifiers = classifier_of(network) if recipe.freeze_epochs else []
        inner = levels_of(network)[1].modules() if recipe.freeze_norms else ()
        self.frozen_norms = [module for module in inner if isinstance(module, _BatchNorm)]
        self.frozen: bool | None = None  # whether only the classifier learns; None before the first epoch
        # a batch that gives NaN also spoils the norms' running statistics, in the forward pass: keep the last good ones
        self.statistics = [
            value
            for module in self.task.modules()
            for name in ("running_mean", "running_var")
            if isinstance(value := getattr(module, name, None), Tensor)
        ]
        self.good_statistics = [value.clone() for value in self.statistics]

    @property
    def judged(self) -> Task:
        """What is validated and kept: the average, or the task itself."""
        return self.average.task if self.average else self.task

    def begin(self, log: Callable[[str], None]) -> None:
        """Take the weights at which the recipe says to start."""
        recipe = self.recipe
        if recipe.weights is None:
            return
        torch.manual_seed(recipe.seed)
        load_weights(self.task.model, initial_weights(recipe, self.names, log), Path(recipe.weights))
        if self.average:
            self.average.task.load_state_dict(self.task.state_dict())
        _copy(self.good_statistics, self.statistics)

    def state(self) -> dict[str, Any]:
        """All that a step reads and changes."""
        return {
            "task": self.task.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": self.average.task.state_dict() if self.average else None,
        }

    def load(self, state: dict[str, Any], origin: Path) -> None:
        """Take up what ``state`` gave."""
        load_weights(self.task, state["task"], origin)
        moments = state["optimizer"]["state"]
        for number, parameter in enumerate(self.parameters):
            for name, value in moments.get(number, {}).items():
                if value.shape == parameter.shape:
                    moments[number][name] = laid_out(value, parameter)
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.average:
            load_weights(self.average.task, state["average"], origin)
        _copy(self.good_statistics, self.statistics)

    def thaw(self, frozen: bool) -> None:
        """Set what learns, everything or only the classifier; the rest then computes as in evaluation."""
        self.task.train(not frozen)
        for classifier in self.classifiers:
            classifier.train()
        for norm in self.frozen_norms:
            norm.eval()
        if frozen == self.frozen:
            return
        self.frozen = frozen
        for parameter in self.parameters:
            parameter.requires_grad_(not frozen)
        for classifier in self.classifiers:
            classifier.requires_grad_(True)
        self.wrapped = self.group.wrap(self.task)
        self.forward: Any = torch.compile(self.wrapped) if self.recipe.compile else self.wrapped

    def step(
        self, batch: Batch, images: int, step: int, rate: float, wishes: Sequence[bool]
    ) -> tuple[float, str, list[bool]]:
        """One optimiser step, or none if the loss or the gradients are not finite.

        Args:
            batch: This process's part.
            images: How many all processes have together.
            step: The step's number in the run.
            rate: Its learning rate.
            wishes: What this process would have all do after the step.

        Returns:
            The loss, what was bad (``""``, ``"loss"`` or ``"gradient"``), and the wishes of all processes together.
        """
        recipe = self.recipe
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)
        loss = self._gradients(batch, images, step, recipe.accumulate)
        numbers = [*self.group.sum(torch.stack([loss, *(torch.full_like(loss, wish) for wish in wishes)]))]
        self.scaler.unscale_(self.optimizer)
        if recipe.clip_grad or self.scaler.is_enabled():
            norm = nn.utils.clip_grad_norm_(self.parameters, recipe.clip_grad or math.inf)
            numbers.append(norm.full_tensor() if isinstance(norm, DTensor) else norm)
        values = torch.stack(numbers).tolist()  # the one wait for the device: whether to step depends on it
        bad = ""
        if all(math.isfinite(value) for value in values):
            self.scaler.step(self.optimizer)
            if self.average:
                self.average.update(self.task, step)
            _copy(self.good_statistics, self.statistics)
        else:
            _copy(self.statistics, self.good_statistics)
            bad = "gradient" if math.isfinite(values[0]) else "loss"
        self.scaler.update()
        return values[0], bad, [value > 0 for value in values[1 : 1 + len(wishes)]]

    @property
    def searching(self) -> bool:
        """Whether float16's scale, which begins too high on purpose, may still be why gradients overflow."""
        return self.scaler.is_enabled() and self.scaler.get_scale() >= 1

    def fitting(self, batch: Batch) -> int | None:
        """How many images of a batch that was too large do fit into memory at once; 0: not one, None: it is not known.

        The part that failed is halved again and again, and its gradients computed. What is learnt is spoilt: the run
        has to end, and continues from its checkpoint.
        """
        if self.group.world > 1:
            return None  # the others would have to try too
        size = -(-len(batch["image"]) // self.recipe.accumulate)
        while size > 1:
            size //= 2
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            try:
                self._gradients({key: value[:size] for key, value in batch.items()}, size, 0, 1)
            except Exception as error:
                if not shortage(error):
                    return None
            else:
                return size
        return 0

    def _gradients(self, batch: Batch, images: int, step: int, count: int) -> Tensor:
        """Leave the step's gradients in the parameters; returns this process's share of the loss.

        Args:
            batch: This process's part.
            images: How many all processes have together.
            step: The step's number in the run.
            count: Parts that are worked through one after the other.
        """
        recipe, world = self.recipe, self.group.world
        seed = _step_seed(recipe.seed, step, self.group.rank)
        torch.manual_seed(seed)
        self.optimizer.zero_grad()
        batch = to_device(batch, self.device, channels_last=recipe.channels_last)
        kind = torch.float16 if recipe.precision == "float16" else torch.bfloat16
        losses = []
        parts = _parts(batch, count)
        for number, part in enumerate(parts):
            share = len(part["image"]) / images
            if self.mixing:
                part = self.mixing(part, seed + number)
            with self.group.adding(self.wrapped, number == len(parts) - 1):
                with torch.autocast(self.device.type, kind, enabled=recipe.precision != "float32"):
                    if self.teacher:
                        part = {**part, "teacher": self.teacher(part["image"])}
                    loss = self.forward(part)["loss"] * (share * world)  # the processes' gradients are averaged
                self.scaler.scale(loss).backward()
            losses.append(loss.detach() / world)
        return torch.stack(losses).sum()


def _copy(targets: list[Tensor], sources: list[Tensor]) -> None:
    """Copy all values at once; torch refuses to copy none."""
    if targets:
        torch._foreach_copy_(targets, sources)


def _parts(batch: Batch, count: int) -> list[Batch]:
    """The batch in at most ``count`` parts, in order and of about the same size."""
    images = len(batch["image"])
    size = -(-images // count)
    return [{key: value[begin : begin + size] for key, value in batch.items()} for begin in range(0, images, size)]


def _step_seed(seed: int, step: int, rank: int) -> int:
    """A seed for the random numbers inside a step of a process, far from all others."""
    text = f"{seed} {step} {rank}" if rank else f"{seed} {step}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) % 2**62
