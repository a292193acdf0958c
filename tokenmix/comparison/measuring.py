"""What a comparison measures of the trained mixers: the exported file, latency, memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from torch import Tensor

from tokenmix.backbones.reparameterize import reparameterize
from tokenmix.bench.memory import peak_memory_mb
from tokenmix.bench.speed import latency
from tokenmix.checkpoints import Opened
from tokenmix.comparison.training import Trained, test_loader
from tokenmix.data import DataSet
from tokenmix.export.main import export
from tokenmix.export.manifest import read_manifest, weights_sha256
from tokenmix.files import sha256


def _export(
    folder: Path, skeleton: str, trained: Trained, images: DataSet, size: tuple[int, int], real: Tensor
) -> None:
    """Write ``model.onnx`` and check it on real images, unless that was done for these very weights."""
    entry, path = trained.entry, folder / trained.entry["files"]["onnx"]
    done = read_manifest(path.with_suffix(".json"))
    file = done.get("files", {}).get("onnx", {})
    whole = path.is_file() and file.get("sha256") == sha256(path)
    if not whole or done["weights_sha256"] != weights_sha256(trained.model):
        kind = (images.classes, size, images.mean, images.std, images.crop_pct, "bicubic", "center")
        opened = Opened(trained.model, skeleton, "classification", None, {}, *kind)
        file = export(opened, ("onnx",), path, images=real)["files"]["onnx"]
    for key in ("max_error", "top1_agreement"):
        entry[f"onnx_{key}"] = file["errors"][key]


def measure(
    folder: Path,
    skeleton: str,
    trained: Mapping[str, Trained],
    images: DataSet,
    size: tuple[int, int],
    batch_sizes: Sequence[int],
    compile: bool,
    seconds: float,
    device: str,
    log: Callable[[str], None],
) -> None:
    """Export, then time all mixers in one interleaved measurement, then each one's memory in a process of its own."""
    real = next(iter(test_loader(images, size, max(64, *batch_sizes)).batches(0)))["image"]
    for name, one in trained.items():
        _export(folder, skeleton, one, images, size, real[:64])
        log(f"  {name}: ONNX Runtime differs by at most {one.entry['onnx_max_error']:.1e} on real images")
    log(f"measuring latency, all mixers interleaved, for {seconds:.0f} s")
    timings = latency(
        {name: reparameterize(one.model.eval()) for name, one in trained.items()},
        {name: folder / one.entry["files"]["onnx"] for name, one in trained.items()},
        image_size=size,
        batch_sizes=batch_sizes,
        runtimes=("pytorch", "onnxruntime", "compile") if compile else ("pytorch", "onnxruntime"),
        images=real,
        device=device,
        seconds=seconds,
    )
    for name, one in trained.items():
        one.entry.update(timings[name])
    log("measuring peak memory, each mixer in a process of its own")

    def memory(name: str) -> float | None:
        args = {"mixers": name, "dims": trained[name].entry["dims"], "num_classes": len(images.classes)}
        try:
            return peak_memory_mb(skeleton, image_size=size, model_args=args, device=device)
        except ValueError as error:  # a mixer that only this process knows
            log(f"  {name}: {error}")
            return None

    with ThreadPoolExecutor(2) as pool:
        for name, peak in zip(trained, pool.map(memory, trained), strict=True):
            trained[name].entry["peak_memory_mb"] = peak
