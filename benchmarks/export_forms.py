"""AFFNet in ONNX Runtime: its Fourier transforms as matrix products against the same model with ONNX's DFT operator.

    python benchmarks/export_forms.py [--models affnet_et affnet_s] [--rounds 30]

Both files are made from the same weights, and verified against each other; then one image goes through both in turn, in
random order, with one thread. The ratio of the medians is the result.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch

import tokenmix  # noqa: F401  registers the models
from tokenmix.bench.machine import describe
from tokenmix.bench.speed import interleave
from tokenmix.export.onnx import write_onnx
from tokenmix.export.onnx_file import onnx_session
from tokenmix.export.prepare import Prepared, prepare
from tokenmix.files import write_json

RESULTS = Path(__file__).resolve().parent / "results" / "export_forms.json"


def measure(name: str, rounds: int) -> dict[str, Any]:
    """One model's two files: latency in ms, operators, and how far their outputs differ."""
    torch.manual_seed(0)
    model = timm.create_model(name)
    image = torch.randn(1, *model.pretrained_cfg["input_size"])
    sessions, operators = {}, {}
    with tempfile.TemporaryDirectory(prefix="tokenmix-") as folder:
        for form in ("matmul", "fft"):
            ready = Prepared(prepare(copy.deepcopy(model), form=form), image, "image", ("logits",), {}, name)
            path = Path(folder) / f"{form}.onnx"
            operators[form] = write_onnx(ready, path)["operators"]
            sessions[form] = onnx_session(path, threads=1)
    outputs = {form: session.run(None, {"image": image.numpy()})[0] for form, session in sessions.items()}
    calls = {
        form: lambda session=session: session.run(None, {"image": image.numpy()}) for form, session in sessions.items()
    }
    found = {form: dataclasses.asdict(timing) for form, timing in interleave(calls, rounds=rounds).items()}
    return {
        "latency": found,
        "fft_over_matmul": found["fft"]["median_ms"] / found["matmul"]["median_ms"],
        "relative_difference": float(np.abs(outputs["fft"] - outputs["matmul"]).max() / np.abs(outputs["fft"]).max()),
        "fourier_operators": {form: counts.get("DFT", 0) for form, counts in operators.items()},
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["affnet_et", "affnet_s"])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = {}
    for name in args.models:
        found[name] = measure(name, args.rounds)
        ms = {form: timing["median_ms"] for form, timing in found[name]["latency"].items()}
        print(
            f"{name}: matmul {ms['matmul']:.1f} ms, DFT {ms['fft']:.1f} ms, {found[name]['fft_over_matmul']:.1f} times"
        )
    write_json(args.out, {"machine": describe(), "batch": 1, "threads": 1, "models": found})


if __name__ == "__main__":
    main()
