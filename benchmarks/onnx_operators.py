"""Where ONNX Runtime spends a model's time, and how near its products come to this machine's rate.

    python benchmarks/onnx_operators.py [--models affnet_et casvit_xs] [--runs 50]

Each model is exported, and run on one thread with ONNX Runtime's own profiler; an operator's time is the median of its
runs. Convolutions are told apart by kernel and groups, as they stand in the graph after its optimisation. The share of
the rate is arithmetic over time, against the matrix rate that PyTorch reaches in the same run; of an operator it is the
arithmetic that is done, with the channels that the runtime adds to fill a vector unit.

The whole file's share, in ONNX Runtime and, where it is installed, in OpenVINO, is of the arithmetic that the file asks
for, and the median over rounds in each of which a product of large matrices is measured too, since others may change
the machine's pace.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import timm
import torch

import tokenmix  # noqa: F401  registers the models
from tokenmix.bench.machine import describe
from tokenmix.bench.roofline import measure_roofline
from tokenmix.export.onnx import write_onnx
from tokenmix.export.onnx_file import onnx_session
from tokenmix.export.openvino import compile_openvino
from tokenmix.export.prepare import Prepared, prepare
from tokenmix.files import write_json

RESULTS = Path(__file__).resolve().parent / "results" / "onnx_operators.json"
MODELS = ["affnet_et", "affnet_t", "affnet_s", "casvit_xs", "casvit_s", "casvit_m", "ffnet_1"]
WARM_UP = 3
SIDE = 1024
"""Of the matrices in each round."""
PRODUCTS = ("MatMul", "FusedMatMul", "Gemm")


def profiled(path: Path, image: Any, runs: int) -> tuple[onnx.ModelProto, dict[str, list[dict[str, Any]]]]:
    """The optimised graph of a file, and of each of its nodes what the profiler wrote of every run."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_profiling = True
    options.profile_file_prefix = str(path.with_suffix(""))
    options.optimized_model_filepath = str(path.with_suffix(".optimised.onnx"))
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    for _ in range(WARM_UP + runs):
        session.run(None, {"image": image})
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            found[event["name"].removesuffix("_kernel_time")].append(event)
    return onnx.load(options.optimized_model_filepath), found


def kind_and_flops(
    node: onnx.NodeProto, weights: dict[str, list[int]], first: list[int], result: list[int]
) -> tuple[str, int]:
    """What a node is called in the table, and its arithmetic: two operations for each product and its addition.

    Args:
        node: It.
        weights: Shapes of the graph's weights, by name.
        first: Shape of the node's first input.
        result: Of its first output.
    """
    attributes = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
    if "Conv" in node.op_type:
        wide, per_group, *kernel = weights[node.input[1]]
        groups = attributes.get("group", 1)
        if groups == 1:
            form = "dense"
        elif per_group == 1:
            form = "depthwise"
        else:
            form = f"groups of {per_group} to {wide // groups}"
        name = f"convolution {' x '.join(map(str, kernel))}, {form}"
        return name, 2 * math.prod(result) * per_group * math.prod(kernel)
    if node.op_type in PRODUCTS:
        return "product", 2 * math.prod(result) * first[-2 if attributes.get("transA") else -1]
    return node.op_type, 0


def asked_gflops(path: Path) -> float:
    """1e9 floating-point operations of the convolutions and products of a file, as it is written."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(path)).graph
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        shapes[value.name] = [size.dim_value for size in value.type.tensor_type.shape.dim]
    multiply = [node for node in graph.node if node.op_type in ("Conv", *PRODUCTS)]
    return (
        sum(kind_and_flops(node, shapes, shapes[node.input[0]], shapes[node.output[0]])[1] for node in multiply) / 1e9
    )


def shares(path: Path, image: Any, gflops: float, runs: int) -> dict[str, dict[str, float]]:
    """Of each runtime the milliseconds of the whole file, and the share of the matrix rate of the same round."""
    a, b = torch.rand(2, SIDE, SIDE)
    out = torch.empty_like(a)
    session = onnx_session(path, threads=1)
    calls: dict[str, Callable[[], object]] = {
        "product": lambda: torch.mm(a, b, out=out),
        "onnxruntime": lambda: session.run(None, {"image": image}),
    }
    if importlib.util.find_spec("openvino") is not None:
        compiled = compile_openvino(path, threads=1)
        calls["openvino"] = lambda: compiled(image)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(WARM_UP + runs):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    rates = [2e-9 * SIDE**3 / taken for taken in seconds.pop("product")[WARM_UP:]]
    return {
        name: {
            "ms": 1e3 * statistics.median(taken[WARM_UP:]),
            "of_rate": statistics.median(gflops / one / rate for one, rate in zip(taken[WARM_UP:], rates, strict=True)),
        }
        for name, taken in seconds.items()
    }


def measure(name: str, runs: int, rate: float) -> dict[str, Any]:
    """One model: its operators by kind, the slowest first, and the whole file in its runtimes."""
    torch.manual_seed(0)
    model = timm.create_model(name)
    image = torch.randn(1, *model.pretrained_cfg["input_size"])
    with tempfile.TemporaryDirectory(prefix="tokenmix-") as folder:
        path = Path(folder) / "model.onnx"
        write_onnx(Prepared(prepare(model), image, "image", ("logits",), {}, name), path)
        graph, events = profiled(path, image.numpy(), runs)
        rows = by_kind(graph, events, rate)
        whole = shares(path, image.numpy(), asked_gflops(path), runs)
    return {"ms": sum(row["ms"] for row in rows.values()), "runtimes": whole, "operators": rows}


def by_kind(graph: onnx.ModelProto, events: dict[str, list[dict[str, Any]]], rate: float) -> dict[str, dict[str, Any]]:
    """Number, milliseconds, arithmetic, share of the time and of a rate in GFLOP/s, of operators of one kind."""
    nodes = {node.name: node for node in graph.graph.node}
    weights = {tensor.name: list(tensor.dims) for tensor in graph.graph.initializer}
    rows: dict[str, dict[str, Any]] = {}
    for node, of_node in events.items():
        first, result = (next(iter(of_node[0]["args"][f"{end}_type_shape"][0].values())) for end in ("input", "output"))
        kind, flops = kind_and_flops(nodes[node], weights, first, result)
        row = rows.setdefault(kind, {"operators": 0, "ms": 0.0, "mflops": 0.0})
        row["operators"] += 1
        row["ms"] += statistics.median(event["dur"] for event in of_node[WARM_UP:]) / 1e3
        row["mflops"] += flops / 1e6
    whole = sum(row["ms"] for row in rows.values())
    for row in rows.values():
        row["of_time"] = row["ms"] / whole
        if row["mflops"]:
            row["of_rate"] = row["mflops"] / row["ms"] / rate
    return dict(sorted(rows.items(), key=lambda row: -row[1]["ms"]))


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--runs", type=int, default=50)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rate = measure_roofline().gflops
    models = {name: measure(name, args.runs, rate) for name in args.models}
    for name, found in models.items():
        print(f"{name}: {found['ms']:.1f} ms in its operators, {rate:.0f} GFLOP/s at most")
        for runtime, row in found["runtimes"].items():
            print(f"  in {runtime}: {row['ms']:.1f} ms, {row['of_rate']:.0%} of the rate")
        for kind, row in found["operators"].items():
            share = f"{row['of_rate']:6.0%} of the rate" if "of_rate" in row else ""
            print(f"  {kind:42} {row['operators']:4} {row['ms']:8.2f} ms {row['of_time']:6.1%} {share}")
    write_json(RESULTS, {"machine": describe(), "gflops": rate, "models": models})


if __name__ == "__main__":
    main()
