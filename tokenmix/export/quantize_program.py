"""Eight bits for ExecuTorch: PT2E static quantisation of an exported program, its parts chosen by measurement."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

from tokenmix.export.errors import ExportError
from tokenmix.export.extras import matching, quiet
from tokenmix.export.prepare import Prepared
from tokenmix.export.program import LARGEST_BATCH, export_program
from tokenmix.export.quantize import MEASURED_IMAGES, PARTS, TARGET_DB, choose, decibels, relative_noise

LAYERS = (torch.ops.aten.conv2d.default, torch.ops.aten.linear.default)
_RELUS = (torch.ops.aten.relu.default, torch.ops.aten.relu_.default)


@torch.no_grad()
def quantize_program(
    program: ExportedProgram, prepared: Prepared, calibration: Sequence[Tensor], *, target_db: float = TARGET_DB
) -> tuple[ExportedProgram, dict[str, Any]]:
    """The program with int8 convolutions and linear layers (weights per channel, activations per tensor), static.

    Args:
        program: What `tokenmix.export.program.trace` gives.
        prepared: What it was made of.
        calibration: Batches as the model takes them.
        target_db: See `tokenmix.export.quantize.TARGET_DB`.

    Returns:
        The quantised program, and ``quantized_parts`` and ``float_parts`` (numbers of layers), ``float_names``,
        ``signal_to_noise_db`` on the measured images.

    Raises:
        ImportError: ExecuTorch or torchao are missing or do not fit the installed torch.
        ExportError: There are no calibration images, or nothing that can be quantised.
    """
    quantizers = matching("executorch.backends.xnnpack.quantizer.xnnpack_quantizer", "executorch")
    pt2e = matching("torchao.quantization.pt2e.quantize_pt2e", "executorch")
    batches = [image[None] for batch in calibration for image in batch]
    if not batches:
        raise ExportError("int8 needs calibration images: some dozens of pictures like those that it will see")
    batches = [batch.expand(len(prepared.sample), *batch.shape[1:]) for batch in batches]
    names = [node.name for node in program.graph.nodes if node.target in LAYERS]
    size = max(1, math.ceil(len(names) / PARTS))
    parts = [names[i : i + size] for i in range(0, len(names), size)]
    simulated = _Simulated(program.module(check_guards=False))
    for batch in batches:
        simulated.observe(batch)
    images = batches[:MEASURED_IMAGES]
    wanted = simulated.outputs(images, ())

    def noise(some: Sequence[Sequence[str]]) -> float:
        return relative_noise(simulated.outputs(images, [name for part in some for name in part]), wanted)

    chosen = {name for part in choose(parts, noise, target_db=target_db)[0] for name in part}
    quantizer = quantizers.XNNPACKQuantizer()
    quantizer.set_global(quantizers.get_symmetric_quantization_config(is_per_channel=True))
    module = program.module(check_guards=False)
    # A layer is taken if its weight, its bias and the ReLU behind it are allowed too.
    taken = [node for node in module.graph.nodes if node.name in chosen]
    allowed = {other.name for node in taken for other in (node, *node.all_input_nodes[1:], *_relu_behind(node))}
    quantizer.set_filter_function(lambda node: node.name in allowed)
    with quiet():
        observed = pt2e.prepare_pt2e(module, quantizer)
        for batch in batches:
            observed(batch)
        quantized = export_program(pt2e.convert_pt2e(observed), prepared, largest_batch=LARGEST_BATCH)
    module = quantized.module(check_guards=False)
    found = [np.stack(output) for output in zip(*(_arrays(module(image)) for image in images), strict=True)]
    return quantized, {
        "quantized_parts": len(chosen),
        "float_parts": len(names) - len(chosen),
        "float_names": [name for name in names if name not in chosen],
        "signal_to_noise_db": decibels(relative_noise(found, wanted)),
    }


def _relu_behind(layer: fx.Node) -> list[fx.Node]:
    """The ReLU that XNNPACK computes with a layer, if its result goes there alone."""
    users = list(layer.users)
    return users if len(users) == 1 and users[0].target in _RELUS else []


class _Simulated(fx.Interpreter):
    """Runs a program with the inputs, weights and outputs of some layers rounded to int8."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.ranges: dict[tuple[str, str], tuple[float, float]] = {}
        self.chosen: set[str] = set()
        self.observing = False

    def observe(self, image: Tensor) -> None:
        """Widen every layer's ranges to what this image makes it see."""
        self.chosen, self.observing = set(), True
        self.run(image)
        self.observing = False

    def outputs(self, images: Sequence[Tensor], chosen: Sequence[str]) -> list[np.ndarray]:
        """Each output for all images, with these layers rounded."""
        self.chosen = set(chosen)
        return [np.stack(output) for output in zip(*(_arrays(self.run(image)) for image in images), strict=True)]

    def run_node(self, n: fx.Node) -> Any:
        if n.target not in LAYERS or not (self.observing or n.name in self.chosen):
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        x, weight, *rest = args
        if self.observing:
            y = n.target(*args, **kwargs)
            self._widen((n.name, "in"), x)
            self._widen((n.name, "out"), y.relu() if _relu_behind(n) else y)
            return y
        steps = weight.flatten(1).abs().amax(1).clamp(min=1e-12) / 127.0
        zeros = torch.zeros_like(steps, dtype=torch.int32)
        weight = torch.fake_quantize_per_channel_affine(weight, steps, zeros, 0, -127, 127)
        return self._rounded((n.name, "out"), n.target(self._rounded((n.name, "in"), x), weight, *rest, **kwargs))

    def _widen(self, key: tuple[str, str], x: Tensor) -> None:
        low, high = self.ranges.get(key, (0.0, 0.0))  # zero stays exact
        self.ranges[key] = min(low, x.min().item()), max(high, x.max().item())

    def _rounded(self, key: tuple[str, str], x: Tensor) -> Tensor:
        low, high = self.ranges[key]
        step = max((high - low) / 255.0, 1e-12)
        return torch.fake_quantize_per_tensor_affine(x, step, round(-128 - low / step), -128, 127)


def _arrays(outputs: Tensor | Sequence[Tensor]) -> list[np.ndarray]:
    return [output.numpy() for output in ([outputs] if isinstance(outputs, Tensor) else outputs)]
