"""`tokenmix bench` as functions: what is measured together, on which machine, and whether it kept its pace."""

from __future__ import annotations

import dataclasses
import datetime
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from tokenmix.bench.drift import LIMIT, Pacer, drift
from tokenmix.bench.inference import LARGEST, Bench
from tokenmix.bench.interleaved import interleave
from tokenmix.bench.machine import describe, load_average
from tokenmix.bench.memory import peak_memory_mb
from tokenmix.bench.models import MeasuredModel, noun_of, open_models
from tokenmix.bench.ranking import rank
from tokenmix.bench.runtimes import RUNTIMES, choose, missing, use_threads, waiting
from tokenmix.bench.serving import load_rows
from tokenmix.bench.sweep import sweep_mixers, sweep_models
from tokenmix.bench.training import training_step
from tokenmix.evaluate import find_device
from tokenmix.runtime_names import runtime_name
from tokenmix_runtime.cores import usable_cores
from tokenmix_runtime.limits import check_number

SCHEMA = "tokenmix.bench/1"
MIXERS = ("aff", "dsm", "attention")
SIDES = (8, 16, 32, 64, 128)
SIZES = (128, 192, 256, 320, 384)
BATCHES = (1, 2, 4, 8)
SERVED = ("pytorch", "onnxruntime", "openvino")


def silent(line: str) -> None:
    """Say nothing."""


def bench_inference(
    models: Sequence[str],
    *,
    runtimes: Sequence[str] | None = None,
    threads: Sequence[int] | None = None,
    batches: Sequence[int] = (1, 0),
    image_size: tuple[int, int] | None = None,
    device: str = "cpu",
    rounds: int = 30,
    seconds: float = 2.0,
    roofline_seconds: float = 0.5,
    largest_batch: int = LARGEST,
    layers: bool = True,
    memory: bool = True,
    seed: int = 0,
    log: Callable[[str], None] = silent,
) -> dict[str, Any]:
    """Time models side by side and hold them against the machine's limits; plain values for JSON.

    Args:
        models: See `tokenmix.bench.models.open_models`.
        runtimes: Of `tokenmix.bench.runtimes.RUNTIMES`, ``["all"]``, or None for those that start at once.
        threads: Numbers of threads; default: 1 and all cores.
        batches: Batch sizes; 0 is the one at which a model takes the most images per second.
        image_size: Height and width in pixels; default: each model's own.
        device: ``"cpu"`` or ``"cuda"``.
        rounds: Rounds per batch size.
        seconds: Per model, runtime and batch size, beyond which rounds are left out.
        roofline_seconds: For each size of the machine's matrix product, and for its triad.
        largest_batch: That is tried.
        layers: Time each layer too.
        memory: Measure each model's peak memory in processes of their own.
        seed: Of weights, images, order and bootstrap.
        log: Told what is done.

    Raises:
        ValueError: A model, runtime or number is wrong.
        ImportError: A runtime that was named is missing; the message says what to install.
    """
    place, counts, batches = _place(device), _counts(threads, device), tuple(dict.fromkeys(batches))
    if min(batches, default=-1) < 0 or min(rounds, largest_batch) < 1 or seconds <= 0:
        raise ValueError("batches, rounds and seconds must be positive")
    _check_numbers({"batch_size": [count for count in batches if count], "rounds": [rounds], "seconds": [seconds]})
    chosen, reasons = choose(runtimes, place)
    measured = open_models(models, image_size, seed=seed)
    load = load_average()
    bench = Bench(
        measured,
        chosen,
        counts,
        batches,
        place,
        rounds,
        seconds,
        roofline_seconds,
        largest_batch,
        layers,
        seed,
        log,
        skipped=[{"model": None, "runtime": name, "threads": None, "reason": why} for name, why in reasons.items()],
    )
    peaks: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="tokenmix-") as folder:
        bench.run(Path(folder))
        if not bench.rows:
            said = "; ".join(f"{row['model'] or row['runtime']}: {row['reason']}" for row in bench.skipped)
            raise ValueError(f"nothing could be measured: {said}")
        if memory:
            log("peak memory, each in a process of its own")
            peaks = {one.name: _peaks(one, bench, device) for one in measured}
    result = _header("inference", measured, place, load, bench.pace)
    result["settings"] = {"rounds": rounds, "seconds": seconds, "threads": counts, "batches": list(batches)}
    result["limits"] = {str(count): dataclasses.asdict(limit) for count, limit in bench.rooflines.items()}
    result["models"] = {one.name: _facts(one) for one in measured}
    for one in measured:
        entry = result["models"][one.name]
        if one.name in bench.work:
            work = bench.work[one.name]
            entry |= {"gflops": work.flops / 1e9, "least_mbytes": work.bytes(1) / 1e6}
        entry |= {"peak_memory_mb": peaks.get(one.name, {}), "layers": bench.layer_rows.get(one.name, [])}
    return result | {"timings": bench.rows, "skipped": bench.skipped}


def bench_training(
    models: Sequence[str],
    *,
    threads: Sequence[int] | None = None,
    batch: int = 8,
    image_size: tuple[int, int] | None = None,
    device: str = "cpu",
    rounds: int = 30,
    seconds: float = 4.0,
    memory: bool = True,
    seed: int = 0,
    log: Callable[[str], None] = silent,
) -> dict[str, Any]:
    """Time training steps of models side by side, and measure their peak memory; arguments as `bench_inference`.

    Raises:
        ValueError: A model or number is wrong, or its steps cannot be measured without data.
    """
    place, counts = _place(device), _counts(threads, device)
    if min(batch, rounds) < 1 or seconds <= 0:
        raise ValueError("batch, rounds and seconds must be positive")
    _check_numbers({"batch_size": [batch], "rounds": [rounds], "seconds": [seconds]})
    measured = open_models(models, image_size, seed=seed)
    for one in measured:
        if one.loaded is None:
            raise ValueError(f"{one.name}: an ONNX file is not trained, only a model in PyTorch is")
    load, pace, rows = load_average(), {}, []
    for count in counts:
        with use_threads(count):
            pacer = Pacer(place)
            pacer.tick()
            calls = {}
            for one in measured:
                step = training_step(one.task, one.trained_form().to(place), one.images(batch, seed).to(place))
                calls[one.name] = waiting(step, place)
            what = f"{len(calls)} training steps of {batch} {noun_of(measured)} interleaved"
            log(f"{count} thread{'s' * (count > 1)}: {what}")
            timings = interleave(
                calls, rounds=rounds, seed=seed, max_seconds=seconds * len(calls), each_round=pacer.tick
            )
            pacer.tick()
            pace[count] = pacer.seconds
        places = rank(timings)
        for name, timing in timings.items():
            row = {"model": name, "runtime": "pytorch", "threads": count, "batch": batch, "best_batch": False}
            row |= {**dataclasses.asdict(timing), "images_per_s": 1000.0 * batch / timing.median_ms}
            rows.append(row | {"place": places[name].place, "tied_with": list(places[name].tied)})
    result = _header("training", measured, place, load, pace)
    result["settings"] = {"rounds": rounds, "seconds": seconds, "threads": counts, "batches": [batch]}
    result["models"] = {one.name: _facts(one) for one in measured}
    skipped: list[dict[str, Any]] = []
    if memory:
        log("peak memory, each in a process of its own")
        for one in measured:
            options: dict[str, Any] = {"batch_size": batch, "device": device, "training": True}
            try:
                peak = peak_memory_mb(one.name, image_size=one.image_size, **options)
            except ValueError as error:
                skipped.append({"model": one.name, "runtime": "pytorch", "threads": None, "reason": str(error)})
                continue
            result["models"][one.name]["peak_memory_mb"] = {"pytorch": peak}
    return result | {"timings": rows, "skipped": skipped}


def bench_growth(
    models: Sequence[str] = (),
    *,
    mixers: Sequence[str] = MIXERS,
    sides: Sequence[int] = SIDES,
    chans: int = 64,
    sizes: Sequence[int] = SIZES,
    batches: Sequence[int] = BATCHES,
    threads: int = 1,
    device: str = "cpu",
    rounds: int = 15,
    seconds: float = 1.0,
    seed: int = 0,
    log: Callable[[str], None] = silent,
) -> dict[str, Any]:
    """Growth exponents of models (in the image and in the batch) and of token mixers (in the map).

    Args:
        models: As in `bench_inference`; may be empty.
        mixers: Specifications; may be empty.
        sides: Of the mixers' square maps.
        chans: Of the maps.
        sizes: Sides of the models' images in pixels.
        batches: Images per call.
        threads: One number.
        device: ``"cpu"`` or ``"cuda"``.
        rounds: Rounds.
        seconds: Per call.
        seed: Of weights, inputs, order and bootstrap.
        log: Told what is done.

    Raises:
        ValueError: A model, mixer or number is wrong, or there is nothing to measure.
    """
    place = _place(device)
    if not models and not mixers:
        raise ValueError("name at least one model, or one mixer with --mixers")
    if min(*sides, *sizes, *batches, chans, threads, rounds) < 1 or seconds <= 0:
        raise ValueError("sizes, batches, channels, threads, rounds and seconds must be positive")
    numbers = {"image_size": [*sides, *sizes], "batch_size": batches, "channels": [chans], "threads": [threads]}
    _check_numbers({**numbers, "rounds": [rounds], "seconds": [seconds]})
    for what, values in (("map sizes", sides), ("image sizes", sizes), ("batches", batches)):
        if len(set(values)) < 2:
            raise ValueError(f"growth needs at least two different {what}, not {sorted(set(values))}")
    measured = open_models(models, seed=seed) if models else []
    load, rows = load_average(), []
    with use_threads(threads):
        pacer = Pacer(place)
        pacer.tick()
        common: dict[str, Any] = {"device": place, "log": log, "rounds": rounds, "seconds": seconds, "seed": seed}
        common["each_round"] = pacer.tick
        if mixers:
            rows += sweep_mixers(mixers, sides, chans, **common)
        rows += sweep_models(measured, sizes, batches, **common)
        pacer.tick()
    result = _header("growth", measured, place, load, {threads: pacer.seconds})
    result["settings"] = {"rounds": rounds, "seconds": seconds, "threads": [threads], "chans": chans}
    return result | {"growth": rows, "skipped": []}


def bench_serving(
    models: Sequence[str],
    *,
    runtimes: Sequence[str] | None = None,
    threads: Sequence[int] | None = None,
    rates: Sequence[float] = (),
    limit_ms: float | None = None,
    window_ms: float = 5.0,
    max_batch: int = 8,
    image_size: tuple[int, int] | None = None,
    device: str = "cpu",
    seconds: float = 10.0,
    seed: int = 0,
    log: Callable[[str], None] = silent,
) -> dict[str, Any]:
    """Throughput and latency under a server's load, see `tokenmix.bench.serving`; plain values for JSON.

    Args:
        models: See `tokenmix.bench.models.open_models`.
        runtimes: As in `bench_inference`; None: those of `SERVED` that are here.
        threads: Numbers of threads of the one worker; default: all cores.
        rates: Requests per second; where there are none and no limit, shares of what the worker can do at most.
        limit_ms: Search the highest rate whose 99th percentile is within so many milliseconds.
        window_ms: How long the oldest request waits for others to be answered with.
        max_batch: Requests that are answered together at most.
        image_size: Height and width in pixels; default: each model's own.
        device: ``"cpu"`` or ``"cuda"``.
        seconds: Of each load.
        seed: Of weights, images and the requests' times.
        log: Told what is done.

    Raises:
        ValueError: A model, runtime or number is wrong, or nothing could be measured.
        ImportError: A runtime that was named is missing; the message says what to install.
    """
    place, counts = _place(device), _counts((0,) if threads is None else threads, device)
    numbers: dict[str, Sequence[float]] = {"rate": rates, "batch_size": [max_batch], "seconds": [seconds]}
    _check_numbers(numbers)
    if window_ms < 0 or (limit_ms is not None and limit_ms <= 0):
        raise ValueError("the window must not be negative, and a limit of the latency must be positive")
    reasons = {name: reason for name in SERVED if runtimes is None and (reason := missing(name, place))}
    chosen, more = choose(runtimes or [name for name in SERVED if name not in reasons], place)
    for name in chosen:
        if RUNTIMES[name].slow and RUNTIMES[name].form == "model":
            raise ValueError(f"{name} compiles a minute for each batch size: leave it out, or take aoti")
    measured, load = open_models(models, image_size, seed=seed), load_average()
    skipped = [
        {"model": None, "runtime": name, "threads": None, "reason": why} for name, why in (reasons | more).items()
    ]
    bench = Bench(
        measured, chosen, counts, (1, max_batch), place, 1, seconds, 0.0, 1, False, seed, log, skipped=skipped
    )
    rows: list[dict[str, Any]] = []
    pace = {}
    with tempfile.TemporaryDirectory(prefix="tokenmix-") as folder:
        forms = {one.name: one.inference_form() for one in measured if one.loaded is not None}
        bench.write_files(forms, Path(folder))
        for count in counts:
            with use_threads(count), torch.inference_mode():
                pacer = Pacer(place)
                pacer.tick()
                for (runtime, name), start in bench.starts(forms, count).items():
                    one = next(one for one in measured if one.name == name)
                    fixed = one.largest_batch
                    if fixed not in (None, 1):
                        bench.skip(name, runtime, f"the file takes batches of {fixed} only", count)
                        continue
                    most = max_batch if fixed is None else 1
                    calls = {size: start(one.images(size, seed)) for size in range(1, most + 1)}
                    log(f"{name}: {runtime_name(runtime)}, {count} thread{'s' * (count > 1)}")
                    found = load_rows(calls, rates, limit_ms, window_ms, seconds, seed, pacer.tick)
                    rows += [{"model": name, "runtime": runtime, "threads": count, **row} for row in found]
                pacer.tick()
                pace[count] = pacer.seconds
    if not rows:
        said = "; ".join(f"{row['model'] or row['runtime']}: {row['reason']}" for row in bench.skipped)
        raise ValueError(f"nothing could be measured: {said}")
    result = _header("serving", measured, place, load, pace)
    result["settings"] = {"seconds": seconds, "threads": counts, "window_ms": window_ms, "max_batch": max_batch}
    result["settings"] |= {"p99_limit_ms": limit_ms, "arrivals": "Poisson", "seed": seed}
    result["models"] = {one.name: _facts(one) for one in measured}
    return result | {"serving": rows, "timings": [], "skipped": bench.skipped}


def _place(device: str) -> torch.device:
    found = find_device(device)
    if found.type not in ("cpu", "cuda"):
        raise ValueError(f"device must be cpu or cuda, not {device!r}")
    return found


def _counts(threads: Sequence[int] | None, device: str) -> list[int]:
    """Numbers of threads; 0 stands for all cores. On a GPU they do not matter, so one number is enough."""
    given = (1, 0) if threads is None and device == "cpu" else threads or (1,)
    counts = list(dict.fromkeys(count or usable_cores() for count in given))
    if min(counts) < 1:
        raise ValueError(f"threads must be positive, or all, not {min(counts)}")
    _check_numbers({"threads": counts})
    return counts


def _check_numbers(numbers: Mapping[str, Sequence[float]]) -> None:
    """Refuse what is out of the range that `tokenmix_runtime.limits` has under its name."""
    for name, values in numbers.items():
        for value in values:
            check_number(name, value)


def _facts(one: MeasuredModel) -> dict[str, Any]:
    model = None if one.loaded is None else one.trained_form()
    return {
        "image_size": list(one.image_size),
        "params": None if model is None else sum(parameter.numel() for parameter in model.parameters()),
        "published": one.published,
        "weights": "as given" if one.file or Path(one.name).exists() else "random",
    }


def _peaks(one: MeasuredModel, bench: Bench, device: str) -> dict[str, float]:
    """At batch 1 with the first number of threads, in PyTorch and in ONNX Runtime."""
    sources = {} if one.loaded is None else {"pytorch": one.name}
    if ("onnxruntime", one.name) in bench.files and one.largest_batch in (None, 1):
        sources["onnxruntime"] = str(bench.files["onnxruntime", one.name])
    found = {}
    for runtime, source in sources.items():
        options: dict[str, Any] = {"image_size": one.image_size, "in_chans": one.chans, "threads": bench.threads[0]}
        try:
            found[runtime] = peak_memory_mb(source, device=device if runtime == "pytorch" else "cpu", **options)
        except ValueError as error:
            bench.skipped.append({"model": one.name, "runtime": runtime, "threads": None, "reason": str(error)})
    return found


def _header(
    kind: str,
    measured: Sequence[MeasuredModel],
    device: torch.device,
    load: list[float] | None,
    pace: Mapping[int, Sequence[float]],
) -> dict[str, Any]:
    """What every result says of its circumstances."""
    drifts = {str(count): drift(seconds) for count, seconds in pace.items()}
    return {
        "schema": SCHEMA,
        "kind": kind,
        "noun": noun_of(measured),
        "created": datetime.datetime.fromtimestamp(time.time()).isoformat(timespec="seconds"),
        "device": str(device),
        "machine": describe(),
        "load_average": {"before": load, "after": load_average()},
        "clock": {"drift": drifts, "limit": LIMIT, "drifted": any(value > LIMIT for value in drifts.values())},
    }
