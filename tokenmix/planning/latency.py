"""How fast a recipe's model would answer on this machine, in ONNX Runtime."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from tokenmix.bench.speed import latency
from tokenmix.checkpoints import described_model
from tokenmix.data.dataset import DataSet
from tokenmix.export.extras import require
from tokenmix.export.main import export
from tokenmix.recipes import Recipe
from tokenmix.tasks import find_task

SECONDS = 2.0  # of measurement


def measure_latency(recipe: Recipe, data: DataSet) -> float:
    """Milliseconds for one sample, the median: of fresh weights, which are as fast as trained ones.

    Raises:
        ImportError: onnxruntime or what writes its files is missing.
        ValueError: The model cannot be exported.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        require(package, "onnx")
    task = find_task(recipe.task.name)
    recipe = task.complete(recipe, data)
    with torch.random.fork_rng(devices=[]), tempfile.TemporaryDirectory(prefix="tokenmix-") as folder:
        torch.manual_seed(0)
        model = task.build(recipe, data.facts).eval()
        info = {
            "model": recipe.model.name,
            "model_args": recipe.model.args,
            "head": recipe.model.head,
            "task": task.name,
            **task.stored(recipe),
            **data.facts,
            **task.preparation(recipe, data, model),
        }
        loaded = described_model(model, info)
        example = task.example_inputs(loaded, 1)
        path = Path(folder) / "model.onnx"
        export(loaded, ("onnx",), path, images=example)
        found = latency(
            {}, {"model": path}, images=example, batch_sizes=(1,), runtimes=("onnxruntime",), seconds=SECONDS
        )
        return found["model"]["latency_ms"]["onnxruntime"]["1"]
