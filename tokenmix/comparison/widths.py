"""How wide the skeleton is with each mixer, so that all have the same budget: of parameters, arithmetic or time."""

from __future__ import annotations

import dataclasses
import functools
import math
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tokenmix.bench.cost import cost
from tokenmix.bench.match import TIME_TOLERANCE, Match, nearest_widths, timed_widths
from tokenmix.comparison.request import Request, Spec, identity
from tokenmix.data.dataset import DataSet
from tokenmix.files import write_json
from tokenmix.planning.latency import Stopwatch
from tokenmix.recipes import Recipe, with_values
from tokenmix.runtime_names import runtime_name
from tokenmix.tasks import find_task
from tokenmix_runtime.limits import check_number
from tokenmix_runtime.untrusted import read_json

BUSY = 1.25  # times as long as before: a machine that others use meanwhile
TRIES = 5  # of timing the reference before anything is held to a limit: by its fastest
FILE = "widths.json"  # times differ each time: a comparison that continues keeps the widths that it had


@dataclasses.dataclass
class Widths:
    """What was chosen.

    Attributes:
        dims: Channels per stage, of each mixer that takes part.
        milliseconds: With them, where that was measured.
        left_out: Mixers that no widths make fast enough, and the milliseconds of the fastest that was tried.
        target_ms: What was to be reached, if it was a time.
    """

    dims: dict[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    milliseconds: dict[str, float] = dataclasses.field(default_factory=dict)
    left_out: dict[str, float] = dataclasses.field(default_factory=dict)
    target_ms: float | None = None


def choose_widths(
    folder: Path,
    request: Request,
    own: tuple[int, ...],
    specs: Mapping[str, Spec],
    size: tuple[int, int] | None,
    data: DataSet,
    fresh: bool,
    log: Callable[[str], None],
    *,
    device: str = "cpu",
) -> Widths:
    """Widths per mixer: the skeleton's own, or those that match the first mixer's budget, or make a limit of time.

    Raises:
        ValueError: MACs are wanted of models that see no pictures of one size, a time in a runtime where the models do
            not run, or no mixer is fast enough.
    """
    if request.timed_in is not None:
        return _timed(folder, request, own, specs, data, fresh, log, device)
    task = find_task(request.recipe.task.name)
    result = dict.fromkeys(specs, own)
    if request.match is None:
        return Widths(result)
    if request.match == "macs" and size is None:
        raise ValueError(f"--match macs is for pictures of one size; {task.noun} have none: match params")

    def counted(name: str, widths: tuple[int, ...]) -> int:
        with torch.device("meta" if request.match == "params" else "cpu"):
            model = build(widened(request.recipe, widths), data.facts, specs[name])
        if request.match == "macs":
            assert size is not None
            return cost(task.raw_form(model), size).macs
        return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)

    first = next(iter(specs))
    target = counted(first, own)
    log(f"budget: {target:,} {request.match} of {first} with widths {own}")
    for name in list(specs)[1:]:
        found: Match = nearest_widths(functools.cache(functools.partial(counted, name)), own, target)
        log(f"  {name}: widths {found.dims}, {found.value:,} {request.match} ({found.deviation:+.1%})")
        result[name] = found.dims
    return Widths(result)


def _timed(
    folder: Path,
    request: Request,
    own: tuple[int, ...],
    specs: Mapping[str, Spec],
    data: DataSet,
    fresh: bool,
    log: Callable[[str], None],
    device: str,
) -> Widths:
    """Widths by what the networks take here, in the request's runtime.

    The limit of time is what all shall take where they are matched, and else the most that one may take. Without one,
    they shall take what the first mixer takes. Either way the first mixer's network is timed beside each of them: a
    machine that slows down slows both.
    """
    assert request.timed_in is not None
    widths = Widths() if fresh else _kept(folder, request)
    missing = [name for name in specs if name not in widths.dims and name not in widths.left_out]
    if not missing:
        return _of(widths, specs)
    where = runtime_name(request.timed_in)
    with tempfile.TemporaryDirectory(prefix="tokenmix-") as place:
        watch = Stopwatch(data, Path(place), request.timed_in, device)
        networks = _Networks(watch, request.recipe)
        if request.limit_ms is None:
            first = next(iter(widths.dims), missing[0])
            dims = widths.dims.setdefault(first, own)
            beside = networks.reference(dims, specs.get(first, first), widths.target_ms)
            target = widths.target_ms = widths.milliseconds[first] = beside
            log(f"budget: {target:.3g} ms, those of {first} with widths {dims} in {where} here")
        else:
            target = widths.target_ms = request.limit_ms
            log(f"budget: {target:g} ms in {where} here")
            networks.reference(own, specs[missing[0]], None, drifts=True)
        for name in (name for name in missing if name not in widths.dims):
            exact = request.match == "latency"
            limit = (request.limit_ms or math.inf) * (1 + TIME_TOLERANCE if exact else 1)
            time_of = functools.partial(networks.time, specs[name], networks.fastest)
            match = timed_widths(time_of, own, target, at_most=not exact, limit=limit)
            told = f"widths {match.dims}, {match.value:.3g} ms ({match.deviation:+.1%})"
            if match.value > limit:
                widths.left_out[name] = match.value
                log(f"  {name} is left out: no widths make it, {told}")
            else:
                widths.dims[name], widths.milliseconds[name] = match.dims, match.value
                log(f"  {name}: {told}")
        if request.limit_ms is not None and networks.slowest > BUSY * networks.fastest:
            log(
                f"{missing[0]} with widths {own} took {networks.fastest:.3g} to {networks.slowest:.3g} ms meanwhile: "
                "this machine is busy; all times are scaled to the fastest of these"
            )
    write_json(folder / FILE, {"request": identity(request), **dataclasses.asdict(widths)})
    return _of(widths, specs)


class _Networks:
    """Times networks with one mixer or another, beside one that tells how fast the machine is at the moment.

    Args:
        watch: What times them.
        recipe: What they are built by.
    """

    def __init__(self, watch: Stopwatch, recipe: Recipe) -> None:
        self.watch, self.recipe = watch, recipe
        self.fastest = self.slowest = 0.0  # milliseconds of the reference
        self.drifts = False
        self.count = 0

    def reference(self, dims: tuple[int, ...], spec: Spec, before: float | None, *, drifts: bool = False) -> float:
        """Take a network to time others beside, and say what it takes, or took ``before``.

        Args:
            dims: Its widths.
            spec: Its mixer.
            before: Milliseconds that it took then.
            drifts: Its fastest time counts instead of its first one, where times are compared with a limit: others on
                the machine make it slower, and nothing makes it faster than it is.
        """
        self.watch.add("reference", widened(self.recipe, dims), mixers=spec)
        times = 0 if before else TRIES if drifts else 1
        tries = [self.watch.times(["reference"])["reference"] for _ in range(times)] or [before or 0.0]
        self.fastest, self.slowest = min(tries), max(tries)
        self.drifts = drifts
        return self.fastest

    def time(self, spec: Spec, pace: float, dims: tuple[int, ...]) -> float:
        """Milliseconds with a mixer: a multiple of the reference's at the moment, times ``pace``, what that one takes.

        The pace stays while one mixer's widths are looked for, whose times are compared with each other.
        """
        self.count += 1
        name = str(self.count)
        self.watch.add(name, widened(self.recipe, dims), mixers=spec)
        found = self.watch.times(["reference", name])
        if self.drifts:
            self.fastest = min(self.fastest, found["reference"])
            self.slowest = max(self.slowest, found["reference"])
        return pace * found[name] / found["reference"]


def _kept(folder: Path, request: Request) -> Widths:
    """What was chosen for this comparison when it began; nothing if it has not.

    Raises:
        ValueError: The file was damaged, or has widths of no network.
    """
    path = folder / FILE
    if not path.is_file():
        return Widths()
    found = read_json(path)
    before = found.pop("request", None) if isinstance(found, dict) else None
    if not isinstance(before, dict) or any(before.get(key) != value for key, value in identity(request).items()):
        return Widths()
    try:
        widths = Widths(**found)
        widths.dims = {str(name): tuple(int(width) for width in dims) for name, dims in widths.dims.items()}
        for width in (width for dims in widths.dims.values() for width in dims):
            check_number("channels", width, "a width")
        times = [*widths.milliseconds.values(), *widths.left_out.values()]
        if not all(math.isfinite(value) and value > 0 for value in times):
            raise ValueError("a time is no positive number")
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}): --fresh chooses the widths anew") from None
    return widths


def _of(widths: Widths, specs: Mapping[str, Spec]) -> Widths:
    """Those of these mixers alone, in their order.

    Raises:
        ValueError: None of them is fast enough.
    """
    left_out = {name: widths.left_out[name] for name in specs if name in widths.left_out}
    dims = {name: widths.dims[name] for name in specs if name in widths.dims}
    if not dims:
        fastest = ", ".join(f"{name} {value:.3g} ms" for name, value in left_out.items())
        raise ValueError(f"--budget {widths.target_ms:g}ms: no mixer makes it at any width ({fastest}); give more")
    milliseconds = {name: value for name, value in widths.milliseconds.items() if name in dims}
    return Widths(dims, milliseconds, left_out, widths.target_ms)


def widened(recipe: Recipe, dims: tuple[int, ...], **model_args: Any) -> Recipe:
    """The recipe of a skeleton with other widths."""
    widths = find_task(recipe.task.name).width_arguments(dims)
    return with_values(recipe, model_args={**recipe.model.args, **widths, **model_args})


def build(recipe: Recipe, facts: Mapping[str, Any], spec: Spec) -> nn.Module:
    """A recipe is text; a mixer that is an object goes beside it."""
    return find_task(recipe.task.name).build(recipe, facts, mixers=spec)
