"""Mixers in the trunk of FFNet-SR on Set5: ``python benchmarks/super_resolution.py SET5 [--mixers ffnified pool ...]``.

SET5 is the folder of the five pictures. Every mixer stands in the same trunk, at the width whose number of parameters
is nearest to the first one's, and learns from the demo's photographs for as many steps, from the same seed. Of each:
PSNR and SSIM as MATLAB's users measure them (``tokenmix eval``), and the time for a picture of 256 x 256 pixels on
one thread, all of them interleaved in one process, as seconds per megapixel of the result. Bicubic interpolation is
the first row.

Each run is one folder under ``--runs``: what is finished is not done again, and what was killed goes on. ``--epochs``
shortens all trainings alike; 12 are the demo's own.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tokenmix.backbones.reparameterize import reparameterize
from tokenmix.bench.interleaved import interleave
from tokenmix.bench.machine import describe
from tokenmix.checkpoints import LoadedModel, open_model
from tokenmix.evaluate import judge
from tokenmix.files import write_json
from tokenmix.recipes import make_recipe
from tokenmix.sources import load_data
from tokenmix.tasks import find_task
from tokenmix.tasks.super_resolution.model import create_upscaler
from tokenmix.train import fit

TASK, NETWORK, RECIPE = "super_resolution", "ffnet_sr_tiny", "photographs_upscale"
PUBLISHED = "ffnified(key_size=3, value_size=3, query='bias')"  # FFNet-SR's own mixer
MIXERS = (PUBLISHED, "depthwise", "pool", "identity", "aff", "additive", "dsm")
SIDE = 256  # pixels of the picture that is timed


def parameters(mixer: str, dim: int) -> int:
    """How many the trunk has with a mixer at a width."""
    model = create_upscaler(NETWORK, mixers=mixer, dim=dim, device="meta")
    return sum(parameter.numel() for parameter in model.parameters())


def equal_width(mixer: str, target: int, own: int) -> int:
    """The width, of those that the mixer can have, at which the trunk's parameters are nearest to the wanted number."""
    sizes: dict[int, int] = {}
    for dim in range(own // 4, 2 * own):
        with contextlib.suppress(ValueError):  # attention's heads divide the width
            sizes[dim] = parameters(mixer, dim)
    return min(sizes, key=lambda dim: abs(sizes[dim] - target))


def trained(mixer: str, dim: int, folder: Path, settings: list[str]) -> LoadedModel:
    """The mixer's network after its training, which continues or is there already."""
    chosen = [f"model.args.mixers={mixer}", f"model.args.dim={dim}", *settings]
    recipe = make_recipe(RECIPE, chosen)
    fit(recipe, load_data(recipe.run.data, task=TASK, log=print), folder, progress=False)
    return open_model(folder)


def judged(loaded: LoadedModel, set5: Path) -> dict[str, float]:
    """PSNR in dB and SSIM on the five pictures."""
    data = find_task(TASK).open_judged(str(set5), loaded, None, log=lambda line: None)
    numbers = judge(loaded, data.samples, data.facts).numbers
    return {name: round(float(numbers[name]), 4) for name in ("psnr", "ssim")}


@torch.inference_mode()
def seconds_per_megapixel(models: dict[str, nn.Module], seconds: float) -> dict[str, float]:
    """Of the larger picture, the median of interleaved runs."""
    x = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    calls = {name: functools.partial(model, x) for name, model in models.items()}
    timings = interleave(calls, max_seconds=seconds)
    megapixels = {name: model.scale**2 * SIDE**2 / 1e6 for name, model in models.items()}
    return {name: round(timing.median_ms / 1000 / megapixels[name], 4) for name, timing in timings.items()}


def table(rows: list[dict[str, Any]]) -> str:
    """In Markdown."""
    lines = ["| mixer | width | parameters | PSNR, dB | SSIM | s per megapixel |", "|---|---|---|---|---|---|"]
    for row in rows:
        name = "ffnified, FFNet-SR's own" if row["mixer"] == PUBLISHED else row["mixer"]
        numbers = f"{row['psnr']:.2f} | {row['ssim']:.4f} | {row['seconds_per_megapixel']:.2f}"
        lines.append(f"| {name} | {row['width']} | {row['parameters']:,} | {numbers} |")
    return "\n".join(lines)


def main() -> None:
    """Train what is missing, judge and time everything, print the table and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("set5", type=Path, metavar="SET5")
    add("--mixers", nargs="+", default=list(MIXERS), metavar="SPEC", help="the first one gives the parameters")
    add("--epochs", type=int, default=12, help="of 110 steps each")
    add("--seed", type=int, default=0)
    add("--seconds", type=float, default=60.0, help="for all times together")
    add("--runs", type=Path, default=Path("runs/super-resolution-benchmark"))
    add("--out", type=Path, default=Path(__file__).parent / "results" / "super_resolution-cpu.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    own = create_upscaler(NETWORK, device="meta").dim
    target = parameters(args.mixers[0], own)
    models = {"bicubic": open_model("bicubic_x2")}
    widths: dict[str, int] = {}
    for number, mixer in enumerate(args.mixers):
        widths[mixer] = own if number == 0 else equal_width(mixer, target, own)
        name = f"{number}-{mixer.partition('(')[0]}-{widths[mixer]}-{args.epochs}-{args.seed}"
        settings = [f"epochs={args.epochs}", f"seed={args.seed}"]
        models[mixer] = trained(mixer, widths[mixer], args.runs / name, settings)
    times = seconds_per_megapixel(
        {name: reparameterize(one.model.eval()) for name, one in models.items()}, args.seconds
    )
    rows = [
        {
            "mixer": name,
            "width": widths.get(name, 0),
            "parameters": sum(parameter.numel() for parameter in loaded.model.parameters()),
            **judged(loaded, args.set5),
            "seconds_per_megapixel": times[name],
        }
        for name, loaded in models.items()
    ]
    write_json(args.out, {"machine": describe(), "epochs": args.epochs, "seed": args.seed, "rows": rows})
    print(table(rows))


if __name__ == "__main__":
    main()
