"""How fast a recipe's model would answer on this machine, in one of the runtimes that a comparison measures."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tokenmix.backbones.reparameterize import reparameterize
from tokenmix.bench.speed import latency
from tokenmix.checkpoints import described_model
from tokenmix.data.dataset import DataSet
from tokenmix.export.extras import require
from tokenmix.export.main import export
from tokenmix.recipes import Recipe
from tokenmix.tasks import find_task
from tokenmix_runtime.names import unknown

SECONDS = 2.0  # of measurement, for each network
TIMED_IN = ("onnxruntime", "pytorch")


class Stopwatch:
    """Times networks for one sample, side by side: with fresh weights, which are as fast as trained ones.

    Args:
        data: What they are for.
        folder: For their files.
        runtime: One of `TIMED_IN`.
        device: Of PyTorch's networks; ONNX Runtime's run on the CPU.

    Raises:
        ValueError: There is no such runtime.
        ImportError: What it needs is missing.
    """

    def __init__(self, data: DataSet, folder: Path, runtime: str = TIMED_IN[0], device: str = "cpu") -> None:
        if runtime not in TIMED_IN:
            raise ValueError(unknown("runtime to be timed in", runtime, TIMED_IN))
        for package in ("onnx", "onnxscript", "onnxruntime") if runtime == "onnxruntime" else ():
            require(package, "onnx")
        self.data, self.folder, self.runtime, self.device = data, folder, runtime, device
        self.modules: dict[str, nn.Module] = {}
        self.files: dict[str, Path] = {}
        self.inputs: Tensor | None = None

    def add(self, name: str, recipe: Recipe, **arguments: Any) -> None:
        """Build the network of a recipe, with further arguments, in the form that is timed.

        Raises:
            ValueError: It cannot be exported.
        """
        task = find_task(recipe.task.name)
        recipe = task.complete(recipe, self.data)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = task.build(recipe, self.data.facts, **arguments).eval()
        info = {
            "model": recipe.model.name,
            "model_args": recipe.model.args,
            "head": recipe.model.head,
            "task": task.name,
            **task.stored(recipe),
            **self.data.facts,
            **task.preparation(recipe, self.data, model),
        }
        loaded = described_model(model, info)
        if self.runtime == "pytorch":
            module, self.inputs = task.timed(loaded, self.data.test, 1)
            self.modules[name] = reparameterize(module.eval())
            return
        self.inputs = task.example_inputs(loaded, 1)
        self.files[name] = self.folder / f"{len(self.files)}.onnx"
        export(loaded, ("onnx",), self.files[name], images=self.inputs)

    def times(self, names: Sequence[str]) -> dict[str, float]:
        """Of each the median milliseconds for one sample, in one interleaved measurement."""
        found = latency(
            {name: self.modules[name] for name in names if name in self.modules},
            {name: self.files[name] for name in names if name in self.files},
            images=self.inputs,
            batch_sizes=(1,),
            runtimes=(self.runtime,),
            device=self.device,
            seconds=SECONDS * len(names),
        )
        return {name: found[name]["latency_ms"][self.runtime]["1"] for name in names}


def measure_latency(recipe: Recipe, data: DataSet) -> float:
    """Milliseconds for one sample in ONNX Runtime, the median.

    Raises:
        ImportError: onnxruntime or what writes its files is missing.
        ValueError: The model cannot be exported.
    """
    with tempfile.TemporaryDirectory(prefix="tokenmix-") as folder:
        watch = Stopwatch(data, Path(folder))
        watch.add("model", recipe)
        return watch.times(["model"])["model"]
