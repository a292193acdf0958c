"""Growth: times at several image sizes, batches and map sizes, and the power laws fitted to them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from tokenmix.bench.growth import Growth, fit_growth
from tokenmix.bench.interleaved import interleave
from tokenmix.bench.models import MeasuredModel
from tokenmix.bench.runtimes import Call, waiting
from tokenmix.layers import fused
from tokenmix.mixers import make_mixer


def sweep_models(
    models: Sequence[MeasuredModel],
    sizes: Sequence[int],
    batches: Sequence[int],
    *,
    device: torch.device,
    log: Callable[[str], None],
    **options: Any,
) -> list[dict[str, Any]]:
    """How a model's time in plain PyTorch grows with the image (at batch 1) and with the batch (at its own size).

    Args:
        models: The models; ONNX files, which have one size, are left out.
        sizes: Sides of square images in pixels.
        batches: Images per call.
        device: Where they run.
        log: Told what is done.
        **options: Of `tokenmix.bench.interleaved.interleave`; ``seconds`` is the time for each call.

    Returns:
        A dict for each model and variable, see `_row`. A size that a model does not take is left out, with the reason.
    """
    rows = []
    for one in (one for one in models if one.loaded is not None):
        model = one.inference_form().to(device)
        pixels = math.prod(one.image_size)
        points = {}
        if pixels:
            points = {
                ("image", size * size): dataclasses.replace(one, image_size=(size, size)).images(1) for size in sizes
            }
        else:
            pixels = one.images(1).numel()
            log(f"{one.name}: it sees no pictures of one size, so that only the batch grows")
        points |= {("batch", batch * pixels): one.images(batch) for batch in batches}
        calls: dict[tuple[str, int], Call] = {}
        left_out: dict[str, dict[int, str]] = {"image": {}, "batch": {}}
        with torch.inference_mode():
            for (variable, tokens), images in points.items():
                call = waiting(partial(model, images.to(device)), device)
                try:
                    call()
                except (RuntimeError, AssertionError) as error:  # positions or windows of one size
                    left_out[variable][tokens] = str(error).splitlines()[0] if str(error) else type(error).__name__
                    continue
                calls[variable, tokens] = call
            log(f"{one.name}: {len(calls)} sizes interleaved")
            times = _times(calls, **options)
        for variable in dict.fromkeys(name for name, _ in points):
            found = {tokens: times[variable, tokens] for name, tokens in calls if name == variable}
            rows.append(_row(one.name, variable, found, left_out[variable]))
    return rows


def sweep_mixers(
    specs: Sequence[str],
    sides: Sequence[int],
    chans: int,
    *,
    device: torch.device,
    log: Callable[[str], None],
    seed: int = 0,
    **options: Any,
) -> list[dict[str, Any]]:
    """How the time of single token mixers grows with the map, from ``(1, chans, side, side)``.

    Raises:
        ValueError: A mixer is unknown.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        mixers = {spec: fused(make_mixer(spec, chans).eval()).to(device) for spec in specs}
    with torch.inference_mode():
        generator = torch.Generator().manual_seed(seed)
        maps = {side: torch.randn(1, chans, side, side, generator=generator).to(device) for side in sides}
        calls = {
            (spec, side * side): waiting(partial(mixer, maps[side]), device)
            for spec, mixer in mixers.items()
            for side in sides
        }
        log(f"{len(mixers)} mixers at {len(maps)} map sizes interleaved")
        times = _times(calls, seed=seed, **options)
    return [_row(spec, "map", {side * side: times[spec, side * side] for side in sides}, {}) for spec in mixers]


def _times(calls: Mapping[tuple[str, int], Call], *, seconds: float, **options: Any) -> dict[tuple[str, int], Any]:
    labels = {f"{name} {tokens}": (name, tokens) for name, tokens in calls}
    timings = interleave(
        {label: calls[key] for label, key in labels.items()}, max_seconds=seconds * len(calls), **options
    )
    return {key: timings[label] for label, key in labels.items()}


def _row(name: str, variable: str, times: Mapping[int, Any], left_out: Mapping[int, str]) -> dict[str, Any]:
    """``name``, ``variable`` (image, batch or map), ``points`` and, with two of them or more, the fit.

    Tokens are pixels of all images of a call, or places of the map. ``exponent`` comes with ``low`` and ``high``, its
    95 % interval, None where two points leave none.
    """
    points = [{"tokens": tokens, **dataclasses.asdict(timing)} for tokens, timing in sorted(times.items())]
    row: dict[str, Any] = {"name": name, "variable": variable, "points": points, "left_out": dict(left_out)}
    if len(points) > 1:
        fit: Growth = fit_growth([point["tokens"] for point in points], [point["median_ms"] for point in points])
        known = math.isfinite(fit.low)
        row |= {"exponent": fit.exponent, "low": fit.low if known else None, "high": fit.high if known else None}
    return row
