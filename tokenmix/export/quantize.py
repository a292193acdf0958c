"""Eight bits where they do no harm: which parts of a model stay in float is measured, by one rule for all models.

Every part is quantised alone, and the error that this makes at the model's outputs on some calibration images is its
noise. Then all are quantised but the noisiest, as few of them as bring the outputs' noise below the target; and further
ones stay in float until that holds on all calibration images together.

Between int8 and float values are converted, which costs time. So the layers with many weights alone are tried too, and
the faster of the two files is kept.
"""

from __future__ import annotations

import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from tokenmix.export.errors import ExportError
from tokenmix.export.extras import quiet, require
from tokenmix.export.onnx_file import onnx_session

TARGET_DB = 25.0
"""Least ratio of signal to noise at the outputs, in decibels: 25 is an error of a twentieth of the outputs' size."""
MEASURED_IMAGES = 8
LARGE = 8192
"""Weights of a layer from which on it may be faster in int8, whatever is converted around it."""
FASTER = 0.97
"""The share of the float file's time above which int8 has not paid."""
PARTS = 48
"""At most so many parts are told apart: neighbouring layers of a deeper model share one."""
OPERATORS = ("Conv", "MatMul", "Gemm")

Run = Callable[[np.ndarray], Sequence[np.ndarray]]
"""From one image, with its batch axis, to all outputs."""


def choose(
    parts: Sequence[Any], noise: Callable[[Sequence[Any]], float], *, target_db: float = TARGET_DB
) -> tuple[list[Any], float]:
    """The parts to quantise, in their order, and the noise that they make together.

    Args:
        parts: All that could be.
        noise: Noise at the model's outputs, relative to the signal (powers), with exactly these parts quantised.
        target_db: See `TARGET_DB`.

    Raises:
        ExportError: There is nothing that could be quantised at that target.
    """
    limit = 10.0 ** (-target_db / 10.0)
    loudest = sorted(range(len(parts)), key=[-noise([part]) for part in parts].__getitem__)

    def without(count: int) -> list[Any]:
        left = sorted(loudest[count:])
        return [parts[i] for i in left]

    low, high = 0, len(parts)  # the answer's number of float parts; nothing quantised makes no noise
    while low < high:
        middle = (low + high) // 2
        if noise(without(middle)) <= limit:
            high = middle
        else:
            low = middle + 1
    chosen = without(high)
    if not chosen:
        raise ExportError(f"no part can be int8 with {target_db:g} dB left at the outputs: choose fp16 or fp32")
    return chosen, noise(chosen)


def relative_noise(found: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> float:
    """Power of the difference over power of the wanted values, of the output where it is largest.

    Raises:
        ExportError: An output holds no real numbers, or has another shape in one than in the other.
    """
    ratios = []
    for one, other in zip(found, wanted, strict=True):
        if other.dtype.kind != "f" or one.shape != other.shape:
            raise ExportError("int8 needs outputs that can be compared: export it without its post-processing inside")
        power = float(np.square(other, dtype=np.float64).sum())
        ratios.append(float(np.square(one - other, dtype=np.float64).sum()) / max(power, np.finfo(np.float64).tiny))
    return max(ratios) if all(map(math.isfinite, ratios)) else math.inf


def decibels(noise: float) -> float:
    """A relative noise as the ratio of signal to noise; at most 200."""
    return round(-10.0 * math.log10(max(noise, 1e-20)), 2)


def quantize_onnx(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    calibration: Sequence[Tensor],
    *,
    target_db: float = TARGET_DB,
    start: Callable[[bytes], Run] | None = None,
    reduce_range: bool = False,
) -> dict[str, Any]:
    """Write a float ONNX file as one with int8 weights (per channel) and activations, static, in QDQ form.

    Args:
        source: The float32 file.
        target: The file to write; may be the source.
        calibration: Batches as the file takes them; `MEASURED_IMAGES` of them also measure the parts' noise.
        target_db: See `TARGET_DB`.
        start: Makes a file's content a function from one image to the outputs, by the runtime that noise and time are
            measured in; ONNX Runtime if not given.
        reduce_range: Whether weights take seven bits, where the runtime's sums of two products could overflow.

    Returns:
        ``quantized_parts`` and ``float_parts`` (numbers of layers), ``float_names``, ``signal_to_noise_db``,
        ``calibrated_on`` (images), ``slow_because`` where int8 is not faster, and of both files
        ``bytes_before_after`` and ``latency_ms`` (one sample, one thread, medians of interleaved rounds), each as
        [before, after].

    Raises:
        ImportError: onnx or onnxruntime are not installed.
        ExportError: There are no calibration images, or nothing that can be quantised.
    """
    onnx, quantization = require("onnx"), require("onnxruntime.quantization")
    preprocess = require("onnxruntime.quantization.shape_inference").quant_pre_process
    arrays = [image[None].numpy() for batch in calibration for image in batch]
    if not arrays:
        raise ExportError("int8 needs calibration images: some dozens of pictures like those that it will see")
    with tempfile.TemporaryDirectory(prefix="tokenmix-") as folder:
        clean, augmented = Path(folder) / "clean.onnx", Path(folder) / "augmented.onnx"
        with quiet():
            preprocess(source, clean, skip_symbolic_shape=True)  # the exporter has inferred the shapes already
        model = onnx.load(clean)
        name = model.graph.input[0].name
        with quiet():
            calibrator = quantization.create_calibrator(clean, OPERATORS, augmented_model_path=str(augmented))
            calibrator.collect_data(_Reader(name, arrays))
            ranges = calibrator.compute_data()
            del calibrator
    layers = [node.name for node in model.graph.node if node.op_type in OPERATORS]
    size = max(1, math.ceil(len(layers) / PARTS))
    parts = [layers[i : i + size] for i in range(0, len(layers), size)]
    images = arrays[:MEASURED_IMAGES]
    start = _onnx_runtime if start is None else start
    wanted = _outputs(start(model.SerializeToString()), images)

    def quantized(chosen: Sequence[Sequence[str]]) -> bytes:
        return _quantized(model, ranges, [layer for part in chosen for layer in part], reduce_range)

    def noise_of(some: Sequence[Sequence[str]]) -> float:
        return relative_noise(_outputs(start(quantized(some)), images), wanted)

    chosen, noise = choose(parts, noise_of, target_db=target_db)
    every = _outputs(start(model.SerializeToString()), arrays) if len(arrays) > len(images) else wanted

    def whole_noise_of(some: Sequence[Sequence[str]]) -> float:
        return relative_noise(_outputs(start(quantized(some)), arrays), every)

    if len(arrays) > len(images):
        chosen, noise = enforce(chosen, noise_of, whole_noise_of, target_db=target_db)
    before, files = Path(source).read_bytes(), [quantized(chosen)]
    names = [[layer for part in chosen for layer in part]]
    large = _large(model, names[0])
    if large and len(large) < len(names[0]):
        names.append(large)
        files.append(quantized([large]))
    float_ms, *int8_ms = _latencies([start(content) for content in (before, *files)], images[0])
    best = int8_ms.index(min(int8_ms))
    content = files[best]
    if best:
        noise = whole_noise_of([large])
    Path(target).write_bytes(content)
    kept = [layer for layer in layers if layer not in names[best]]
    facts: dict[str, Any] = {
        "quantized_parts": len(layers) - len(kept),
        "float_parts": len(kept),
        "float_names": kept,
        "signal_to_noise_db": decibels(noise),
        "calibrated_on": len(arrays),
        "bytes_before_after": [len(before), len(content)],
        "latency_ms": [float_ms, int8_ms[best]],
    }
    if int8_ms[best] > FASTER * float_ms:
        facts["slow_because"] = _slow_because(content, len(names[best]))
    return facts


def enforce(
    chosen: list[Any],
    noise: Callable[[Sequence[Any]], float],
    whole_noise: Callable[[Sequence[Any]], float],
    *,
    target_db: float = TARGET_DB,
) -> tuple[list[Any], float]:
    """Fewer parts, until the target holds on all images; and the noise on these.

    Args:
        chosen: What `choose` returned.
        noise: See `choose`, on the images that it was asked with.
        whole_noise: The same on all images.
        target_db: See `TARGET_DB`.

    Raises:
        ExportError: No part is left.
    """
    limit = 10.0 ** (-target_db / 10.0)
    loudest = sorted(chosen, key=lambda part: -noise([part]))
    while (found := whole_noise(chosen)) > limit:
        gone = loudest[: max(1, len(loudest) // 8)]
        loudest = loudest[len(gone) :]
        chosen = [part for part in chosen if part not in gone]
        if not chosen:
            raise ExportError(
                f"no part can be int8 with {target_db:g} dB left at the outputs for all calibration images: choose "
                "fp16 or fp32"
            )
    return chosen, found


def _large(model: Any, names: Sequence[str]) -> list[str]:
    """Those of the layers that have at least `LARGE` weights."""
    sizes = {tensor.name: math.prod(tensor.dims) for tensor in model.graph.initializer}
    wanted = set(names)
    return [
        node.name
        for node in model.graph.node
        if node.name in wanted and max((sizes.get(name, 0) for name in node.input[1:2]), default=0) >= LARGE
    ]


def _slow_because(content: bytes, layers: int) -> str:
    """Why a file is not faster than the float one, as far as it can be told from it and from the processor."""
    onnx = require("onnx")
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        flags = "vnni"
    if "vnni" not in flags and "asimddp" not in flags:
        return "this processor has no instructions that multiply int8"
    nodes = [node.op_type for node in onnx.load_from_string(content).graph.node]
    conversions = sum(kind in ("QuantizeLinear", "DequantizeLinear") for kind in nodes)
    rest = len(nodes) - conversions - layers
    return (
        f"its {layers} int8 layers are small, and {rest} other operators between them compute in float, so that values "
        "are converted again and again"
    )


class _Reader:
    """Calibration data as onnxruntime takes it."""

    def __init__(self, name: str, arrays: Sequence[np.ndarray]) -> None:
        self.feeds = iter([{name: array} for array in arrays])

    def get_next(self) -> Mapping[str, np.ndarray] | None:
        return next(self.feeds, None)


def _quantized(model: Any, ranges: Any, layers: Sequence[str], reduce_range: bool) -> bytes:
    """The model with these layers between int8 values."""
    types = require("onnxruntime.quantization").QuantType
    quantizer = require("onnxruntime.quantization.qdq_quantizer").QDQQuantizer
    copy = type(model)()
    copy.CopyFrom(model)
    if layers:  # none would mean all to it
        with quiet():
            worker = quantizer(
                copy, True, reduce_range, types.QInt8, types.QInt8, ranges, list(layers), [], list(OPERATORS), {}
            )
            worker.quantize_model()
            worker.model.topological_sort()  # as ONNX's checker wants it
            copy = worker.model.model
    return copy.SerializeToString()


def _onnx_runtime(content: bytes) -> Run:
    """A file's content as a function, in ONNX Runtime."""
    session = onnx_session(content, threads=1)
    name = session.get_inputs()[0].name
    return lambda image: session.run(None, {name: image})


def _outputs(run: Run, images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Each output for all images."""
    return [np.stack(output) for output in zip(*map(run, images), strict=True)]


def _latencies(runs: Sequence[Run], image: np.ndarray, rounds: int = 15) -> list[float]:
    """Milliseconds per image of each file, medians of interleaved rounds."""
    seconds: list[list[float]] = [[] for _ in runs]
    for round_ in range(rounds + 3):
        for run, taken in zip(runs, seconds, strict=True):
            start = time.perf_counter()
            run(image)
            if round_ >= 3:  # the first ones warm up
                taken.append(time.perf_counter() - start)
    return [round(1000.0 * statistics.median(taken), 3) for taken in seconds]
