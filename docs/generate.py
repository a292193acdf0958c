"""Write the generated parts of the documentation: ``python docs/generate.py`` (what ``make docs`` runs).

With ``--demo runs/demo`` also the table and the picture of README, from that real run of ``make demo``.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import math
import re
import sys
import textwrap
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # for its neighbour

import tokenmix  # noqa: E402
from benchmarks import corruptions, forecasting, shootout  # noqa: E402
from docs.command_reference import commands  # noqa: E402
from docs.performance_tables import forms, gpu, growth, peers, table  # noqa: E402
from tokenmix.bench import zoo  # noqa: E402
from tokenmix.bench.scale import Cluster, Prediction, Work, predict  # noqa: E402
from tokenmix.files import write_json, write_text  # noqa: E402
from tokenmix.heads import HEADS  # noqa: E402
from tokenmix.mixers import MIXERS  # noqa: E402
from tokenmix.pages.bench import bench_svg  # noqa: E402
from tokenmix.pages.comparison import pareto_svg  # noqa: E402
from tokenmix.pages.comparison_table import markdown_table  # noqa: E402
from tokenmix.pages.conclusions import headline  # noqa: E402
from tokenmix.recipes import RECIPES, make_recipe  # noqa: E402
from tokenmix.tasks.dense import published  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
IMAGENET = 1_281_167  # training images
# What is assumed of a GPU, for throughputs that nobody has measured; docs/scaling.md says where the figures are from.
PEAK_MACS, PEAK_REACHED = 989e12 / 2, 0.4  # multiply-accumulates per second in bfloat16
MEMORY_BYTES_PER_S, MEMORY_REACHED = 3.35e12, 0.6
LAUNCH_S = 8e-6  # between two operators
SPEEDS = {
    "forms": (forms, "speed-cpu.json"),
    "peers": (peers, "peers-cpu.json"),
    "growth": (growth, "growth-cpu.json"),
    "gpu": (gpu, "mixers-h100.json"),
}
FILLED = 128  # images per GPU that fill it


def mixer_table() -> str:
    """What fills the slots of every mixer, as the text of ``docs/mixers/README.md``'s table."""
    lines = [
        "| mixer | paper | query | key | act | value | complexity | any width |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, info in MIXERS.items():
        cells = (info.paper, info.query, info.key, info.act, info.value, info.complexity, info.widths)
        lines.append(f"| `{name}` | " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def recipe_table() -> str:
    """Every recipe, as the text of ``docs/recipes.md``'s table."""
    lines = [
        "| recipe | model | px | length | images per step | lr | expected | cost |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, make in RECIPES.items():
        recipe = make()
        values = recipe.flat()
        size = "" if "task.image_size" not in values else str((values["task.image_size"] or ["of the data"])[0])
        model = f"`{recipe.model.name}`" + (f" with `{recipe.model.head}`" if recipe.model.head else "")
        if sides := values.get("task.multi_scale"):
            size += f" ({min(sides)} to {max(sides)})"
        cells = (model, size, recipe.length, str(recipe.run.batch_size), f"{recipe.optimizer.lr:g}")
        lines.append(f"| `{name}` | {' | '.join(cells)} | {recipe.expect} | {recipe.cost} |")
    return "\n".join(lines)


def head_table() -> str:
    """Every head, as the text of ``docs/dense.md``'s table."""
    lines = ["| head | task | source |", "|---|---|---|"]
    lines += [f"| `{name}` | {info.task} | {info.paper} |" for name, info in HEADS.items()]
    return "\n".join(lines)


def size_table() -> str:
    """The published dense models counted, as the text of ``docs/dense.md``'s table."""
    return published.markdown()


def export_table() -> str:
    """What ``benchmarks/export_matrix.py`` found, as the text of ``docs/deploy.md``."""
    path = RESULTS / "export_matrix.json"
    if not path.is_file():
        return "Not measured yet: `python benchmarks/export_matrix.py` writes the table's numbers."
    return export_matrix(json.loads(path.read_text(encoding="utf-8"))["rows"])


def corruption_table() -> str:
    """What ``benchmarks/corruptions.py`` found, as the text of ``docs/inspect.md``."""
    if not corruptions.RESULTS.is_file():
        return "Not measured yet: `python benchmarks/corruptions.py --data ZIP` trains, judges and writes the numbers."
    return corruptions.report(json.loads(corruptions.RESULTS.read_text(encoding="utf-8")))


def shootout_table() -> str:
    """What ``benchmarks/shootout.py`` found, as the text of ``docs/shootout.md``."""
    path = shootout.RESULTS
    return shootout.report(json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {})


def forecaster_table() -> str:
    """What it found of forecasters, for their page."""
    return shootout.table("etth1", json.loads(shootout.RESULTS.read_text(encoding="utf-8"))["etth1"])


def forecast_table() -> str:
    """What ``benchmarks/forecasting.py`` found, for the same page."""
    return forecasting.report(json.loads(forecasting.RESULTS.read_text(encoding="utf-8")))


def export_matrix(rows: Iterable[dict[str, Any]]) -> str:
    """A line for each model and head, a column for each format; below, the reasons of what failed.

    Args:
        rows: Dicts of model, head (or None), format, status (``"ok"``, ``"unverified"`` or any other), megabytes,
            max_error, relative_error and reason; what is unknown is None.
    """
    found = {(row["model"], row["head"], row["format"]): row for row in rows}
    formats = list(dict.fromkeys(form for _, _, form in found))
    reasons: dict[str, int] = {}

    def cell(row: dict[str, Any] | None) -> str:
        if row is None:
            return ""
        if row["status"] == "ok":
            error = row["relative_error"]
            return f"{row['megabytes']:.1f} MB" + ("" if error is None else f", {error:.0e}")
        note = f"{row['format']}: {row['reason']}"
        number = reasons.setdefault(note, len(reasons) + 1)
        size = f"{row['megabytes']:.1f} MB" if row["status"] == "unverified" else row["status"]
        return f"{size} ({number})"

    lines = [
        (f"`{model}`" + (f" + {head}" if head else ""), *(cell(found.get((model, head, form))) for form in formats))
        for model, head in dict.fromkeys((model, head) for model, head, _ in found)
    ]
    words = "Size of the file, and the largest difference from PyTorch relative to the largest output."
    notes = "\n".join(f"{number}. {note}" for note, number in reasons.items())
    return "\n\n".join(part for part in (words, table(["model", *formats], lines), notes) if part)


def work(row: dict[str, Any], checkpoint_bytes: int) -> Work:
    """A counted model on the assumed GPU: as fast as its arithmetic or its memory traffic, whichever takes longer."""
    arithmetic = 3 * row["macs"] / (PEAK_MACS * PEAK_REACHED)
    memory = row["traffic_bytes"] / (MEMORY_BYTES_PER_S * MEMORY_REACHED)
    return Work(
        weights={int(first): size for first, size in row["weights"].items()},
        buffer_bytes=row["buffer_bytes"],
        layers=row["layers"],
        images_per_s=1 / max(arithmetic, memory),
        shortest_step_s=row["operators"] * LAUNCH_S,
        checkpoint_bytes=checkpoint_bytes,
    )


def scaling(found: dict[str, Any]) -> str:
    """The tables of ``docs/scaling.md``, from what ``benchmarks/scaling.py`` wrote."""
    data = {row["recipe"]: row["images_per_core_s"] for row in found["data"]}
    works = {row["model"]: work(row, found["checkpoints"][row["model"]]["bytes"]) for row in found["models"]}
    middle = [row["model"] for row in found["models"]][1::2]
    machine = found["machine"]
    before, after = machine["load_average"][0], machine["load_average_after"][0]
    parts = [
        f"Measured on {machine['cpu']}, {machine['cores']} cores, torch {machine['versions']['torch']}, one thread; "
        f"the load average was {before:g} before and {after:g} after.",
        "### A training step",
        table(
            (
                "model",
                "px",
                "GMACs",
                "traffic (MB per image)",
                "images/s of a CPU thread's own time",
                "on the assumed GPU",
            ),
            (
                (
                    f"`{row['model']}`",
                    str(row["px"]),
                    f"{row['macs'] / 1e9:.2f}",
                    f"{row['traffic_bytes'] / 1e6:.0f}",
                    f"{found['training'][row['model']]['images_per_s']:.2f}",
                    f"{works[row['model']].images_per_s:,.0f}",
                )
                for row in found["models"]
            ),
        ),
        "### Checkpoints",
        table(
            ("model", "weights (MB)", "buffers (kB)", "checkpoint (MB)", "written in (s), measured"),
            (
                (
                    f"`{row['model']}`",
                    f"{works[row['model']].parameter_bytes / 1e6:.1f}",
                    f"{row['buffer_bytes'] / 1e3:.0f}",
                    f"{found['checkpoints'][row['model']]['bytes'] / 1e6:.0f}",
                    f"{found['checkpoints'][row['model']]['save_s']:.2f}",
                )
                for row in found["models"]
            ),
        ),
        "### Data",
        table(
            ("recipe", "images/s of a core's own time", "kB per JPEG"),
            (
                (f"`{row['recipe']}`", f"{row['images_per_core_s']:.0f}", f"{row['jpeg_bytes'] / 1e3:.0f}")
                for row in found["data"]
            ),
        ),
        "### Bytes of a step",
        table(
            ("model", "", "processes", "sent by each, counted", "the model says", "difference"),
            (
                (
                    f"`{row['model']}`",
                    row["parallel"],
                    str(row["world"]),
                    f"{row['counted']:,}",
                    f"{row['predicted']:,}",
                    f"{100 * (row['counted'] / row['predicted'] - 1):+.2f} %",
                )
                for row in found["bytes"]
            ),
        ),
        "## What it predicts",
    ]
    for name in middle:
        cluster = Cluster(images_per_core_s=data.get(name, data["basic"]))
        parts += [f"### `{name}`", _predictions(name, works[name], cluster)]
    parts += ["## What breaks first", _sensitivity(middle, works, data)]
    return "\n\n".join(parts)


def _batch(name: str) -> int:
    """The images per step of a model's recipe; 1,024 for those that have none for ImageNet."""
    return make_recipe(name).run.batch_size if name in RECIPES else 1024


def _predictions(name: str, work: Work, cluster: Cluster) -> str:
    """8 to 1,024 GPUs: the recipe's batch shared out, and every GPU filled."""
    batch, epochs = _batch(name), 300
    ready = replace(cluster, cores_per_gpu=math.inf)
    rows = []
    for world in (2**power for power in range(3, 11)):
        strong, real = (predict(work, machines, world, batch / world) for machines in (ready, cluster))
        weak, sharded = (predict(work, ready, world, FILLED, parallel=parallel) for parallel in ("ddp", "fsdp"))
        rows.append(
            (
                f"{world:,}",
                f"{batch / world:g}",
                f"{strong.step_s * 1e3:.1f}",
                f"{strong.sent_bytes / 1e6:.1f}",
                _share(strong),
                strong.limit,
                _share(real),
                f"{epochs * IMAGENET / real.images_per_s / 3600:.1f}",
                f"{_share(weak)}, {weak.limit}",
                f"{_share(sharded)}, {sharded.limit}",
            )
        )
    titles = ["GPUs", "images per GPU", "step (ms)", "sent (MB)", "efficiency", "limit"]
    titles += [f"with {cluster.cores_per_gpu} cores", f"hours for {epochs} epochs"]
    return table([*titles, f"{FILLED} per GPU, DDP", "FSDP2"], rows)


def _share(prediction: Prediction) -> str:
    return f"{100 * prediction.efficiency:.0f} %"


def _sensitivity(names: list[str], works: dict[str, Work], data: dict[str, float]) -> str:
    """The efficiency at 64 GPUs that share the recipe's batch, when one figure is another."""
    base = Cluster()
    changes: dict[str, dict[str, Any]] = {
        "as assumed, data ready": {"cores_per_gpu": math.inf},
        f"{base.cores_per_gpu} cores per GPU": {},
        "network a quarter (100 Gb/s per GPU)": {"cores_per_gpu": math.inf, "network_bytes_per_s": 12.5e9},
        "network a 40th (10 Gb/s per GPU)": {"cores_per_gpu": math.inf, "network_bytes_per_s": 1.25e9},
        "delays of the network ten times": {"cores_per_gpu": math.inf, "network_latency_s": 100e-6},
        "nothing sent while computing": {"cores_per_gpu": math.inf, "hidden": 0.0},
        "checkpoints at a tenth of the rate": {"cores_per_gpu": math.inf, "write_bytes_per_s": 1e8},
    }

    def cell(name: str, change: dict[str, Any], faster: float = 1.0) -> str:
        work = replace(
            works[name],
            images_per_s=works[name].images_per_s * faster,
            shortest_step_s=works[name].shortest_step_s / faster,
        )
        cluster = replace(base, images_per_core_s=data.get(name, data["basic"]), **change)
        found = predict(work, cluster, 64, _batch(name) / 64)
        return f"{_share(found)}, {found.limit}"

    rows = [(words, *(cell(name, change) for name in names)) for words, change in changes.items()]
    rows.append(("GPUs twice as fast", *(cell(name, {"cores_per_gpu": math.inf}, 2.0) for name in names)))
    return table(("64 GPUs, the recipe's batch", *(f"`{name}`" for name in names)), rows)


def between(text: str, name: str, new: str, origin: str = "generated by make docs") -> str:
    """``text`` with what stands between the two markers of ``name`` replaced."""
    begin, end = f"<!-- {name}: {origin} -->", f"<!-- end of {name} -->"
    head, rest = text.split(begin)
    return f"{head}{begin}\n\n{new}\n\n{end}{rest.split(end)[1]}"


def source(name: str) -> str:
    """The source of a function, class or method by its full name, as a block that is shown and not run."""
    parts = name.split(".")
    for place in range(len(parts) - 1, 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:place]))
        except ModuleNotFoundError:
            continue
        for part in parts[place:]:
            found = getattr(found, part)
        code = textwrap.dedent(inspect.getsource(inspect.unwrap(found))).rstrip()
        return f"<!-- not run: it is `{name}` -->\n```python\n{code}\n```"
    raise ValueError(f"there is no {name}")


def with_sources(text: str) -> str:
    """A page whose marked places hold the source that they name."""
    for name in re.findall(r"<!-- code (\S+): generated", text):
        text = between(text, f"code {name}", source(name))
    return text


ROOMS = {  # of the API reference: those whose names people import
    "tokenmix.mixers": "Token mixers",
    "tokenmix.backbones": "Backbones",
    "tokenmix.heads": "Heads of dense tasks",
    "tokenmix.recipes": "Recipes",
    "tokenmix.tasks": "Tasks",
    "tokenmix.data": "Data",
    "tokenmix.metrics": "Metrics",
    "tokenmix.train": "Training",
    "tokenmix.inspection": "Looking inside",
    "tokenmix.compilation": "Compilation",
    "tokenmix.export": "Export",
    "tokenmix.bench": "Measuring",
    "tokenmix.jobs": "Jobs",
    "tokenmix.planning": "Plans",
    "tokenmix.web": "The page in the browser",
    "tokenmix.checkpoints": "Checkpoints",
}


def api(room: str) -> str:
    """What mkdocstrings fills in for each class and function of a room; the package's face has a page of its own."""
    module = importlib.import_module(room)
    face = {id(getattr(tokenmix, name)) for name in tokenmix.__all__}
    found = {name: getattr(module, name) for name in module.__all__}
    shown = [
        f"::: {thing.__module__}.{name}"
        for name, thing in found.items()
        if (inspect.isclass(thing) or inspect.isfunction(thing))
        and thing.__module__.startswith(f"{room.split('.')[0]}.")
        and id(thing) not in face
    ]
    return "\n\n".join(shown)


def rooms() -> str:
    """The rooms' part of ``docs/api/rooms.md``."""
    return "\n\n".join(f"## {title}: `{room}`\n\n{api(room)}" for room, title in ROOMS.items())


def demo(folder: Path) -> None:
    """README's table and picture from the results of a run."""
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    machine = results["machine"]
    seconds = sum(entry["seconds"] for entry in results["mixers"].values())
    words = (
        f"{headline(results)}\n\n{markdown_table(results)}\n"
        f"Made by `make demo` in one run on {machine['cpu']}, {machine['cores']} cores, torch "
        f"{results['versions']['torch']}; training took {seconds:.0f} s for all mixers together. The command it runs:\n"
        f"\n```sh\ntokenmix compare {results['data']['name']} --out runs/demo\n```"
    )
    page = ROOT / "README.md"
    write_text(page, between(page.read_text(encoding="utf-8"), "demo", words, "from a real run of make demo"))
    write_text(ROOT / "docs" / "images" / "demo.svg", pareto_svg(results))


def measured(name: str) -> str:
    """A part of ``docs/performance.md``: forms, peers, growth or gpu."""
    make, file = SPEEDS[name]
    return make(json.loads((RESULTS / file).read_text(encoding="utf-8")))


def performance() -> None:
    """The measured parts and the pictures of ``docs/performance.md``."""
    page = ROOT / "docs" / "performance.md"
    text = page.read_text(encoding="utf-8")
    for name in SPEEDS:
        text = between(text, name, measured(name))
    write_text(page, text)
    found = json.loads((RESULTS / "peers-cpu.json").read_text(encoding="utf-8"))
    for runtime in ("pytorch", "onnxruntime"):
        write_text(ROOT / "docs" / "images" / f"peers-{runtime}.svg", bench_svg(found, runtime))


def main() -> None:
    """Count, then write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demo", type=Path, metavar="DIR", help="a folder that make demo wrote")
    args = parser.parse_args()
    if args.demo:
        demo(args.demo)
        return
    write_json(ROOT / "tokenmix" / "bench" / "models.json", zoo.count_zoo())
    write_text(ROOT / "docs" / "models.md", zoo.markdown())
    page = ROOT / "docs" / "mixers" / "README.md"
    write_text(page, between(page.read_text(encoding="utf-8"), "mixers", mixer_table()))
    page = ROOT / "docs" / "dense.md"
    text = between(page.read_text(encoding="utf-8"), "heads", head_table())
    write_text(page, between(text, "sizes", size_table()))
    page = ROOT / "docs" / "deploy.md"
    write_text(page, between(page.read_text(encoding="utf-8"), "exports", export_table()))
    page = ROOT / "docs" / "inspect.md"
    write_text(page, between(page.read_text(encoding="utf-8"), "corruptions", corruption_table()))
    page = ROOT / "docs" / "shootout.md"
    write_text(page, between(page.read_text(encoding="utf-8"), "shootouts", shootout_table()))
    page = ROOT / "docs" / "tasks" / "forecasting.md"
    text = between(page.read_text(encoding="utf-8"), "forecasters", forecaster_table())
    write_text(page, between(text, "forecasts", forecast_table()))
    page = ROOT / "docs" / "recipes.md"
    write_text(page, between(page.read_text(encoding="utf-8"), "recipes", recipe_table()))
    page = ROOT / "docs" / "scaling.md"
    found = json.loads((RESULTS / "scaling-cpu.json").read_text(encoding="utf-8"))
    write_text(page, between(page.read_text(encoding="utf-8"), "scaling", scaling(found)))
    performance()
    page = ROOT / "docs" / "commands.md"
    write_text(page, between(page.read_text(encoding="utf-8"), "commands", commands()))
    page = ROOT / "docs" / "api" / "rooms.md"
    write_text(page, between(page.read_text(encoding="utf-8"), "rooms", rooms()))
    page = ROOT / "docs" / "api" / "runtime.md"
    write_text(page, between(page.read_text(encoding="utf-8"), "runtime", api("tokenmix_runtime")))
    for page in sorted((ROOT / "docs").rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        if (new := with_sources(text)) != text:
            write_text(page, new)


if __name__ == "__main__":
    main()
