"""Which models reach which runtimes, how exactly, and how large the files are.

    python benchmarks/export_matrix.py [--only affnet mask_rcnn] [--formats onnx openvino] [--limit-s 900] [--redo]

Every family's smallest and a middle variant, `mixernet_pico` with every mixer, and every dense head, exported in
float32 (Core ML: float16) for one image, and verified as `tokenmix export` does it. Weights are random, but no norm is
the identity and no layer scale is small. Each cell runs in a process of its own with a time limit; the results are
written after each, and a second call goes on where the first one ended. Cells whose packages are missing stay open.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # for the tests' models

from tokenmix.bench.machine import describe  # noqa: E402
from tokenmix.files import write_json  # noqa: E402
from tokenmix.heads import HEADS, Raw  # noqa: E402
from tokenmix.mixers import MIXERS  # noqa: E402

FORMATS = ("onnx", "openvino", "executorch", "coreml", "torch")
VARIANTS = ("affnet_et", "affnet_s", "casvit_xs", "casvit_s", "dsm_ti", "dsm_s", "ffnet_1", "ffnet_2", "mixernet_tiny")
BACKBONES = {
    "deeplabv3": "affnet_et",
    "semantic_fpn": "casvit_xs",
    "upernet": "dsm_ti",
    "ffnet_seg": "ffnet_1",
    "ssdlite": "affnet_et",
    "retinanet": "casvit_xs",
    "mask_rcnn": "casvit_xs",
    "cascade_mask_rcnn": "ffnet_1",
}
DENSE_SIZE = (256, 256)  # pixels; the published sizes take the same operators and many times the time
RESULTS = ROOT / "benchmarks" / "results" / "export_matrix.json"


def models() -> list[tuple[str, str | None]]:
    """Model and head of each row: variants, ``mixernet_pico[mixer]``, and heads on a backbone."""
    mixers = [f"mixernet_pico[{mixer}]" for mixer in MIXERS]
    return [*((name, None) for name in (*VARIANTS, *mixers)), *((BACKBONES[head], head) for head in HEADS)]


def build(model: str, head: str | None) -> Any:
    """A row's model as `export` takes it."""
    import timm
    import torch

    from tests.export_cases import opened, opened_dense
    from tests.scramble import scramble, settle
    from tokenmix.tasks import find_task

    name, _, mixer = model.rstrip("]").partition("[")
    if head:
        whole = opened_dense(head, name, DENSE_SIZE, narrow=False)
        shown: Any = Raw(whole.model)
    else:
        shown = scramble(timm.create_model(name, **({"mixers": mixer} if mixer else {}))).eval()
        whole = opened(shown, tuple(shown.pretrained_cfg["input_size"][1:]), name=name)
    # At the pictures that it is verified with: products of activations would overflow at others.
    settle(shown, torch.cat(find_task(whole.task).file_form(whole).inputs(None).tensors))
    return whole


def cell(model: str, head: str | None, form: str) -> dict[str, Any]:
    """Export one model to one format; what came of it, as plain values."""
    from tokenmix.export import export

    with tempfile.TemporaryDirectory(prefix="tokenmix-") as folder:
        stem, precision = Path(folder) / "model", "fp16" if form == "coreml" else "fp32"
        try:
            made = export(build(model, head), [form], stem, dynamic_batch=False, precision=precision)
        except ImportError as error:
            return {"status": "missing", "reason": str(error)}
        except ValueError as error:
            return {"status": "failed", "reason": str(error).splitlines()[0]}
        size = sum(path.stat().st_size for path in stem.parent.rglob("*") if path.is_file() and path.suffix != ".json")
    facts = made["files"][form]
    errors = facts["errors"]
    return {
        "status": "ok" if errors["verified"] else "unverified",
        "megabytes": size / 1e6,
        "max_error": errors.get("max_error"),
        "relative_error": errors.get("relative_error"),
        "errors": errors,
        "operators": facts["operators"],
        "reason": errors.get("reason"),
    }


def measure(model: str, head: str | None, form: str, limit_s: float) -> dict[str, Any]:
    """`cell` in a process of its own."""
    command = [sys.executable, __file__, "--cell", json.dumps([model, head, form])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s)
    except subprocess.TimeoutExpired:
        return {"status": "slow", "reason": f"not done after {limit_s:g} s"}
    if done.returncode:
        said = done.stderr.strip().splitlines()
        return {"status": "failed", "reason": said[-1] if said else f"ended with {done.returncode}"}
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Fill the matrix, cell by cell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[""], help="models and heads that contain one of these words")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--limit-s", type=float, default=900.0, help="of one cell (default: %(default)g)")
    parser.add_argument("--redo", action="store_true", help="measure cells again that are there")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--cell", type=json.loads, metavar="JSON", help="print one cell: [model, head, format]")
    args = parser.parse_args()
    if args.cell:
        print(json.dumps(cell(*args.cell)))
        return
    rows = json.loads(args.out.read_text())["rows"] if args.out.exists() else []
    found = {(row["model"], row["head"], row["format"]): row for row in rows}
    order = [(model, head, form) for model, head in models() for form in FORMATS]
    for form in args.formats:  # one format after the other: the most important ones are done first
        for key in [key for key in order if key[2] == form]:
            model, head, _ = key
            if not any(word in f"{model} {head}" for word in args.only) or (key in found and not args.redo):
                continue
            start = time.perf_counter()
            result = measure(model, head, form, args.limit_s)
            seconds = round(time.perf_counter() - start, 1)
            print(
                f"{model:28} {head!s:18} {form:10} {result['status']:10} {seconds:6} {result.get('reason')}", flush=True
            )
            if result["status"] != "missing":
                unknown = dict.fromkeys(("megabytes", "max_error", "relative_error", "reason"))
                found[key] = {"model": model, "head": head, "format": form, **unknown, **result, "seconds": seconds}
                rows = [found[key] for key in order if key in found]
                write_json(args.out, {"machine": describe(), "dense_size_px": DENSE_SIZE, "rows": rows})


if __name__ == "__main__":
    main()
