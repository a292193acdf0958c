"""Where the Triton kernels run: on an NVIDIA GPU on which they have proved themselves, if they are switched on.

No GPU has timed them, so that they are off unless the environment variable ``TOKENMIX_KERNELS=1`` or `kernels` asks for
them. With ``TRITON_INTERPRET=1``, set before triton is imported, they run in Triton's interpreter on the CPU; that is
for tests.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar

import torch
from torch import Tensor

from tokenmix.ops.dispatch import PLAIN, Situation

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
# Of the largest value: far above TensorFloat-32's rounding, which convolutions may have, far below a wrong result.
TOLERANCE = 0.02

_on: ContextVar[bool] = ContextVar("kernels_on", default=os.environ.get("TOKENMIX_KERNELS") == "1")
_verdicts: dict[tuple[str, torch.device], bool] = {}


@contextlib.contextmanager
def kernels(on: bool = True) -> Iterator[None]:
    """Within it forward passes take the kernels where they can, or never; a backward pass follows its forward pass."""
    token = _on.set(on)
    try:
        yield
    finally:
        _on.reset(token)


def can_run(now: Situation, x: Tensor, *weights: Tensor, dtypes: Sequence[torch.dtype] = DTYPES) -> bool:
    """Whether kernels can take a map (or spectrum) ``x`` with these weights.

    All must be plain tensors on one device, ``x`` of a type among ``dtypes`` and not empty.
    """
    if not (now.eager and _on.get() and x.dtype in dtypes and x.numel() > 0):
        return False
    if not (now.device == "cuda" or (now.device == "cpu" and os.environ.get("TRITON_INTERPRET") == "1")):
        return False
    return all(type(weight) in PLAIN and weight.device == x.device for weight in weights) and _supported(x.device)


def same_precision(now: Situation, x: Tensor, *weights: Tensor) -> bool:
    """Whether PyTorch would compute ``x`` with these weights in the type of ``x``."""
    if now.autocast:
        return x.dtype == torch.get_autocast_dtype(now.device)
    return all(weight.dtype == x.dtype for weight in weights)


def proved(
    name: str,
    kernel: Callable[..., Tensor],
    reference: Callable[..., Tensor],
    inputs: Callable[[], Sequence[Tensor]],
    device: torch.device,
) -> bool:
    """Whether the kernel gives on this device what its PyTorch form gives, outputs and gradients.

    Found out once in a process; a kernel that fails or differs is not used, with a warning.

    Args:
        name: For the warning.
        kernel: To be judged.
        reference: Its PyTorch form.
        inputs: Makes small float32 inputs of both, on the CPU.
        device: Where they run.
    """
    if (name, device) not in _verdicts:
        if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            return False  # a first run compiles and waits, which a CUDA graph cannot record
        try:
            error = difference(kernel, reference, [tensor.to(device) for tensor in inputs()])
            reason = "" if error <= TOLERANCE else f"it differs from PyTorch by {error:.2g} of the largest value"
        except Exception as problem:  # compilers and drivers fail in many ways
            reason = f"{type(problem).__name__}: {problem}"
        if reason:
            warnings.warn(f"the Triton kernel {name!r} is left out, PyTorch computes it: {reason}", stacklevel=3)
        _verdicts[name, device] = not reason
    return _verdicts[name, device]


def difference(kernel: Callable[..., Tensor], reference: Callable[..., Tensor], inputs: Sequence[Tensor]) -> float:
    """The largest difference of output or any gradient, as a share of the largest value of that tensor."""
    worst = 0.0
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(inputs[0].device.type, enabled=False):
        found, expected = (_outputs(function, inputs) for function in (kernel, reference))
        for ours, theirs in zip(found, expected, strict=True):
            error = (ours - theirs).abs().max() / theirs.abs().max()
            worst = max(worst, float(error.nan_to_num(torch.inf)))
    return worst


def _outputs(function: Callable[..., Tensor], inputs: Sequence[Tensor]) -> list[Tensor]:
    leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    output = function(*leaves)
    wave = torch.arange(output.numel(), device=output.device).sin().view(output.shape)
    return [output.detach(), *torch.autograd.grad(output, leaves, wave.to(output.dtype))]


@functools.cache
def _supported(device: torch.device) -> bool:
    """Whether triton is installed and this is a device that it and the kernels know."""
    if importlib.util.find_spec("triton") is None:
        return False
    if device.type == "cpu":
        return True
    return torch.version.hip is None and torch.cuda.get_device_capability(device) >= (8, 0)
