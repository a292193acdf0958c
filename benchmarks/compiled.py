"""`tokenmix.compile` beside `torch.compile`: ``python benchmarks/compiled.py [--models ...] [--seconds 30]``.

At batch 1, one thread, float32, at each model's own size, interleaved in one process: the papers' form, of
`reference_forms`, in eager PyTorch; the same by ``torch.compile`` with frozen weights; our plain form by the same; our
merged form in eager PyTorch; and what `tokenmix.compile` returns, which is given ``--compile-seconds`` to choose. Each
model is a process of its own. Those that ``results/compiled-cpu.json`` has already are left out unless ``--fresh``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # for the reference forms

import tokenmix  # noqa: E402
from benchmarks.reference_forms import reference_form  # noqa: E402
from tokenmix.bench.interleaved import interleave  # noqa: E402
from tokenmix.bench.machine import describe, load_average  # noqa: E402
from tokenmix.bench.runtimes import compiled_code  # noqa: E402
from tokenmix.compilation.choice import as_dict  # noqa: E402
from tokenmix.compilation.main import difference  # noqa: E402
from tokenmix.files import write_json  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "compiled-cpu.json"
MODELS = ("casvit_s", "affnet_et", "ffnet_1")


def measure(name: str, seconds: float, compile_seconds: float) -> dict[str, Any]:
    """All forms of one model."""
    torch.manual_seed(0)
    model = timm.create_model(name).eval()
    x = torch.randn(1, *model.pretrained_cfg["input_size"], generator=torch.Generator().manual_seed(0))
    before = load_average()
    with tempfile.TemporaryDirectory() as folder:
        fast = tokenmix.compile(model, x, seconds=compile_seconds, cache=folder, log=partial(print, flush=True))
        print(fast.choice, flush=True)
        reference = reference_form(model)
        forms = {
            "papers_eager": reference,
            "papers_frozen": compiled_code(reference, 1, freezing=True),
            "ours_frozen": compiled_code(model, 1, freezing=True),
            "ours_eager": tokenmix.reparameterize(model),
            "compile": fast,
        }
        with torch.no_grad():
            expected = [model(x)]
            differences = {key: difference([form(x)], expected) for key, form in forms.items()}
            calls = {key: partial(form, x) for key, form in forms.items()}
            timings = interleave(calls, rounds=60, max_seconds=seconds)
    row: dict[str, Any] = {"model": name, "size_px": x.shape[-1], "load_average": [before, load_average()]}
    for key, timing in timings.items():
        interval = [round(timing.low_ms, 3), round(timing.high_ms, 3)]
        row[key] = {"median_ms": round(timing.median_ms, 3), "interval_ms": interval, "min_ms": round(timing.min_ms, 3)}
        row[key] |= {"rounds": timing.rounds, "difference": differences[key]}
    taken = row["compile"]["median_ms"]
    row["ratios"] = {key: round(row[key]["median_ms"] / taken, 2) for key in forms if key != "compile"}
    return row | {"choice": as_dict(fast.choice)}


def main() -> None:
    """Measure what is missing, and write ``results/compiled-cpu.json`` after each model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=MODELS, metavar="NAME")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--compile-seconds", type=float, default=240.0)
    parser.add_argument("--fresh", action="store_true", help="measure again what is there")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.one:
        row = measure(args.one, args.seconds, args.compile_seconds)
        found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"rows": []}
        rows = [*(old for old in found["rows"] if old["model"] != args.one), row]
        write_json(RESULTS, {"machine": describe(), "rows": rows})
        return
    done = {row["model"] for row in json.loads(RESULTS.read_text())["rows"]} if RESULTS.exists() else set()
    for name in args.models:
        if name in done and not args.fresh:
            continue
        words = ["--one", name, "--seconds", str(args.seconds), "--compile-seconds", str(args.compile_seconds)]
        subprocess.run([sys.executable, "-W", "ignore", __file__, *words], check=True)


if __name__ == "__main__":
    main()
