"""Do mixers of frequencies hold better on corrupted photographs? ``python benchmarks/corruptions.py --data ZIP``.

The same small network is trained with each mixer, from fresh weights and several seeds, on real photographs: pictures
of CIFAR-10 (``--data``, a zip file with train/CLASS/*.jpg and test/CLASS/*.jpg), and grey crops of the textures and of
the scenes of ``examples/photographs.py``. Each run is judged on its test pictures by what ``tokenmix eval
--corruptions`` calls, and its numbers are added to ``--out`` at once: what is there by the same settings is not done
again, so that the script can be stopped and go on. A set whose package or file is missing is said and left out.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from scipy.stats import t

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks import small_data
from tokenmix.bench.machine import describe
from tokenmix.calls import evaluate
from tokenmix.data.corruptions import CORRUPTIONS
from tokenmix.files import write_json
from tokenmix.recipes import make_recipe
from tokenmix.sources import load_data
from tokenmix.train import fit

RESULTS = Path(__file__).parent / "results" / "corruptions.json"
MIXERS = ("aff", "dsm", "ffnified", "additive", "attention", "depthwise", "identity")
SPECTRAL = ("aff", "dsm")
SPATIAL = ("ffnified", "additive", "attention", "depthwise")  # what the spectral ones are held against
MODEL = "mixernet_pico"
SETS = {
    "cifar": {
        "read": small_data.cifar(1000),
        "image_size": 32,
        "epochs": 15,
        "about": "the largest, of CIFAR-10",
    },
    "textures": {"read": small_data.textures, "image_size": 64, "epochs": 60, "about": "grey crops of 9 textures"},
    "scenes": {"read": small_data.scenes, "image_size": 64, "epochs": 60, "about": "grey crops of 8 photographs"},
}
Run = Mapping[str, Any]


# ------------------------------------------------------------------------------------------------------- the measuring


def folder_of(name: str, args: argparse.Namespace) -> Path:
    """The pictures of a set as a folder, written once; the same ones for all seeds.

    Raises:
        ImportError, FileNotFoundError: They cannot be had here.
    """
    return small_data.written_once(args.runs / "sets" / name, SETS[name]["read"](args, 0))


def measure(name: str, mixer: str, seed: int, epochs: int, folder: Path) -> dict[str, Any]:
    """One training and its evaluation, as plain values for JSON; errors in percent."""
    chosen = SETS[name]
    settings = [f"model={MODEL}", f"model_args.mixers={mixer}", f"image_size={chosen['image_size']}"]
    settings += [f"epochs={epochs}", f"seed={seed}", f"data={folder}", "channels_last=true"]
    began = time.process_time()
    data = load_data(str(folder), log=lambda line: None)
    with tempfile.TemporaryDirectory() as out:
        fit(make_recipe("basic", settings, images=len(data.train)), data, Path(out), progress=False)
        trained = time.process_time()
        told = evaluate(out, folder, split="test", corruptions=True, device="cpu", log=lambda line: None)
    return {
        **key_of(name, mixer, seed, epochs),
        "pictures": {"train": len(data.train), "test": len(data.test)},
        "corruptions": told["corruptions"],
        "cpu_seconds": {"training": round(trained - began, 1), "judging": round(time.process_time() - trained, 1)},
        "machine": describe(),
    }


def key_of(name: str, mixer: str, seed: int, epochs: int) -> dict[str, Any]:
    """By what a run is known."""
    return {"set": name, "mixer": mixer, "seed": seed, "epochs": epochs}


# --------------------------------------------------------------------------------------------------------- the telling


def interval(values: Sequence[float]) -> str:
    """The mean, and how far the ends of its 95 % interval over seeds are, by Student's t."""
    mean = statistics.mean(values)
    return f"{mean:.1f}" if len(values) < 2 else f"{mean:.1f} ± {reach(values, 0.05):.1f}"


def reach(values: Sequence[float], level: float) -> float:
    """How far the ends of the interval of the mean are that misses the truth with the chance ``level``."""
    return t.ppf(1 - level / 2, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5


def falls(run: Run) -> dict[str, float]:
    """By how many points the error under each corruption passes that on plain pictures; ``""`` is the mean."""
    found = run["corruptions"]
    plain = 100 - found["plain"]
    return {**{name: error - plain for name, error in found["errors"].items()}, "": found["mce"] - plain}


def report(found: Mapping[str, Any]) -> str:
    """What was measured, as Markdown: for each set a row for each mixer, and frequency against space.

    Args:
        found: What ``results/corruptions.json`` has.
    """
    parts = []
    for name, runs in itertools.groupby(found["runs"], key=lambda run: run["set"]):
        parts += _section(name, list(runs))
    missing = [name for name in SETS if name not in {run["set"] for run in found["runs"]}]
    parts += [f"**{name}**: {SETS[name]['about']}, has not been measured." for name in missing]
    return "\n\n".join(parts)


def _section(name: str, runs: Sequence[Run]) -> list[str]:
    by_mixer = {mixer: [run for run in runs if run["mixer"] == mixer] for mixer in MIXERS}
    by_mixer = {mixer: own for mixer, own in by_mixer.items() if own}
    seeds = max(len(own) for own in by_mixer.values())
    first, machine = runs[0], runs[-1]["machine"]
    epochs = " or ".join(f"{count}" for count in sorted({run["epochs"] for run in runs}))  # unlike runs are told
    head = (
        f"**{name}**: {SETS[name]['about']}, {first['pictures']['train']:,} pictures to learn from, "
        f"{first['pictures']['test']:,} to test; `{MODEL}`, {epochs} epochs, {seeds} seed{'s' * (seeds > 1)}. "
        f"{machine['cpu']}, torch {machine['versions']['torch']}. In percent, ± half of the 95 % interval over the "
        "seeds; a fall is by how many points the error passes that on plain pictures."
    )
    kinds = list(CORRUPTIONS)
    titles = ["mixer", "plain error", "mean corruption error", "its fall", *(kind.replace("_", " ") for kind in kinds)]
    rows = [titles, ["---", *["---:"] * (len(titles) - 1)]]
    for mixer, own in by_mixer.items():
        fallen = [falls(run) for run in own]
        cells = [interval([100 - run["corruptions"]["plain"] for run in own])]
        cells += [interval([run["corruptions"]["mce"] for run in own])]
        cells += [interval([fall[kind] for fall in fallen]) for kind in ("", *kinds)]
        rows.append([f"`{mixer}`", *cells])
    return [head, "\n".join(f"| {' | '.join(row)} |" for row in rows), *_contrast(by_mixer)]


def _contrast(by_mixer: Mapping[str, Sequence[Run]]) -> list[str]:
    """The falls of the spectral mixers, less those of the spatial ones, seed by seed, and what that tells."""
    groups = [[mixer for mixer in group if mixer in by_mixer] for group in (SPECTRAL, SPATIAL)]
    shared = [{run["seed"] for run in by_mixer[mixer]} for mixer in itertools.chain(*groups)]
    seeds = sorted(set.intersection(*shared)) if all(groups) else []
    if len(seeds) < 2:
        return ["Two seeds at least of mixers of both kinds tell how frequency and space differ."]
    fallen = {(mixer, run["seed"]): falls(run) for mixer, own in by_mixer.items() for run in own}

    def difference(kind: str) -> list[float]:
        means = [[statistics.mean(fallen[mixer, seed][kind] for mixer in group) for seed in seeds] for group in groups]
        return [one - other for one, other in zip(*means, strict=True)]

    differences = {kind.replace("_", " ") or "the mean of all": difference(kind) for kind in ("", *CORRUPTIONS)}
    count, freedom = len(differences), len(seeds) - 1
    mean = {kind: statistics.mean(values) for kind, values in differences.items()}
    alone = {kind: reach(values, 0.05) for kind, values in differences.items()}
    # So that among all of them a false difference is told with a chance of 5 %.
    deciding = {kind: reach(values, 0.05 / count) for kind, values in differences.items()}
    rows = [["points", *differences], ["---", *["---:"] * count]]
    rows += [["difference", *(f"{value:+z.1f}" for value in mean.values())]]
    rows += [["± of it alone", *(f"{value:.1f}" for value in alone.values())]]
    rows += [[f"± that decides among {count}", *(f"{value:.1f}" for value in deciding.values())]]

    def said(kinds: Sequence[str], half: Mapping[str, float]) -> str:
        return ", ".join(f"{kind} ({mean[kind]:+.1f} ± {half[kind]:.1f})" for kind in kinds)

    told = [kind for kind in mean if abs(mean[kind]) > deciding[kind]]
    hints = [kind for kind in mean if kind not in told and abs(mean[kind]) > alone[kind]]
    overall, *single = deciding.values()
    verdict = (
        f"A difference is told where it passes what decides: {said(told, deciding) or 'nowhere'}. As far as these "
        f"{len(seeds)} seeds scatter, one could have been found from {overall:.1f} points on over all corruptions, and "
        f"from {min(single):.1f} to {max(single):.1f} under a single one."
    )
    if hints:
        verdict += (
            f" Hints, not results, past their own interval alone: {said(hints, alone)}; "
            f"of {count} chance makes {0.05 * count:.2g} in the mean."
        )
    who, against = (", ".join(f"`{mixer}`" for mixer in group) for group in groups)
    head = (
        f"The mean fall of {who}, less that of {against}, seed by seed; positive is more errors. ± is half of the 95 % "
        f"interval of one comparison alone ({t.ppf(1 - 0.025, freedom):.1f} standard errors), and of the one that "
        f"decides, corrected for {count} comparisons ({t.ppf(1 - 0.025 / count, freedom):.1f}):"
    )
    return [head, "\n".join(f"| {' | '.join(row)} |" for row in rows), verdict]


def main() -> None:
    """Train, judge, write ``results/corruptions.json`` and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", dest="cifar", type=Path, metavar="ZIP", help="pictures of CIFAR-10")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--mixers", nargs="+", default=list(MIXERS), choices=MIXERS)
    parser.add_argument("--seeds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--epochs", type=int, help="of every training (default: 15 of cifar, 60 of the others)")
    parser.add_argument("--runs", type=Path, default=Path("runs/corruptions"), help="for the sets' pictures")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    runs = json.loads(args.out.read_text(encoding="utf-8"))["runs"] if args.out.exists() else []
    for name in args.sets:
        try:
            folder = folder_of(name, args)
        except (ImportError, FileNotFoundError) as error:
            print(f"{name} is left out: {error}", flush=True)
            continue
        epochs = args.epochs or SETS[name]["epochs"]
        for seed, mixer in itertools.product(range(args.seeds), args.mixers):
            wanted = key_of(name, mixer, seed, epochs)
            if any(wanted.items() <= run.items() for run in runs):
                continue
            new = measure(name, mixer, seed, epochs, folder)
            same = {key: wanted[key] for key in ("set", "mixer", "seed")}
            runs = [*(run for run in runs if not same.items() <= run.items()), new]
            runs.sort(key=lambda run: (list(SETS).index(run["set"]), MIXERS.index(run["mixer"]), run["seed"]))
            write_json(args.out, {"runs": runs})
            told = new["corruptions"]
            spent = sum(new["cpu_seconds"].values())
            print(f"{name}, {mixer}, seed {seed}: {told['plain']:.1f} %, mean corruption error {told['mce']:.1f} %, "
                  f"{spent:.0f} s of one core", flush=True)  # fmt: skip
    print(report({"runs": runs}))


if __name__ == "__main__":
    main()
