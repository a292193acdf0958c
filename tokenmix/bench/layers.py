"""What each layer of a model computes and must move, and how long it takes: the rows of a roofline."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tokenmix.export.prepare import set_form

BYTES = 4  # of a float32


@dataclass(frozen=True)
class Layer:
    """A leaf module, a token mixer, or a module that multiplies by itself, such as an attention.

    Attributes:
        name: Its dotted name in the model.
        kind: Its class.
        flops: Of one image; a multiplication and an addition count as two, transforms by their usual counts.
        weight_bytes: Of its parameters, in float32.
        activation_bytes: Of its inputs and outputs for one image, in float32; 0 where the output is the input's memory.
    """

    name: str
    kind: str
    flops: float
    weight_bytes: float
    activation_bytes: float

    def bytes(self, batch: int) -> float:
        """What it must move at least."""
        return self.weight_bytes + batch * self.activation_bytes


@dataclass(frozen=True)
class Work:
    """What a whole model must do, from its layers."""

    layers: tuple[Layer, ...]

    @property
    def flops(self) -> float:
        """Of one image."""
        return sum(layer.flops for layer in self.layers)

    def bytes(self, batch: int) -> float:
        """The weights once, and the inputs and outputs of all layers that multiply.

        Norms, activations and sums can be computed while their neighbour's output is at hand, and good runtimes do.
        """
        return sum(layer.bytes(batch) for layer in self.layers if layer.flops)


def count_layers(model: nn.Module, image: Tensor) -> Work:
    """Count a model's layers for one image (1, C, H, W); the model is not changed.

    Their sum is that of `tokenmix.bench.cost.cost`, which counts in the same way.
    """
    counted = copy.deepcopy(model).eval()
    set_form(counted, "fft")  # no counter sees an FFT, so that transforms are counted once, below
    names = {module: name for name, module in counted.named_modules()}
    flops, moved = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    starts: list[float] = []
    counter = FlopCounterMode(display=False)
    inside = 0  # spectral modules around the one that is running: the outermost speaks for those within

    def before(module: nn.Module, args: Any, kwargs: Any) -> None:
        nonlocal inside
        starts.append(counter.get_total_flops())
        inside += _spectral(module)

    def after(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        nonlocal inside
        flops[module] += counter.get_total_flops() - starts.pop()
        inside -= _spectral(module)
        if _spectral(module) and not inside:
            extra = 2.0 * module.transform_macs(*args[0].shape[-2:])  # type: ignore[operator]
            for around in (module, *_parents(names[module], names)):
                flops[around] += extra
        given, made = list(_tensors((args, kwargs))), list(_tensors(output))
        if not {tensor.data_ptr() for tensor in given} & {tensor.data_ptr() for tensor in made}:
            moved[module] += BYTES * sum(tensor.numel() for tensor in (*given, *made))

    for module in names:
        module.register_forward_pre_hook(before, with_kwargs=True)
        module.register_forward_hook(after, with_kwargs=True)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        counted(image)
    layers = [
        Layer(
            names[module],
            type(module).__name__,
            flops[module],
            BYTES * sum(parameter.numel() for parameter in module.parameters()),
            moved[module],
        )
        for module in _units(counted, flops)
    ]
    return Work(tuple(layer for layer in layers if layer.flops or layer.activation_bytes))


def time_layers(
    model: nn.Module,
    image: Tensor,
    work: Work,
    *,
    rounds: int = 10,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[dict[str, float], float]:
    """Seconds of each layer, and of what is between them (sums, reshapes): medians over the rounds.

    A first round is not counted. The model runs with hooks, which cost about a microsecond a layer.

    Args:
        model: In eval mode; runs as it is given.
        image: (B, C, H, W), on the model's device.
        work: Its layers.
        rounds: Passes to time.
        clock: Seconds; only tests need another one.
    """
    samples: dict[str, list[float]] = {layer.name: [] for layer in work.layers}
    between: list[float] = []

    def now() -> float:
        if image.is_cuda:
            torch.cuda.synchronize(image.device)
        return clock()

    with _timed(model, samples, now) as spent, torch.inference_mode():
        for done in range(rounds + 1):
            spent.update(dict.fromkeys(spent, 0.0))
            start = now()
            model(image)
            whole = now() - start
            if done:
                between.append(whole - sum(spent.values()))
                for name, seconds in spent.items():
                    samples[name].append(seconds)
    return {name: statistics.median(values) for name, values in samples.items()}, statistics.median(between)


@contextmanager
def _timed(model: nn.Module, names: Any, now: Callable[[], float]) -> Iterator[dict[str, float]]:
    """Adds the seconds that the named submodules take to the yielded dict."""
    spent = dict.fromkeys(names, 0.0)
    starts: dict[str, float] = {}
    modules = dict(model.named_modules())
    handles = []
    for name in names:

        def before(module: nn.Module, args: Any, name: str = name) -> None:
            starts[name] = now()

        def after(module: nn.Module, args: Any, output: Any, name: str = name) -> None:
            spent[name] += now() - starts[name]

        handles += [modules[name].register_forward_pre_hook(before), modules[name].register_forward_hook(after)]
    try:
        yield spent
    finally:
        for handle in handles:
            handle.remove()


def _units(module: nn.Module, flops: dict[nn.Module, float]) -> Iterator[nn.Module]:
    """The layers: the outermost modules that compute by themselves."""
    children = list(module.children())
    own = flops[module] - sum(flops[child] for child in children)
    mixer = type(module).__module__.startswith("tokenmix.mixers")
    if not children or mixer or own > 0 or _spectral(module):
        yield module
        return
    for child in children:
        yield from _units(child, flops)


def _spectral(module: nn.Module) -> bool:
    return callable(getattr(module, "transform_macs", None))


def _parents(name: str, names: dict[nn.Module, str]) -> Iterator[nn.Module]:
    around = {other: module for module, other in names.items()}
    while name:
        name = name.rpartition(".")[0]
        yield around[name]


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
