"""The mixers of the house on every kind of task: ``python benchmarks/shootout.py --cifar ZIP --series FOLDER``.

Each field is one ``tokenmix compare`` in a folder under ``--runs``: what was stopped goes on, what is done is not done
again.

* ``cifar-0.25ms``, ``-0.5ms``, ``-1ms``: CIFAR-10, every mixer at the widths that answer within so many milliseconds
  in ONNX Runtime (``--cifar``: a zip file with train/CLASS/*.jpg and test/CLASS/*.jpg).
* ``matching``: two digits far apart, have they the same colour? What ``make demo`` compares.
* ``segments``, ``boxes``: the embedded scenes.
* ``etth1``: the next 96 hours of ETTh1 (``--series``: the folder of ETTh1.csv).
* ``rooms``: the embedded clouds.
* ``photographs``: twice as large, at equal parameters.

``--epochs`` shortens or lengthens all trainings with their schedules alike, as a share of their usual length. Results
go to ``results/shootout.json``, of each field as soon as it is there, and are printed as tables.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks import small_data
from tokenmix.comparison import compare
from tokenmix.files import write_json
from tokenmix.mixers import MIXERS
from tokenmix.recipes import make_recipe

RESULTS = Path(__file__).parent / "results" / "shootout.json"


@dataclass(frozen=True)
class Field:
    """One comparison.

    Attributes:
        about: What is compared, for the table's head.
        data: As ``tokenmix compare`` takes it, or ``"CIFAR"`` or ``"SERIES"``, which the command line says.
        recipe: Its name.
        settings: Of the recipe.
        options: Others of `tokenmix.compare`.
    """

    about: str
    data: str
    recipe: str
    settings: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=lambda: {"match": "params"})


def _cifar(milliseconds: float) -> Field:
    return Field(
        f"CIFAR-10, {milliseconds:g} ms for a picture in ONNX Runtime",
        "CIFAR",
        "basic",
        ("image_size=32", "epochs=15", "augment=light"),
        {"mixers": list(MIXERS), "match": "latency", "budget_ms": milliseconds},
    )


FIELDS = {
    "cifar-0.25ms": _cifar(0.25),
    "cifar-0.5ms": _cifar(0.5),
    "cifar-1ms": _cifar(1),
    "matching": Field("Two digits far apart, of one colour or not", "matching_digits", "matching_digits", options={}),
    "segments": Field("Scenes, a class for each pixel", "scenes", "scenes_segment"),
    "boxes": Field("Scenes, boxes", "scenes", "scenes_detect"),
    # Ten times the script's learning rate, which is for a hundred epochs: in few it does not beat the last day again.
    "etth1": Field("ETTh1, the next 96 hours", "SERIES", "ffnet_forecast_etth1_96", ("lr=1e-3",), {}),
    "rooms": Field("Rooms, a class for each point", "rooms", "rooms"),
    "photographs": Field("Photographs, twice as large", "photographs", "photographs_upscale"),
}


def data_of(chosen: Field, args: argparse.Namespace) -> str:
    """What `compare` is given.

    Raises:
        FileNotFoundError: The command line does not say where the data are.
    """
    if chosen.data == "CIFAR":
        return str(small_data.written_once(args.runs / "cifar", small_data.cifar(1500, 500)(args, 0)))
    if chosen.data == "SERIES":
        if args.series is None:
            raise FileNotFoundError("give --series, the folder of ETTh1.csv")
        return str(args.series / "ETTh1.csv")
    return chosen.data


def run(name: str, data: str, args: argparse.Namespace) -> dict[str, Any]:
    """One comparison, or the rest of it; see `told`."""
    chosen = FIELDS[name]
    usual = make_recipe(chosen.recipe, chosen.settings).schedule
    epochs = usual.epochs * args.epochs
    shares = [f"epochs={epochs:g}", f"warmup_epochs={usual.warmup_epochs * args.epochs:g}"]
    shares.append(f"milestones={[round(mark * args.epochs, 4) for mark in usual.milestones]}")
    found = compare(
        data,
        out=args.runs / name,
        recipe=chosen.recipe,
        settings=[*chosen.settings, *shares],
        seeds=args.seeds,
        batch_sizes=(1,),
        measure_seconds=args.seconds,
        **{**chosen.options, **({"mixers": args.mixers} if args.mixers else {})},
    )
    return told(found, epochs)


def told(found: Mapping[str, Any], epochs: float) -> dict[str, Any]:
    """What the tables need of a comparison's results."""
    headline = found["headline"]
    return {
        "machine": found["machine"],
        "headline": headline,
        "unit": found["unit"],
        "lower_is_better": found["lower_is_better"],
        "epochs": epochs,
        "seeds": found["seeds"],
        "minutes": sum(one["seconds"] for one in found["mixers"].values()) / 60,
        "groups": (found["statistics"] or {}).get("groups", []),
        "left_out": found["left_out"],
        "mixers": {
            mixer: {
                "score": one[f"test_{headline}"],
                "interval": one.get(f"test_{headline}_interval"),
                "per_seed": one[f"test_{headline}_per_seed"],
                "params": one["params"],
                "macs": one["macs"],
                "ms": {runtime: times["1"] for runtime, times in one["latency_ms"].items()} | _decisive(found, mixer),
                "seconds": one["seconds"],
            }
            for mixer, one in found["mixers"].items()
        },
    }


def _decisive(found: Mapping[str, Any], mixer: str) -> dict[str, float]:
    """By runtime the milliseconds by which a mixer's widths were chosen, beside a reference that tells the pace."""
    timed = found["timed"] or {"in": "", "mixers": {}}
    return {timed["in"]: timed["mixers"][mixer]} if mixer in timed["mixers"] else {}


def table(name: str, found: Mapping[str, Any]) -> str:
    """One field in Markdown, the best mixer first; mixers with a letter in common cannot be told apart."""
    ranked = _ranked(found)
    runtimes = list(dict.fromkeys(runtime for mixer in ranked for runtime in found["mixers"][mixer]["ms"]))
    machine = found["machine"]
    unit = f", {found['unit']}" if found["unit"] else ""
    seeds = len(found["seeds"])
    several = seeds > 1
    lines = [
        f"**{FIELDS[name].about}**: {found['epochs']:g} epochs, {seeds} seed{'s' * several}, "
        f"{found['minutes']:.0f} minutes of training; {machine['cpu']}, torch {machine['versions']['torch']}.",
        "",
        f"| mixer | {found['headline']}{unit} | {'each seed | ' * several}group | parameters | "
        + " | ".join(f"{runtime}, ms" for runtime in runtimes)
        + " |",
        "|---|" + "---:|" * (3 + several + len(runtimes)),
    ]
    for mixer in ranked:
        one = found["mixers"][mixer]
        score = _score(found, mixer)
        if one["interval"]:
            score += f" ± {(one['interval'][1] - one['interval'][0]) / 2:.2g}"
        letters = "".join(chr(ord("a") + place) for place, group in enumerate(found["groups"]) if mixer in group)
        times = " | ".join(f"{one['ms'][runtime]:.2f}" if runtime in one["ms"] else "" for runtime in runtimes)
        each = ", ".join(f"{value:.4g}" for value in one["per_seed"]) + " | " if several else ""
        lines.append(f"| `{mixer}` | {score} | {each}{letters} | {one['params']:,} | {times} |")
    if slow := found["left_out"]:
        fastest = ", ".join(f"`{mixer}` ({milliseconds:.2f} ms)" for mixer, milliseconds in slow.items())
        lines.append(f"\nToo slow with the narrowest widths that were tried, and left out: {fastest}.")
    return "\n".join(lines)


def overview(results: Mapping[str, Any]) -> str:
    """Every mixer in every field that was measured, in Markdown; what cannot be told from a field's best is bold.

    Of a field whose test tells nobody apart nothing is. Mixers that took part in more fields come first, and among them
    those behind the least share of their rivals, of those that a field's test tells to be ahead; what is too slow is
    behind all.
    """
    results = {name: _plainly(found) for name, found in results.items()}
    places: dict[str, list[float]] = {}
    for found in results.values():
        ranked = _ranked(found)
        for place, mixer in enumerate(ranked):
            groups = found["groups"] or [ranked]  # a test too small for statistics tells nobody apart
            alike = {other for group in groups if mixer in group for other in group}
            ahead = [other for other in ranked[:place] if other not in alike]
            places.setdefault(mixer, []).append(len(ahead) / max(1, len(ranked) - 1))
        for mixer in found["left_out"]:
            places.setdefault(mixer, []).append(1.0)

    def cell(found: Mapping[str, Any], mixer: str) -> str:
        if mixer not in found["mixers"]:
            return "too slow" if mixer in found["left_out"] else ""
        text, best = _score(found, mixer), _ranked(found)[0]
        alike = any(mixer in group and best in group for group in found["groups"])
        return f"**{text}**" if len(found["groups"]) > 1 and (alike or mixer == best) else text

    titles = [f"`{name}`: {found['headline']}" for name, found in results.items()]
    lines = ["| mixer | " + " | ".join(titles) + " | fields | behind |", "|---|" + "---:|" * (len(titles) + 2)]
    for mixer in sorted(places, key=lambda one: (-len(places[one]), sum(places[one]) / len(places[one]))):
        cells = [cell(found, mixer) for found in results.values()]
        mean = sum(places[mixer]) / len(places[mixer])
        lines.append(f"| `{mixer}` | {' | '.join(cells)} | {len(places[mixer])} | {mean:.0%} |")
    return "\n".join(lines)


def _plainly(found: Mapping[str, Any]) -> dict[str, Any]:
    """A mixer with options by its name alone, where no other one of the field has it."""
    bare = [mixer.partition("(")[0] for mixer in found["mixers"]]
    names = {mixer: name if bare.count(name) == 1 else mixer for mixer, name in zip(found["mixers"], bare, strict=True)}
    groups = [[names[mixer] for mixer in group] for group in found["groups"]]
    return {**found, "mixers": {names[mixer]: one for mixer, one in found["mixers"].items()}, "groups": groups}


def _ranked(found: Mapping[str, Any]) -> list[str]:
    sign = 1 if found["lower_is_better"] else -1
    return sorted(found["mixers"], key=lambda mixer: sign * found["mixers"][mixer]["score"])


def _score(found: Mapping[str, Any], mixer: str) -> str:
    score = found["mixers"][mixer]["score"]
    if found["lower_is_better"]:
        return f"{score:.4f}"
    return f"{score:.1f}" if found["unit"] == "%" else f"{score:.2f}"


def report(results: Mapping[str, Any]) -> str:
    """All fields at a glance, and each as a table, or that it was not measured: what stands in docs/shootout.md."""
    absent = "**{}**: not measured yet."
    parts = [table(name, results[name]) if name in results else absent.format(FIELDS[name].about) for name in FIELDS]
    return "\n\n".join([*([overview(results)] if results else []), *parts])


def main() -> None:
    """Run what is missing, write the results and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--fields", nargs="+", default=list(FIELDS), choices=FIELDS)
    add("--mixers", nargs="+", help="default: every mixer on CIFAR-10, and elsewhere those that the task compares")
    add("--cifar", type=Path, metavar="ZIP")
    add("--series", type=Path, metavar="FOLDER")
    add("--epochs", type=float, default=1.0, help="a share of the usual number (default: %(default)s)")
    add("--seeds", type=int, default=3, help="(default: %(default)s)")
    add("--seconds", type=float, default=60.0, help="for the times of a field's mixers (default: %(default)s)")
    add("--runs", type=Path, default=Path("runs/shootout"))
    add("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    results = json.loads(args.out.read_text(encoding="utf-8")) if args.out.exists() else {}
    failed: list[str] = []
    for name in args.fields:
        try:
            data = data_of(FIELDS[name], args)
        except FileNotFoundError as error:
            print(f"{name} is left out: {error}", flush=True)
            continue
        try:
            results[name] = run(name, data, args)
        except ValueError as error:  # the other fields are still run
            print(f"{name} has failed: {error}", flush=True)
            failed.append(name)
            continue
        write_json(args.out, {known: results[known] for known in FIELDS if known in results})
    for name in args.fields:
        if name in results:
            print("\n" + table(name, results[name]))
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
