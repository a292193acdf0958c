"""What learns: an objective with its optimiser, averaged weights and scale, and one step of it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from tokenmix.data.dataset import DataSet
from tokenmix.recipes.recipe import Recipe
from tokenmix.tasks import Batch, Objective, Task, to_device
from tokenmix.train.checkpoint import load_weights
from tokenmix.train.distributed import Group, laid_out
from tokenmix.train.ema import Average
from tokenmix.train.model import classifier_of, synchronise
from tokenmix.train.optimizer import make_optimizer
from tokenmix_runtime.shortage import shortage


class TrainingStep:
    """The part of a run that a step changes, the same in every process.

    Args:
        task: What is learnt.
        recipe: What to do.
        data: For its facts, and how its samples are prepared.
        model: Makes the network, or None: the recipe names it.
        group: The processes that learn together.

    Raises:
        ValueError: There is no such model or teacher, or the model cannot do what the recipe asks for.
    """

    def __init__(
        self, task: Task, recipe: Recipe, data: DataSet, model: Callable[[], nn.Module] | None, group: Group
    ) -> None:
        self.recipe, self.group, self.device = recipe, group, group.device
        self.task, self.facts = task, data.facts
        torch.manual_seed(recipe.run.seed)
        self.given = model is not None  # perhaps with weights that the recipe does not know of
        network: Any = model() if model else task.build(recipe, self.facts)
        self.preparation = task.preparation(recipe, data, network)
        _check_parts(
            recipe, min(recipe.run.batch_size, len(data.train)), getattr(network, "least_batch", 1), group.world
        )
        self.change = task.changes(recipe, data, self.preparation, network, self.device)
        if recipe.run.grad_checkpointing:
            if not hasattr(network, "set_grad_checkpointing"):
                raise ValueError("recipe key 'run.grad_checkpointing': the model has no set_grad_checkpointing()")
            network.set_grad_checkpointing(True)
        objective = task.objective(recipe, network, self.facts)
        if recipe.run.sync_batchnorm and group.world > 1:
            synchronise(objective, self.device)
        layout = torch.channels_last if recipe.run.channels_last else torch.preserve_format
        self.objective = objective.to(device=self.device, memory_format=layout)  # type: ignore[call-overload]
        self.average = Average(self.objective, recipe.optimizer.ema_decay) if recipe.optimizer.ema_decay else None
        group.shard(self.objective)
        if self.average:
            group.shard(self.average.objective)
        factors = task.learning_rates(recipe, self.objective.model)
        self.optimizer = make_optimizer(recipe, self.objective.model, factors)
        self.parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=recipe.run.precision == "float16")
        self.classifiers = classifier_of(network) if recipe.schedule.freeze_epochs else []
        # whether the processes wait for each other within a pass, so that all must have as many of them
        self.meeting = group.mesh is not None or (recipe.run.sync_batchnorm and group.world > 1)
        self.fixed = task.fixed_modules(recipe, network)
        self.frozen: bool | None = None  # whether only the classifier learns; None before the first epoch
        # a batch that gives NaN also spoils the norms' running statistics, in the forward pass: keep the last good ones
        self.statistics = [
            value
            for module in self.objective.modules()
            for name in ("running_mean", "running_var")
            if isinstance(value := getattr(module, name, None), Tensor)
        ]
        self.good_statistics = [value.clone() for value in self.statistics]

    @property
    def judged(self) -> Objective:
        """What is validated and kept: the average, or the objective itself."""
        return self.average.objective if self.average else self.objective

    def begin(self, log: Callable[[str], None]) -> None:
        """Take the weights at which the recipe says to start; say if there are none, yet only the classifier learns."""
        recipe, weights = self.recipe, self.recipe.model.weights
        if weights is None:
            if recipe.schedule.freeze_epochs and not self.given:
                frozen = f"freeze_epochs={recipe.schedule.freeze_epochs}"
                log(f"{frozen}: only the classifier learns, and without model.weights the rest is random numbers")
            return
        torch.manual_seed(recipe.run.seed)
        load_weights(self.objective.model, self.task.initial_weights(recipe, self.facts, log), Path(weights))
        if self.average:
            self.average.objective.load_state_dict(self.objective.state_dict())
        _copy(self.good_statistics, self.statistics)

    def state(self) -> dict[str, Any]:
        """All that a step reads and changes."""
        return {
            "task": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": self.average.objective.state_dict() if self.average else None,
        }

    def load(self, state: dict[str, Any], origin: Path) -> None:
        """Take up what ``state`` gave."""
        load_weights(self.objective, state["task"], origin)
        moments = state["optimizer"]["state"]
        for number, parameter in enumerate(self.parameters):
            for name, value in moments.get(number, {}).items():
                if value.shape == parameter.shape:
                    moments[number][name] = laid_out(value, parameter)
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.average:
            load_weights(self.average.objective, state["average"], origin)
        _copy(self.good_statistics, self.statistics)

    def freeze_backbone(self, frozen: bool) -> None:
        """Let only the classifier learn if ``frozen``, while the rest computes as in evaluation; or everything."""
        self.objective.train(not frozen)
        for classifier in self.classifiers:
            classifier.train()
        for module in self.fixed:
            module.eval()
        if frozen == self.frozen:
            return
        self.frozen = frozen
        for parameter in self.parameters:
            parameter.requires_grad_(not frozen)
        for classifier in self.classifiers:
            classifier.requires_grad_(True)
        self.wrapped = self.group.wrap(self.objective)
        self.forward: Any = torch.compile(self.wrapped) if self.recipe.run.compile else self.wrapped

    def step(
        self, batch: Batch, samples: int, step: int, rate: float, wishes: Sequence[bool]
    ) -> tuple[float, str, list[bool]]:
        """One optimiser step, or none if the loss or the gradients are not finite.

        Args:
            batch: This process's part.
            samples: How many all processes have together.
            step: The step's number in the run.
            rate: Its learning rate.
            wishes: What this process would have all do after the step.

        Returns:
            The loss, what was bad (``""``, ``"loss"`` or ``"gradient"``), and the wishes of all processes together.
        """
        clip = self.recipe.optimizer.clip_grad
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)
        loss = self._gradients(batch, samples, step, self.recipe.run.accumulate)
        numbers = [*self.group.sum(torch.stack([loss, *(torch.full_like(loss, wish) for wish in wishes)]))]
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.get_total_norm([value.grad for value in self.parameters if value.grad is not None])
        if clip:
            nn.utils.clip_grads_with_norm_(self.parameters, clip, norm)
        numbers.append(norm.full_tensor() if isinstance(norm, DTensor) else norm)
        values = torch.stack(numbers).tolist()  # the one wait for the device: whether to step depends on it
        bad = ""
        if all(math.isfinite(value) for value in values):
            self.scaler.step(self.optimizer)
            if self.average:
                self.average.update(self.objective, step)
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
        """How many samples of a batch that was too large do fit into memory at once; 0: not one, None: it is not known.

        The part that failed is halved again and again, and its gradients computed. What is learnt is spoilt: the run
        has to end, and continues from its checkpoint.
        """
        if self.group.world > 1:
            return None  # the others would have to try too
        samples = len(batch["index"])
        size = -(-samples // self.recipe.run.accumulate)
        while size > 1:
            size //= 2
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            try:
                part, count = self.objective.parts(batch, -(-samples // size))[0]
                self._gradients(part, count, 0, 1)
            except Exception as error:
                if not shortage(error):
                    return None
            else:
                return size
        return 0

    def _gradients(self, batch: Batch, samples: int, step: int, count: int) -> Tensor:
        """Leave the step's gradients in the parameters; returns this process's share of the loss.

        Args:
            batch: This process's part.
            samples: How many all processes have together.
            step: The step's number in the run.
            count: Parts that are worked through one after the other.
        """
        run, world = self.recipe.run, self.group.world
        seed = _step_seed(run.seed, step, self.group.rank)
        torch.manual_seed(seed)
        self.optimizer.zero_grad()
        batch = to_device(batch, self.device, channels_last=run.channels_last)
        kind = torch.float16 if run.precision == "float16" else torch.bfloat16
        losses = []
        parts = self.objective.parts(batch, count)
        own_parts = len(parts)
        if self.meeting and count > 1:  # what one has less of, it works through again for nothing
            parts += parts[-1:] * (max(self.group.collect(own_parts)) - own_parts)
        for number, (part, own) in enumerate(parts):
            if number == own_parts:
                kept = [value.clone() for value in self.statistics]
            share = own / samples if number < own_parts else 0.0
            with self.group.accumulate(self.wrapped, number == len(parts) - 1):
                with torch.autocast(self.device.type, kind, enabled=run.precision != "float32"):
                    if self.change:
                        part = self.change(part, seed + number)
                    loss = self.forward(part)["loss"] * (share * world)  # the processes' gradients are averaged
                self.scaler.scale(loss).backward()
            losses.append(loss.detach() / world)
        if len(parts) > own_parts:
            _copy(self.statistics, kept)
        return torch.stack(losses).sum()


def _copy(targets: list[Tensor], sources: list[Tensor]) -> None:
    """Copy all values at once; torch refuses to copy none."""
    if targets:
        torch._foreach_copy_(targets, sources)


def _check_parts(recipe: Recipe, samples: int, least: int, world: int) -> None:
    """Raise unless each part of a step of so many samples has as many as the model needs in training.

    Raises:
        ValueError: One has fewer.
    """
    smallest = samples
    for own in (samples // world, -(-samples // world)):
        size = -(-own // recipe.run.accumulate)
        smallest = min(smallest, own % size or size)
    if smallest < least:
        raise ValueError(
            f"the model normalises over the samples of a batch and needs at least {least}, but a batch of {samples} in "
            f"parts (accumulate={recipe.run.accumulate}) leaves a part of {smallest}: choose a batch_size that "
            f"accumulate divides into parts of {least} or more, and no more than there are samples to learn from"
        )


def _step_seed(seed: int, step: int, rank: int) -> int:
    """A seed for the random numbers inside a step of a process, far from all others."""
    text = f"{seed} {step} {rank}" if rank else f"{seed} {step}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) % 2**62
