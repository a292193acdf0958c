"""Time models side by side, and say how near each comes to what this machine can do.

All models and runtimes take turns in random order in one process. Beside each time stands its 95 % interval; models
whose intervals overlap share a place. The machine's matrix rate and memory bandwidth are measured in the same run.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import torch

from tokenmix.argument_types import milliseconds, number, whole
from tokenmix.bench.main import (
    BATCHES,
    MIXERS,
    SIDES,
    SIZES,
    bench_growth,
    bench_inference,
    bench_serving,
    bench_training,
)
from tokenmix.bench.runtimes import RUNTIMES, missing
from tokenmix.cli.bench_tables import growth_tables, layer_tables, notes, serving_tables, timing_tables
from tokenmix.cli.options import add_common
from tokenmix.cli.output import print_json
from tokenmix.files import write_json, write_text
from tokenmix.mixers import split_specs
from tokenmix.pages.bench import bench_page
from tokenmix_runtime.limits import check_number
from tokenmix_runtime.terminal import say

INFERENCE = ("runtimes", "batch", "layers")
GROWTH = ("mixers", "maps", "channels", "sizes", "batches")
SERVING = ("rate", "p99", "window", "max_batch")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``tokenmix bench``."""
    add = parser.add_argument
    add(
        "models", nargs="*", metavar="MODEL", help="a name (ours or timm's), a run's folder, a checkpoint, an ONNX file"
    )
    add("--quick", action="store_true", help="a first look: 1 thread, batch 1, few rounds, PyTorch and ONNX Runtime")
    add("--threads", nargs="+", metavar="N", help="numbers, or all (default: 1 and all)")
    add_common(parser, "--image-size", "--device", device={"default": "cpu"})
    add("--rounds", type=whole("rounds"), metavar="N", help="default: 30, growth 15, quick fewer")
    add(
        "--seconds",
        type=number("seconds"),
        metavar="S",
        help="at most, for each model, runtime and batch (default: 2; --train 4, --scale 1)",
    )
    add("--no-memory", action="store_true", help="leave the peak memory out, which takes a process per model")
    add_common(parser, "--seed")
    add("--json", metavar="FILE", help="write everything that was measured; - prints it and nothing else")
    add("--html", metavar="FILE", help="write a page: accuracy against latency, tables, the machine")
    add = parser.add_argument_group("inference (what is measured by default)").add_argument
    add(
        "--runtimes",
        nargs="+",
        metavar="NAME",
        help=f"{', '.join(RUNTIMES)}, or all (default: those that start at once)",
    )
    add(
        "--batch",
        nargs="+",
        metavar="N",
        help="numbers, or best: the one with the most images per second (default: 1 best)",
    )
    add("--layers", action="store_true", default=None, help="print each model's layers, by kind")
    add = parser.add_argument_group("training").add_argument
    add("--train", action="store_true", help="time training steps of --batch images (default: 8) and their peak memory")
    add = parser.add_argument_group("a server's load").add_argument
    add(
        "--serve",
        action="store_true",
        help="answer requests at a rate, in batches, by one worker: latencies and answers per second (PyTorch, ONNX "
        "Runtime, OpenVINO unless --runtimes says else; all cores; --seconds of each load, default: 10)",
    )
    add(
        "--rate",
        nargs="+",
        type=number("rate"),
        metavar="R",
        help="requests per second (default: a quarter to nine tenths of what is possible)",
    )
    add("--p99", type=milliseconds, metavar="TIME", help="search the highest rate at which 99 %% take no longer: 50ms")
    add(
        "--window",
        type=milliseconds,
        metavar="TIME",
        help="how long the oldest request waits for others (default: 5ms)",
    )
    add("--max-batch", type=whole("batch_size"), metavar="N", help="requests that are answered together (default: 8)")
    add = parser.add_argument_group("growth with the number of tokens").add_argument
    add("--scale", action="store_true", help="time several sizes, and fit exponents to them")
    add("--mixers", nargs="+", metavar="MIXER", help=f"default: {' '.join(MIXERS)}, where no model is named")
    add("--maps", nargs="+", type=whole("image_size"), metavar="SIDE", help=f"of the mixers (default: {_told(SIDES)})")
    add("--channels", type=whole("channels"), metavar="N", help="of the maps (default: 64)")
    add(
        "--sizes",
        nargs="+",
        type=whole("image_size"),
        metavar="PX",
        help=f"of the models' images (default: {_told(SIZES)})",
    )
    add(
        "--batches", nargs="+", type=whole("batch_size"), metavar="N", help=f"of the models (default: {_told(BATCHES)})"
    )


def run(args: argparse.Namespace) -> None:
    """Measure, then print tables and write files."""
    kinds = [f"--{name}" for name in ("train", "scale", "serve") if getattr(args, name)]
    if len(kinds) > 1:
        raise ValueError(f"{' and '.join(kinds)} are {len(kinds)} measurements: choose one")
    kind = kinds[0] if kinds else ""
    taken = {"": INFERENCE, "--train": ("batch",), "--scale": GROWTH, "--serve": ("runtimes", *SERVING)}[kind]
    for name in (*INFERENCE, *GROWTH, *SERVING):
        if name not in taken and getattr(args, name) is not None:
            needed = "--serve" if name in SERVING else "--scale"
            where = f"{kind} takes no" if kind else f"without {needed} there is no"
            raise ValueError(f"{where} --{name.replace('_', '-')}")
    plain = args.json == "-"
    log = (lambda line: None) if plain else (lambda line: say(line, file=sys.stderr, flush=True))
    given: dict[str, Any] = {"device": args.device, "seed": args.seed, "log": log}
    given |= {name: getattr(args, name) for name in ("rounds", "seconds") if getattr(args, name) is not None}
    if args.scale:
        result = _growth(args, given)
    elif args.train:
        result = _training(args, given)
    elif args.serve:
        result = _serving(args, given)
    else:
        result = _inference(args, given)
    if args.json and not plain:
        write_json(args.json, result)
    if args.html:
        write_text(args.html, bench_page(result))
    if plain:
        print_json(result)
        return
    shown = growth_tables if args.scale else serving_tables if args.serve else timing_tables
    tables = shown(result)
    say("\n\n".join(tables + (layer_tables(result) if args.layers else [])))
    say("\n" + "\n".join(notes(result)))
    for path in filter(None, (args.json, args.html)):
        say(f"written: {path}")


def _inference(args: argparse.Namespace, given: dict[str, Any]) -> dict[str, Any]:
    if args.quick:
        given = {"rounds": 7, "seconds": 1.0, "roofline_seconds": 0.1, **given}
    return bench_inference(
        args.models,
        runtimes=args.runtimes or (_quick(args.device) if args.quick else None),
        threads=_numbers("threads", args.threads, "all") or ((1,) if args.quick else None),
        batches=_numbers("batch", args.batch, "best") or ((1,) if args.quick else (1, 0)),
        image_size=args.image_size,
        layers=bool(args.layers or not args.quick),
        memory=not (args.quick or args.no_memory),
        **given,
    )


def _training(args: argparse.Namespace, given: dict[str, Any]) -> dict[str, Any]:
    if args.quick:
        given = {"rounds": 3, "seconds": 1.0, **given}
    batch = _numbers("batch", args.batch, None) or (8,)
    if len(batch) > 1:
        raise ValueError("--train takes one --batch")
    return bench_training(
        args.models,
        threads=_numbers("threads", args.threads, "all") or ((1,) if args.quick else None),
        batch=batch[0],
        image_size=args.image_size,
        memory=not (args.quick or args.no_memory),
        **given,
    )


def _serving(args: argparse.Namespace, given: dict[str, Any]) -> dict[str, Any]:
    if args.rounds is not None:
        raise ValueError("--serve takes no --rounds: --seconds says how long each load is")
    if args.quick:
        given = {"seconds": 2.0, **given}
    names = {"p99": "limit_ms", "window": "window_ms", "max_batch": "max_batch"}
    chosen = {ours: value for name, ours in names.items() if (value := getattr(args, name)) is not None}
    threads = _numbers("threads", args.threads, "all") or ((1,) if args.quick else None)
    return bench_serving(
        args.models,
        runtimes=args.runtimes,
        threads=threads,
        rates=args.rate or (),
        image_size=args.image_size,
        **chosen,
        **given,
    )


def _growth(args: argparse.Namespace, given: dict[str, Any]) -> dict[str, Any]:
    if args.image_size is not None:
        raise ValueError("--scale takes --sizes, the sides of several images, instead of --image-size")
    if args.quick:
        given = {"rounds": 3, "seconds": 0.2, **given}
    threads = _numbers("threads", args.threads, "all") or (1,)
    if len(threads) > 1:
        raise ValueError("--scale takes one number of --threads")
    mixers = args.mixers if args.mixers is not None else (() if args.models else MIXERS)
    names = {"maps": "sides", "channels": "chans", "sizes": "sizes", "batches": "batches"}
    chosen = {ours: value for name, ours in names.items() if (value := getattr(args, name)) is not None}
    specs = [spec for text in mixers for spec in split_specs(text)]
    for needed, there, options in (
        ("--mixers", specs, ("maps", "channels")),
        ("a model", args.models, ("sizes", "batches")),
    ):
        for name in options:
            if not there and getattr(args, name) is not None:
                raise ValueError(f"--{name} is for what is not measured: name {needed} too, or leave it out")
    return bench_growth(args.models, mixers=specs, threads=threads[0], **chosen, **given)


def _quick(device: str) -> list[str]:
    """PyTorch, and ONNX Runtime where it is installed."""
    available = device == "cpu" and missing("onnxruntime", torch.device(device)) is None
    return ["pytorch", "onnxruntime"] if available else ["pytorch"]


def _numbers(option: str, words: list[str] | None, zero: str | None) -> tuple[int, ...]:
    """Positive numbers; the word ``zero`` becomes 0."""
    numbers = []
    for word in (part for text in words or [] for part in text.split(",") if part):
        if word == zero:
            numbers.append(0)
            continue
        if not word.isdecimal() or int(word) < 1:
            more = f", or {zero}" if zero else ""
            raise ValueError(f"--{option} takes positive numbers{more}, not {word!r}")
        check_number("threads" if option == "threads" else "batch_size", int(word), f"--{option}")
        numbers.append(int(word))
    return tuple(dict.fromkeys(numbers))


def _told(numbers: tuple[int, ...]) -> str:
    return " ".join(map(str, numbers))
