"""What a comparison measures of the trained mixers: the exported file, latency, memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from torch import Tensor

from tokenmix.backbones.reparameterize import reparameterize
from tokenmix.bench.memory import peak_memory_mb
from tokenmix.bench.speed import latency
from tokenmix.comparison.training import Trained, test_loader
from tokenmix.data import DataSet
from tokenmix.export.onnx import export_onnx
from tokenmix.export.verify import check, verify_onnx
from tokenmix.files import sha256, write_json


def _export(folder: Path, trained: Trained, images: DataSet, size: tuple[int, int], real: Tensor) -> None:
    """Write ``model.onnx`` and check it on real images, unless that was done for these very weights."""
    entry, path = trained.entry, folder / trained.entry["files"]["onnx"]
    stamp = path.with_name("export.json")
    done = json.loads(stamp.read_text(encoding="utf-8")) if stamp.is_file() and path.is_file() else {}
    if done.get("weights_sha256") != entry["weights_sha256"] or done.get("onnx_sha256") != sha256(path):
        export_onnx(
            trained.model,
            path,
            image_size=size,
            labels=images.classes,
            mean=images.mean,
            std=images.std,
            crop_pct=images.crop_pct,
            interpolation="bicubic",
            crop_mode="center",
        )
        try:
            found = verify_onnx(path, trained.model, real)
            check(found, name=str(path))
        except ValueError:
            path.unlink()  # a file that computes something else must not be shipped
            raise
        done = {"weights_sha256": entry["weights_sha256"], "onnx_sha256": sha256(path), **found}
        write_json(stamp, done)
    entry["onnx_max_error"], entry["onnx_top1_agreement"] = done["max_error"], done["top1_agreement"]


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
        _export(folder, one, images, size, real[:64])
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
