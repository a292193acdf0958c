"""Inference times of models in every runtime, against what the machine could do."""

from __future__ import annotations

import dataclasses
import itertools
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tokenmix.bench.batch import best_batch
from tokenmix.bench.drift import Pacer
from tokenmix.bench.interleaved import Timing, interleave
from tokenmix.bench.layers import Work, count_layers, time_layers
from tokenmix.bench.models import MeasuredModel, noun_of
from tokenmix.bench.ranking import rank
from tokenmix.bench.roofline import Roofline, measure_roofline
from tokenmix.bench.runtimes import RUNTIMES, Start, fits_threads, throughput, use_threads
from tokenmix.export.formats import FORMATS
from tokenmix.export.main import export
from tokenmix.export.program import LARGEST_BATCH
from tokenmix.files import slug
from tokenmix.runtime_names import runtime_name

LARGEST = 256
Key = tuple[str, str]  # runtime, model


@dataclasses.dataclass
class Bench:
    """What is measured and how; filled by `run`.

    Attributes:
        models: What is measured.
        runtimes: Names of `RUNTIMES`.
        threads: Numbers of threads, one after the other.
        batches: Batch sizes; 0 is the one with the most images per second.
        device: Of PyTorch's models.
        rounds: Per batch size.
        seconds: Per model, runtime and batch size; at least three rounds are measured.
        roofline_seconds: For each of the machine's limits.
        largest_batch: That is tried.
        layers: Time each layer too.
        seed: Of images, order and bootstrap.
        log: Told what is done.
        rows: One dict for each time.
        rooflines: By the number of threads.
        pace: Seconds of the pacer's ticks, by the number of threads.
        work: What the models must do, by name.
        layer_rows: By model.
        skipped: Dicts with ``model`` (None: all), ``runtime`` and ``reason``.
        files: Those that were written, by runtime and model.
    """

    models: Sequence[MeasuredModel]
    runtimes: Sequence[str]
    threads: Sequence[int]
    batches: Sequence[int]
    device: torch.device
    rounds: int
    seconds: float
    roofline_seconds: float
    largest_batch: int
    layers: bool
    seed: int
    log: Callable[[str], None]
    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    rooflines: dict[int, Roofline] = dataclasses.field(default_factory=dict)
    pace: dict[int, list[float]] = dataclasses.field(default_factory=dict)
    work: dict[str, Work] = dataclasses.field(default_factory=dict)
    layer_rows: dict[str, list[dict[str, Any]]] = dataclasses.field(default_factory=dict)
    skipped: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    files: dict[Key, Path] = dataclasses.field(default_factory=dict)

    def run(self, folder: Path) -> None:
        """Measure; files for other runtimes are written into ``folder``."""
        forms = {one.name: one.inference_form() for one in self.models if one.loaded is not None}
        for one in self.models:
            if one.loaded is not None:
                self.work[one.name] = count_layers(forms[one.name], one.images(1))
        self.write_files(forms, folder)
        for threads in self.threads:
            with use_threads(threads), torch.inference_mode():
                self.log(f"{threads} thread{'s' * (threads > 1)}: the machine's limits")
                pacer = Pacer(self.device)
                pacer.tick()
                self.rooflines[threads] = measure_roofline(self.device, seconds=self.roofline_seconds)
                pacer.tick()
                self._measure(forms, threads, pacer)
                pacer.tick()
                self.pace[threads] = pacer.seconds
                if self.layers and threads == self.threads[0]:
                    self._measure_layers(forms, threads)

    def write_files(self, forms: Mapping[str, nn.Module], folder: Path) -> None:
        """Export what the runtimes need; a model that one cannot take is skipped there."""
        for runtime, one in itertools.product(self.runtimes, self.models):
            form = RUNTIMES[runtime].form
            if form == "model":
                continue
            if one.loaded is None:
                if form == "onnx" and one.file is not None:
                    self.files[runtime, one.name] = one.file
                else:
                    self.skip(one.name, runtime, "an ONNX file runs in ONNX Runtime")
                continue
            self.log(f"{one.name}: exporting for {runtime_name(runtime)}")
            loaded = one.loaded
            if one.trained_form() is loaded.model:  # else the folded form is not the model itself
                loaded = dataclasses.replace(loaded, model=forms[one.name])
            stem = folder / slug(one.name)
            try:
                export(
                    loaded, (form,), stem, image_size=one.image_size, dynamic_batch=any(b != 1 for b in self.batches)
                )
            except ValueError as error:
                self.skip(one.name, runtime, str(error).splitlines()[0])
                continue
            self.files[runtime, one.name] = stem.with_name(stem.name + FORMATS[form].suffix)

    def starts(self, forms: Mapping[str, nn.Module], threads: int) -> dict[Key, Start]:
        """What starts each model in each runtime, after `write_files`."""
        starts: dict[Key, Start] = {}
        for runtime in self.runtimes:
            reason = fits_threads(runtime, threads)
            if reason:
                self.skip(None, runtime, reason, threads)
                continue
            for one in self.models:
                source = (
                    forms.get(one.name) if RUNTIMES[runtime].form == "model" else self.files.get((runtime, one.name))
                )
                if source is not None:
                    starts[runtime, one.name] = RUNTIMES[runtime].start(source, threads, self.device)
        return starts

    def _measure(self, forms: Mapping[str, nn.Module], threads: int, pacer: Pacer) -> None:
        """All models in all runtimes with one number of threads."""
        models = {one.name: one for one in self.models}
        starts = self.starts(forms, threads)
        if not starts:
            return
        at_limits = min(pacer.seconds)  # the limits are the fastest calls too
        for asked in self.batches:
            sizes = {key: asked or self._best(key, starts, models[key[1]], forms, threads) for key in starts}
            calls = {}
            for key, start in starts.items():
                fixed = models[key[1]].largest_batch
                if fixed not in (None, sizes[key]):
                    self.skip(key[1], key[0], f"the file takes batches of {fixed} only", threads)
                    continue
                if RUNTIMES[key[0]].slow:
                    self.log(f"{key[1]}: {runtime_name(key[0])} at batch {sizes[key]}")
                calls["\n".join(key)] = start(models[key[1]].images(sizes[key], self.seed))
            if not calls:
                continue
            what = f"batch {asked}" if asked else f"the batch with the most {noun_of(self.models)} per second"
            self.log(f"{threads} thread{'s' * (threads > 1)}, {what}: {len(calls)} interleaved")
            before = len(pacer.seconds)
            timings = interleave(
                calls,
                rounds=self.rounds,
                seed=self.seed,
                max_seconds=self.seconds * len(calls),
                each_round=pacer.tick,
            )
            found = {tuple(label.split("\n")): timing for label, timing in timings.items()}
            self._keep(found, sizes, threads, asked, statistics.median(pacer.seconds[before:]) / at_limits)

    def _best(
        self, key: Key, starts: Mapping[Key, Start], one: MeasuredModel, forms: Mapping[str, nn.Module], threads: int
    ) -> int:
        runtime, name = key
        if one.largest_batch is not None:
            return one.largest_batch
        start = starts[key]
        if RUNTIMES[runtime].slow:  # a size takes a minute there: that of plain PyTorch stands for it
            start = RUNTIMES["pytorch"].start(forms[name], threads, self.device)
        largest = min(self.largest_batch, LARGEST_BATCH) if runtime == "executorch" else self.largest_batch
        return best_batch(lambda size: throughput(start(one.images(size, self.seed)), size), largest=largest).size

    def _keep(
        self,
        timings: Mapping[tuple[str, ...], Timing],
        sizes: Mapping[Key, int],
        threads: int,
        asked: int,
        slower: float,
    ) -> None:
        """Rows of one measurement: each time with its share of the limit and its place among the models.

        The limit is that of the machine at its pace in these rounds, ``slower`` times that of its measured limits.
        """
        roofline = self.rooflines[threads].slowed(slower)
        by_runtime: dict[str, dict[str, Timing]] = defaultdict(dict)
        for (runtime, name), timing in timings.items():
            by_runtime[runtime][name] = timing
        for runtime, found in by_runtime.items():
            places = rank(found, {name: float(sizes[runtime, name]) for name in found})
            for name, timing in found.items():
                batch = sizes[runtime, name]
                row: dict[str, Any] = {"model": name, "runtime": runtime, "threads": threads, "batch": batch}
                row |= {"best_batch": asked == 0, **dataclasses.asdict(timing), "slower": slower}
                row["images_per_s"] = 1000.0 * batch / timing.median_ms
                if name in self.work:
                    work = self.work[name]
                    row |= limits(roofline, batch * work.flops, work.bytes(batch), timing.median_ms / 1000.0)
                row |= {"place": places[name].place, "tied_with": list(places[name].tied)}
                self.rows.append(row)

    def _measure_layers(self, forms: Mapping[str, nn.Module], threads: int) -> None:
        """Times of the layers in plain PyTorch at batch 1."""
        roofline = self.rooflines[threads]
        for one in self.models:
            if one.loaded is None:
                continue
            self.log(f"{one.name}: layer by layer")
            model, image = forms[one.name].to(self.device), one.images(1, self.seed).to(self.device)
            times, between = time_layers(model, image, self.work[one.name], rounds=min(self.rounds, 10))
            rows: list[dict[str, Any]] = []
            for layer in self.work[one.name].layers:
                row: dict[str, Any] = {
                    "name": layer.name or one.name,
                    "kind": layer.kind,
                    "ms": 1000.0 * times[layer.name],
                }
                row |= {"mflops": layer.flops / 1e6, "mbytes": layer.bytes(1) / 1e6}
                rows.append(row | limits(roofline, layer.flops, layer.bytes(1), times[layer.name]))
            self.layer_rows[one.name] = [*rows, {"name": "between the layers", "kind": "", "ms": 1000.0 * between}]

    def skip(self, model: str | None, runtime: str, reason: str, threads: int | None = None) -> None:
        """Note what was left out; None as a model stands for all."""
        self.skipped.append({"model": model, "runtime": runtime, "threads": threads, "reason": reason})


def limits(roofline: Roofline, flops: float, moved_bytes: float, seconds: float) -> dict[str, Any]:
    """``limit_ms``: the least time; ``share``: of that limit that is reached; ``bound``: what limits."""
    least = roofline.seconds(flops, moved_bytes)
    return {
        "limit_ms": 1000.0 * least,
        "share": least / seconds if seconds else None,
        "bound": roofline.bound(flops, moved_bytes),
    }
