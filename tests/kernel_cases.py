"""What the kernels' tests share: inputs of the chains, and comparisons that also run in another process.

The kernels are compared where they are used: through the public functions and the mixers, which choose them themselves.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from unittest import mock

import torch
from torch import Tensor

from tests.mixer_cases import build, closeness, image
from tests.scramble import scramble
from tokenmix.layers import fused
from tokenmix.ops.dispatch import definition, definitions, situation
from tokenmix.ops.kernels import additive, ffnified, frequency, rule

THRESHOLD = 0.1


def _filter(chain: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The chain on spectra as a function of real tensors."""
    return lambda planes, *weights: torch.view_as_real(chain(torch.view_as_complex(planes), *weights, THRESHOLD))


CHAINS: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "frequency": (_filter(frequency.filter_spectrum), _filter(definition(frequency.filter_spectrum))),
    "ffnified": (ffnified.depthwise_gelu_depthwise, definition(ffnified.depthwise_gelu_depthwise)),
    "additive": (additive.gate_convolve, definition(additive.gate_convolve)),
}
"""By name: the operator and its definition."""


def inputs(name: str, batch: int, channels: int, height: int, width: int, option: int = 3) -> list[Tensor]:
    """Normal float64 numbers; ``option`` is the size of the kernels, for ``"frequency"`` the number of groups."""
    c, k = channels, option
    shapes = {
        "frequency": [(batch, k * c, height, width, 2), (2, k, c, c), (2, k, c), (2, k, c, c), (2, k, c)],
        "ffnified": [(batch, c, height, width), (c, 1, k, k), (c,), (c, 1, k, k), (c,)],
        "additive": [(batch, 3 * c, height, width), (batch, 2, height, width), (2 * c, c, 1, 1), (c, 1, k, k), (c,)],
    }[name]
    generator = torch.Generator().manual_seed(0)
    fan_in = [1.0, *(max(1.0, float(shape[-1] * shape[-2])) if len(shape) == 4 else 1.0 for shape in shapes[1:])]
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64) * fan**-0.5
        for shape, fan in zip(shapes, fan_in, strict=True)
    ]


def ran(output: Tensor) -> bool:
    """Whether a kernel took part in making this tensor."""
    seen, waiting = set(), [output.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [following for following, _ in node.next_functions]
    return any(type(node).__name__ == "_ChainBackward" for node in seen)


def differentiate(function: Callable[..., Tensor], leaves: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Output and gradients of everything that the output is made of."""
    output = function(*leaves)
    wave = torch.arange(output.numel(), device=output.device).sin().view(output.shape)
    return output, *torch.autograd.grad(output, leaves, wave.to(output.dtype))


def worst(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest error of an output or gradient, over its largest value; some gradients are zero but for rounding."""
    longest = max(float(tensor.detach().abs().max()) for tensor in expected)
    scales = [max(float(tensor.detach().abs().max()), 0.01 * longest) for tensor in expected]
    assert [tensor.shape for tensor in found] == [tensor.shape for tensor in expected]
    errors = [float((a.double().cpu() - b).detach().abs().max()) for a, b in zip(found, expected, strict=True)]
    return max(error / scale for error, scale in zip(errors, scales, strict=True))


def chain_error(
    name: str, sizes: Sequence[int], dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> tuple[bool, float]:
    """Whether the kernels ran, and how far output and gradients are from the PyTorch form's in float64."""
    warnings.simplefilter("error")
    function, reference = CHAINS[name]
    given = [tensor.to(dtype) for tensor in inputs(name, *sizes)]
    if name == "frequency":  # a spectrum is never half
        given[0] = given[0].float()
    found = differentiate(function, [tensor.to(device).requires_grad_() for tensor in given])
    expected = differentiate(reference, [tensor.double().requires_grad_() for tensor in given])
    return ran(found[0]), worst(found, expected)


def mixer_error(
    spec: str, size: tuple[int, int], *, training: bool = False, fuse: bool = False, dim: int = 12
) -> tuple[bool, float]:
    """The same for a mixer and its parameters, in the interpreter, against the mixer in float64."""
    warnings.simplefilter("error")
    mixer = build(spec, dim, dtype=torch.float32, training=training)
    mixer = fused(mixer) if fuse else mixer
    truth = copy.deepcopy(mixer).double()
    results = []
    for model, dtype in ((mixer, torch.float32), (truth, torch.float64)):
        x = image(*size, dim=dim, dtype=dtype).requires_grad_()
        output = model(x)
        upstream = image(*size, dim=dim, seed=1, dtype=dtype)
        results.append((output, *torch.autograd.grad(output, [x, *model.parameters()], upstream)))
    return ran(results[0][0]), worst(*results)


def inference_error(size: tuple[int, int], dim: int = 12) -> tuple[int, float]:
    """How often the kernel of a fused filter ran without gradients, and its error; its maps are no complex ones."""
    from tokenmix.ops.kernels import frequency_triton

    mixer = scramble(fused(build("aff", dim, dtype=torch.float32)), 1)
    x = image(*size, dim=dim, dtype=torch.float32)
    with torch.no_grad():
        mixer(x)  # the kernel proves itself
        with mock.patch.object(frequency_triton, "forward", wraps=frequency_triton.forward) as kernel:
            output = mixer(x)
        return kernel.call_count, closeness(output.double(), copy.deepcopy(mixer).double()(x.double()))


def choices() -> dict[str, bool]:
    """What `rule.can_run` says of tensors that it should and should not take, in the interpreter."""
    from torch.utils.flop_counter import FlopCounterMode

    def takes(x: Tensor, *weights: Tensor) -> bool:
        return rule.can_run(situation(x), x, *weights)

    x, w = torch.ones(2, 3, 4, 5), torch.ones(3)
    found = {"plain": takes(x, w)}
    for dtype in (torch.float16, torch.bfloat16, torch.float64, torch.complex64, torch.int32):
        found[str(dtype)] = takes(x.to(dtype), w)
    found["empty"] = takes(x[:0], w)
    found["meta"] = takes(x.to("meta"), w.to("meta"))
    found["two devices"] = takes(x, w.to("meta"))
    with rule.kernels(False):
        found["switched off"] = takes(x, w)
    with definitions():
        found["definitions"] = takes(x, w)
    found["switched on again"] = takes(x, w)
    with FlopCounterMode(display=False):
        found["counted"] = takes(x, w)
    return found
