"""Our forms against the papers': ``python benchmarks/speed.py [--models ...] [--seconds 20]``.

The same weights and images in both forms of `reference_forms`, interleaved in one process, one thread, float32:
every mixer at its paper's sizes, whole models in inference (PyTorch eager, batch 1 and 8), through ONNX Runtime (our
exported file against the papers' form exported as it stands), and a training step with the bytes it keeps for the
backward pass and, each form in a process of its own, the peak of its memory. Ratios above 1 mean that ours is faster.
``share`` is the part of the machine's limit that a form reaches in inference, before and after: the same least work,
that of the fused model, over the time of each. Every model is measured in a process of its own, as it is run: in an
older one the allocator hands out memory that others have left. Writes ``results/speed-cpu.json``.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # for the reference forms

import tokenmix  # noqa: E402
from benchmarks.reference_forms import reference_form  # noqa: E402
from tokenmix.bench.inference import limits  # noqa: E402
from tokenmix.bench.layers import Work, count_layers  # noqa: E402
from tokenmix.bench.machine import describe  # noqa: E402
from tokenmix.bench.memory import resident_peak, start_peak  # noqa: E402
from tokenmix.bench.roofline import Roofline, measure_roofline  # noqa: E402
from tokenmix.bench.speed import interleave  # noqa: E402
from tokenmix.checkpoints import convert  # noqa: E402
from tokenmix.export import export  # noqa: E402
from tokenmix.export.onnx_file import onnx_session  # noqa: E402
from tokenmix.files import write_json  # noqa: E402
from tokenmix.mixers import make_mixer  # noqa: E402
from tokenmix.ops.dispatch import definitions  # noqa: E402
from tokenmix.train.memory import kept_memory  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "speed-cpu.json"
MODELS = ("affnet_et", "affnet_s", "casvit_xs", "casvit_s", "ffnet_1")
# Side of the map and channels of each paper's stages that hold the mixer, of a small variant.
MIXERS = {
    "aff": ((32, 128), (16, 256), (8, 320)),
    "additive": ((56, 48), (28, 64), (14, 128), (7, 256)),
    "ffnified": ((64, 80), (32, 160), (16, 320), (8, 640)),
}


def ratio(calls: dict[str, Callable[[], object]], seconds: float) -> dict[str, Any]:
    """Medians of both in milliseconds with their intervals, and how many times faster ours is."""
    timings = interleave(calls, max_seconds=seconds)
    row = {
        name: {"median_ms": round(t.median_ms, 3), "interval_ms": [round(t.low_ms, 3), round(t.high_ms, 3)]}
        for name, t in timings.items()
    }
    return {**row, "ratio": round(timings["reference"].median_ms / timings["ours"].median_ms, 2)}


def shares(row: dict[str, Any], work: Work, roofline: Roofline) -> dict[str, Any]:
    """Which part of the machine's limit each form reaches, and what that limit is."""
    batch = row["batch"]
    found = {
        key: limits(roofline, batch * work.flops, work.bytes(batch), row[key]["median_ms"] / 1000)
        for key in ("reference", "ours")
    }
    share = {key: round(limit["share"], 3) for key, limit in found.items()}
    return {"limit_ms": round(found["ours"]["limit_ms"], 3), "bound": found["ours"]["bound"], "share": share}


def difference(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, as a share of the largest value."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


@torch.inference_mode()
def mixers(seconds: float) -> list[dict[str, Any]]:
    """Each mixer alone, as it lies in a network of ours: in channels_last memory."""
    rows = []
    for name, sizes in MIXERS.items():
        for side, dim in sizes:
            with torch.inference_mode(False):  # weights made in it count no changes, so nothing built from them is kept
                mixer = make_mixer(name, dim).eval()
                reference, ours = reference_form(mixer), tokenmix.reparameterize(mixer)
            for batch in (1, 8):
                x = torch.randn(batch, dim, side, side, generator=torch.Generator().manual_seed(0))
                last = x.contiguous(memory_format=torch.channels_last)
                calls = {"reference": lambda f=reference, x=x: f(x), "ours": lambda f=ours, x=last: f(x)}
                row = {"mixer": name, "side_px": side, "channels": dim, "batch": batch, **ratio(calls, seconds)}
                rows.append({**row, "difference": difference(ours(last), reference(x))})
                print(name, side, dim, batch, row["ratio"], flush=True)
    return rows


def inference(name: str, seconds: float, roofline: Roofline) -> list[dict[str, Any]]:
    """A whole model in PyTorch and in ONNX Runtime."""
    model = timm.create_model(name).eval()
    reference, ours = reference_form(model), tokenmix.reparameterize(model)
    size = model.pretrained_cfg["input_size"]
    work = count_layers(ours, torch.zeros(1, *size))
    rows = []
    with torch.inference_mode():
        for batch in (1, 8):
            x = torch.randn(batch, *size, generator=torch.Generator().manual_seed(0))
            calls = {"reference": lambda x=x: reference(x), "ours": lambda x=x: ours(x)}
            row = {"model": name, "runtime": "pytorch", "batch": batch, **ratio(calls, seconds)}
            rows.append({**row, **shares(row, work, roofline), "difference": difference(ours(x), reference(x))})
            print(name, "pytorch", batch, row["ratio"], flush=True)
    with tempfile.TemporaryDirectory() as folder:
        stem = Path(folder) / "ours"
        safe = Path(folder) / "weights.safetensors"
        convert(model.state_dict(), safe)
        export(safe, ["onnx"], stem, dynamic_batch=False)
        x = torch.randn(1, *size, generator=torch.Generator().manual_seed(0))
        theirs = Path(folder) / "reference.onnx"
        with warnings.catch_warnings(), contextlib.redirect_stdout(None):
            warnings.simplefilter("ignore")
            try:
                torch.onnx.export(reference, (x,), theirs, dynamo=True, opset_version=20, verbose=False)
            except Exception as error:  # whatever the exporter raises is the result
                rows.append({"model": name, "runtime": "onnxruntime", "batch": 1, "reason": str(error).splitlines()[0]})
                return rows
        feeds = x.numpy()
        sessions = {"reference": onnx_session(theirs, 1), "ours": onnx_session(f"{stem}.onnx", 1)}
        calls = {
            key: lambda s=session: s.run(None, {s.get_inputs()[0].name: feeds}) for key, session in sessions.items()
        }
        row = {"model": name, "runtime": "onnxruntime", "batch": 1, **ratio(calls, seconds)}
        answers = [torch.from_numpy(call()[0]) for call in calls.values()]
        rows.append({**row, **shares(row, work, roofline), "difference": difference(answers[1], answers[0])})
        print(name, "onnxruntime", 1, row["ratio"], flush=True)
    return rows


def kept_bytes(forward: Callable[[], object]) -> int:
    """Bytes that a forward pass leaves behind for the backward pass: PyTorch's own count of its memory."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        output = forward()  # alive until all are counted
    del output
    return sum(event.self_cpu_memory_usage for event in profiler.key_averages())


def trained(name: str, form: str, batch: int) -> tuple[Callable[[], Any], Callable[[], None]]:
    """The forward pass of a model in one of the forms, and a step: forward, backward, AdamW.

    Ours lies in channels_last memory, as the recipe key of that name has it. The papers' keeps what PyTorch keeps.
    """
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=10)
    x = torch.randn(batch, *model.pretrained_cfg["input_size"], generator=torch.Generator().manual_seed(0))
    if form == "reference":
        model = reference_form(model)
    else:
        model, x = (each.to(memory_format=torch.channels_last) for each in (model, x))
    model.train()
    labels = torch.arange(batch) % 10
    optimizer = torch.optim.AdamW(model.parameters())

    def forward() -> Any:
        with definitions() if form == "reference" else contextlib.nullcontext():
            return model(x)

    def step() -> None:
        output = forward()
        nn.functional.cross_entropy(output[0] if isinstance(output, tuple) else output, labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    return forward, step


def peak_mb(name: str, form: str, batch: int) -> float:
    """Peak resident memory of a step after the first one, in a process of its own: weights, moments, activations."""
    program = f"from benchmarks.speed import print_peak; print_peak({name!r}, {form!r}, {batch})"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    return float(done.stdout.splitlines()[-1])


def print_peak(name: str, form: str, batch: int) -> None:
    """What the process of `peak_mb` does."""
    torch.set_num_threads(1)
    trained("affnet_et", form, 1)[1]()  # loads the libraries, which are not the model's
    idle = start_peak()
    step = trained(name, form, batch)[1]
    step()
    start_peak()
    step()
    print(round((resident_peak() - idle) / 1e6, 1))


def training(name: str, seconds: float, batch: int = 8) -> dict[str, Any]:
    """Time, kept bytes and peak memory of a step, of both forms with the memory kept that they free: so does `fit`."""
    calls, kept = {}, {}
    for form in ("reference", "ours"):
        forward, calls[form] = trained(name, form, batch)
        kept[form] = kept_bytes(forward)
    with kept_memory():
        row = {"model": name, "batch": batch, **ratio(calls, seconds)}
    row["kept_mb"] = {key: round(value / 1e6, 1) for key, value in kept.items()}
    row["kept_share"] = round(kept["ours"] / kept["reference"], 3)
    row["peak_mb"] = {form: peak_mb(name, form, batch) for form in calls}
    row["peak_share"] = round(row["peak_mb"]["ours"] / row["peak_mb"]["reference"], 3)
    print(name, "training", row["ratio"], "kept", row["kept_share"], "peak", row["peak_share"], flush=True)
    return row


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--seconds", type=float, default=12.0, help="per comparison of models; mixers get a fourth")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    roofline = measure_roofline()
    results: dict[str, Any] = {"machine": describe(), "threads": 1, "limits": dataclasses.asdict(roofline)}
    results |= {"mixers": mixers(args.seconds / 4), "inference": [], "training": []}
    fresh = {"mp_context": get_context("spawn"), "max_tasks_per_child": 1}
    with ProcessPoolExecutor(1, **fresh, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for name in args.models:
            results["inference"] += pool.submit(inference, name, args.seconds, roofline).result()
            results["training"].append(pool.submit(training, name, args.seconds).result())
            write_json(args.out, results)


if __name__ == "__main__":
    main()
