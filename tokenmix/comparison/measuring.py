"""What a comparison measures of the trained mixers: the exported file, latency, memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from torch import Tensor

from tokenmix.backbones.reparameterize import reparameterize
from tokenmix.bench.memory import peak_memory_mb
from tokenmix.bench.speed import latency
from tokenmix.comparison.training import Trained
from tokenmix.data.dataset import DataSet
from tokenmix.export.main import export
from tokenmix.export.manifest import read_manifest, weights_sha256
from tokenmix.files import sha256
from tokenmix.recipes import Recipe
from tokenmix.robustness import corruption_errors
from tokenmix.tasks import find_task


def _export(folder: Path, trained: Trained, real: Tensor) -> None:
    """Write ``model.onnx`` and check it on real samples, unless that was done for these very weights."""
    entry, path = trained.entry, folder / trained.entry["files"]["onnx"]
    done = read_manifest(path.with_suffix(".json"))
    file = done.get("files", {}).get("onnx", {})
    whole = path.is_file() and file.get("sha256") == sha256(path)
    if not whole or done["weights_sha256"] != weights_sha256(trained.loaded.model):
        file = export(trained.loaded, ("onnx",), path, images=real)["files"]["onnx"]
    entry["onnx_max_error"] = file["errors"]["max_error"]
    agreement = {name: value for name, value in file["errors"].items() if name.endswith("_agreement")}
    entry.update({f"onnx_{name}": value for name, value in agreement.items()})


def add_corruptions(
    trained: Mapping[str, Trained], data: DataSet, seed: int, device: str, log: Callable[[str], None]
) -> None:
    """Give every mixer's entry what its best weights make of corrupted test samples."""
    for name, one in trained.items():
        found = corruption_errors(one.loaded, data.test, data.facts, seed=seed, device=device)
        one.loaded.model.cpu()
        one.entry["corruptions"] = found
        log(f"  {name}: mean corruption error {found['mce']:.2f} %, plain error {100 - found['plain']:.2f} %")


def measure(
    folder: Path,
    recipe: Recipe,
    trained: Mapping[str, Trained],
    data: DataSet,
    batch_sizes: Sequence[int],
    compile: bool,
    seconds: float,
    device: str,
    log: Callable[[str], None],
) -> None:
    """Export what can be, then time all mixers in one interleaved measurement, then each one's memory by itself."""
    task = find_task(recipe.task.name)
    count = max(64, *batch_sizes)
    timed = {name: task.timed(one.loaded, data.test, count) for name, one in trained.items()}
    real = next(iter(timed.values()))[1]
    runtimes = ["pytorch"]
    if task.exported():
        runtimes.append("onnxruntime")
        for name, one in trained.items():
            try:
                _export(folder, one, real[:64])
            except ValueError as error:  # the others are still compared
                one.entry["not_exported"] = str(error)
                del one.entry["files"]["onnx"]
                log(f"  {name} is not exported: {error}")
            else:
                log(f"  {name}: ONNX Runtime differs by at most {one.entry['onnx_max_error']:.1e} on real {task.noun}")
    else:
        log(f"{task.title}: there are no files for other runtimes, so that PyTorch alone is measured")
    if len(real) == 1:
        batch_sizes = (1,)
        log(f"measuring one of the {task.noun} at a time")
    log(f"measuring latency, all mixers interleaved, for {seconds:.0f} s")
    timings = latency(
        {name: reparameterize(module.eval()) for name, (module, _) in timed.items()},
        {name: folder / one.entry["files"]["onnx"] for name, one in trained.items() if "onnx" in one.entry["files"]},
        batch_sizes=batch_sizes,
        runtimes=[*runtimes, "compile"] if compile else runtimes,
        images=real,
        device=device,
        seconds=seconds,
    )
    for name, one in trained.items():
        one.entry.update(timings[name])
    if not task.exported():
        return
    log("measuring peak memory, each mixer in a process of its own")

    def memory(name: str) -> float | None:
        try:
            return peak_memory_mb(folder / trained[name].entry["files"]["weights"], device=device)
        except ValueError as error:  # a mixer that only this process knows
            log(f"  {name}: {error}")
            return None

    with ThreadPoolExecutor(2) as pool:
        for name, peak in zip(trained, pool.map(memory, trained), strict=True):
            trained[name].entry["peak_memory_mb"] = peak
