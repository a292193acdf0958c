"""Our models against their peers: published accuracy against time measured here, all in the same runtimes and run.

    python benchmarks/peers.py [--only casvit repvit] [--threads 1] [--rounds 20]

The models stand in `MODELS`: ours and those of timm with about their size. All take turns in one process, at batch 1.
Writes ``results/peers-cpu.json``, from which ``make docs`` draws the pictures of docs/performance.md, and beside it the
page ``results/peers-cpu.html``, which is not kept in the repository.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tokenmix.bench.main import bench_inference
from tokenmix.files import write_json, write_text
from tokenmix.pages.bench import bench_page

RESULTS = Path(__file__).resolve().parent / "results" / "peers-cpu.json"
OURS = (
    *("affnet_et", "affnet_t", "affnet_s"),
    *("casvit_xs", "casvit_s", "casvit_m", "casvit_t"),
    *("ffnet_1", "ffnet_2", "ffnet_3"),
)
PEERS = (
    *("mobilenetv4_conv_small.e2400_r224_in1k", "mobilenetv4_hybrid_medium.e500_r224_in1k"),
    *("mobilenetv4_conv_medium.e500_r256_in1k", "mobilenetv4_conv_large.e500_r256_in1k"),
    *(f"repvit_{size}.dist_450e_in1k" for size in ("m0_9", "m1_0", "m1_1", "m1_5", "m2_3")),
    *(f"fastvit_{size}.apple_in1k" for size in ("t8", "t12", "s12", "sa12", "sa24")),
    *(f"efficientformerv2_{size}.snap_dist_in1k" for size in ("s0", "s1", "s2", "l")),
    *(f"mobilevitv2_{size}.cvnets_in1k" for size in ("050", "075", "100", "150", "200")),
    *("edgenext_xx_small.in1k", "edgenext_x_small.in1k", "edgenext_small.usi_in1k", "edgenext_base.usi_in1k"),
    *(f"swiftformer_{size}.dist_in1k" for size in ("xs", "s", "l1", "l3")),
    "iformer_m.in1k",
)
MODELS = (*OURS, *PEERS)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[""], help="models whose names contain one of these words")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--runtimes", nargs="+", default=["pytorch", "onnxruntime"])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=3.0, help="at most, per model and runtime")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    result = bench_inference(
        [name for name in MODELS if any(word in name for word in args.only)],
        runtimes=args.runtimes,
        threads=args.threads,
        batches=[1],
        rounds=args.rounds,
        seconds=args.seconds,
        layers=False,
        memory=False,
        log=lambda line: print(line, flush=True),
    )
    write_json(args.out, result)
    write_text(args.out.with_suffix(".html"), bench_page(result))
    for row in result["timings"]:
        print(f"{row['model']} {row['runtime']}: {row['median_ms']:.2f} ms, {100 * row['share']:.0f} % of the limit")


if __name__ == "__main__":
    main()
