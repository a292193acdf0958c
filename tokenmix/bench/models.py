"""The models of a benchmark: a name, a run, a checkpoint or an ONNX file, ready to be measured."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from tokenmix.bench.folded import inference_form
from tokenmix.bench.published import published
from tokenmix.checkpoints import LoadedModel, described_model, open_model, our_models
from tokenmix.export.onnx_file import onnx_session
from tokenmix.tasks import DEFAULT_TASK, Task, find_task
from tokenmix_runtime.names import unknown


@dataclass(frozen=True)
class MeasuredModel:
    """One model to be measured.

    Attributes:
        name: As the user wrote it.
        loaded: As it was trained; None for an ONNX file.
        file: The ONNX file, if it is one.
        image_size: Height and width in pixels that it is measured with.
        chans: Channels of its input.
        largest_batch: That the file takes; None: any.
        published: See `tokenmix.bench.published.published`.
    """

    name: str
    loaded: LoadedModel | None
    file: Path | None
    image_size: tuple[int, int]
    chans: int
    largest_batch: int | None
    published: dict[str, Any] | None

    @property
    def task(self) -> Task:
        """What it does; an ONNX file is none of any task."""
        assert self.loaded is not None
        return find_task(self.loaded.task)

    @property
    def noun(self) -> str:
        """What it answers at a time, in the plural; an ONNX file gets images."""
        return "images" if self.loaded is None else self.task.timed_noun or self.task.noun

    def images(self, batch: int, seed: int = 0) -> Tensor:
        """(batch, chans, H, W) of seeded noise."""
        if self.loaded is not None:
            size = self.image_size if min(self.image_size) else None  # what sees no pictures of one size has none
            return self.task.example_inputs(self.loaded, batch, size, seed)
        return torch.randn(batch, self.chans, *self.image_size, generator=torch.Generator().manual_seed(seed))

    def trained_form(self) -> nn.Module:
        """The model with its raw outputs."""
        assert self.loaded is not None
        return self.task.raw_form(self.loaded.model)

    def inference_form(self) -> nn.Module:
        """Merged and folded, see `tokenmix.bench.folded`."""
        return inference_form(self.trained_form(), self.images(1))


def noun_of(measured: Sequence[MeasuredModel]) -> str:
    """What all of these answer at a time, in the plural."""
    nouns = {one.noun for one in measured}
    return nouns.pop() if len(nouns) == 1 else "samples"


def open_models(
    names: Sequence[str], image_size: tuple[int, int] | None = None, *, seed: int = 0
) -> list[MeasuredModel]:
    """Open the models; those that are given by name get random weights, which take the same time, and no download.

    Args:
        names: Models of ours or timm's, run folders, checkpoints, ``.onnx`` files.
        image_size: For all of them; default: each its own, which is what accuracies were published at.
        seed: Of the weights.

    Raises:
        ValueError: There is none, one is unknown or named twice, or does not take such images.
    """
    if not names:
        raise ValueError("name at least one model: of ours, of timm's, a run's folder, a checkpoint or an ONNX file")
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name} is named {names.count(name)} times: once is enough")
    found = []
    for name in names:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            one = _file(name, image_size) if name.endswith(".onnx") else _model(name, image_size)
        found.append(one)
    return found


def _model(name: str, image_size: tuple[int, int] | None) -> MeasuredModel:
    if Path(name).exists():
        loaded = open_model(name)
        fact = None
    else:
        loaded = _by_name(name)
        fact = published(name, image_size or loaded.image_size)
    one = MeasuredModel(name, loaded, None, image_size or loaded.image_size, len(loaded.mean), None, fact)
    try:
        with torch.inference_mode():
            one.trained_form().eval()(one.images(1))
    except (RuntimeError, AssertionError) as error:
        size = " x ".join(map(str, one.image_size))
        raise ValueError(f"{name} cannot take images of {size} pixels: {error}") from error
    return one


def _by_name(name: str) -> LoadedModel:
    """A model of the registry with random weights."""
    if not timm.is_model(name):
        known = timm.list_models()
        near = difflib.get_close_matches(name.partition(".")[0], known, 5, 0.6)
        raise ValueError(f"{name}: no such file or folder, and {unknown('model', name, near or our_models())}")
    try:
        model = timm.create_model(name).eval()
    except RuntimeError as error:  # an unknown tag
        raise ValueError(f"{name}: {error}") from error
    loaded = described_model(model, {"model": name, "task": DEFAULT_TASK})
    if not all(loaded.image_size):
        raise ValueError(f"{name} is registered without timm's configuration, which has its size: name a run of it")
    return loaded


def _file(name: str, image_size: tuple[int, int] | None) -> MeasuredModel:
    source = onnx_session(name).get_inputs()[0]
    shape = source.shape
    if source.type != "tensor(float)" or len(shape) != 4:
        raise ValueError(f"{name} takes {source.type} {shape}, and what is measured is float32 images (N, C, H, W)")
    size = image_size or tuple(side for side in shape[2:] if isinstance(side, int))
    if len(size) < 2:
        raise ValueError(f"{name} takes images of any size: say which with --image-size")
    if any(isinstance(side, int) and side != wanted for side, wanted in zip(shape[2:], size, strict=True)):
        raise ValueError(f"{name} takes images of {shape[2]} x {shape[3]} pixels only: leave --image-size out")
    chans = shape[1] if isinstance(shape[1], int) else 3
    return MeasuredModel(
        name, None, Path(name), (size[0], size[1]), chans, shape[0] if isinstance(shape[0], int) else None, None
    )
