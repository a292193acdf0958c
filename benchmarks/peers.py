"""Our models against their peers: published accuracy against time measured here, all in the same runtimes and run.

    python benchmarks/peers.py [--only casvit repvit] [--group 8] [--threads 1] [--seconds 2] [--redo]

The models stand in `MODELS`, ours and those of timm with about their size. They are measured in groups, each with
`ANCHOR` among them: memory does not hold all at once, and the anchor's time shows how far the machine moved from one
group to the next. Results are written after each group, and a second call goes on with the models that are missing.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenmix.bench.main import bench_inference
from tokenmix.files import write_json

RESULTS = Path(__file__).resolve().parent / "results" / "peers-cpu.json"
ANCHOR = "mobilenetv4_conv_medium.e500_r256_in1k"
OURS = (
    *("affnet_et", "affnet_t", "affnet_s"),
    *("casvit_xs", "casvit_s", "casvit_m", "casvit_t"),
    *("ffnet_1", "ffnet_2", "ffnet_3"),
)
PEERS = (
    *("mobilenetv4_conv_small.e2400_r224_in1k", "mobilenetv4_hybrid_medium.e500_r224_in1k"),
    "mobilenetv4_conv_large.e500_r256_in1k",
    *(f"repvit_{size}.dist_450e_in1k" for size in ("m0_9", "m1_0", "m1_1", "m1_5", "m2_3")),
    *(f"fastvit_{size}.apple_in1k" for size in ("t8", "t12", "s12", "sa12", "sa24")),
    *(f"efficientformerv2_{size}.snap_dist_in1k" for size in ("s0", "s1", "s2", "l")),
    *(f"mobilevitv2_{size}.cvnets_in1k" for size in ("050", "075", "100", "150", "200")),
    *("edgenext_xx_small.in1k", "edgenext_x_small.in1k", "edgenext_small.usi_in1k", "edgenext_base.usi_in1k"),
    *(f"swiftformer_{size}.dist_in1k" for size in ("xs", "s", "l1", "l3")),
    "iformer_m.in1k",
)
MODELS = (*OURS, *PEERS)


def groups(names: Sequence[str], size: int) -> list[list[str]]:
    """Every n-th name, so that families and sizes are spread over the groups, and the anchor in each."""
    count = -(-len(names) // size)
    return [[ANCHOR, *(name for name in names[start::count] if name != ANCHOR)] for start in range(count)]


def merge(kept: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """The results with those of one more group: its circumstances, and the entries and rows of its models."""
    new = {name for name in found["models"] if name not in kept.get("models", {})}
    part = {key: found[key] for key in ("created", "machine", "load_average", "clock", "limits", "settings")}
    part["models"] = list(found["models"])
    part["anchor"] = [row for row in found["timings"] if row["model"] == ANCHOR]
    return {
        "anchor": ANCHOR,
        "groups": [*kept.get("groups", []), part],
        "models": {**kept.get("models", {}), **{name: found["models"][name] for name in new}},
        "timings": [*kept.get("timings", []), *(row for row in found["timings"] if row["model"] in new)],
        "skipped": [*kept.get("skipped", []), *(row for row in found["skipped"] if row not in kept.get("skipped", []))],
    }


def main() -> None:
    """Measure what is missing, group by group."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[""], help="models whose names contain one of these words")
    parser.add_argument("--group", type=int, default=8, metavar="N", help="models at once, besides the anchor")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 0], help="0: the one with the most images/s")
    parser.add_argument("--runtimes", nargs="+", help="default: those that are installed and start at once")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=2.0, help="per model, runtime and batch")
    parser.add_argument("--redo", action="store_true", help="begin again")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    kept = json.loads(args.out.read_text()) if args.out.is_file() and not args.redo else {}
    chosen = [name for name in MODELS if any(word in name for word in args.only)]
    left = [name for name in chosen if name not in kept.get("models", {})]
    print(f"{len(left)} of {len(chosen)} models to measure, {os.cpu_count()} cores")
    for group in groups(left, args.group) if left else []:
        found = bench_inference(
            group,
            runtimes=args.runtimes,
            threads=args.threads,
            batches=args.batches,
            rounds=args.rounds,
            seconds=args.seconds,
            log=print,
        )
        kept = merge(kept, found)
        write_json(args.out, kept)
        for row in found["timings"]:
            print(f"{row['model']} {row['runtime']} batch {row['batch']}: {row['median_ms']:.2f} ms", flush=True)


if __name__ == "__main__":
    main()
