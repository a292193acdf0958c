"""Look inside a network: what it depends on, what fills its mixers' slots, what it keeps, and how alike two are."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenmix.checkpoints import LoadedModel, open_model
from tokenmix.evaluate import find_device
from tokenmix.exported import expanded, is_exported
from tokenmix.files import atomic_path, finite, slug, write_json, write_text
from tokenmix.inspection.activation import grad_cam, score_cam
from tokenmix.inspection.layers import blocks, chosen_mixers, listening, mixers, passing, stages
from tokenmix.inspection.receptive import SHARE, reach_of, receptive_fields, width_of
from tokenmix.inspection.similarity import SIDE, alignments, rows_of
from tokenmix.inspection.slots import MAPS, MOST_TOKENS, band_figure, slot_figures, slots_of
from tokenmix.inspection.spectra import kept_high, spectra
from tokenmix.pages.inspection import inspection_page
from tokenmix.pictures.files import picture_file
from tokenmix.pictures.heat import amounts, enlarged, over
from tokenmix.tasks import find_task
from tokenmix.tasks.view import Figure, MixerDrawing, View
from tokenmix.train.checkpoint import NAME
from tokenmix_runtime.terminal import say

SCHEMA = "tokenmix.inspect/1"
PICTURE_PX = 280  # the long side of a picture on the page
Source = str | os.PathLike[str] | LoadedModel
Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


@dataclass
class Subject:
    """A model with what it sees of the pictures, and what was found in it."""

    name: str
    loaded: LoadedModel
    views: list[View]
    numbers: dict[str, Any] = field(default_factory=dict)

    @property
    def has_maps(self) -> bool:
        """Whether it sees pictures, which it makes maps of."""
        return all(view.inputs.ndim == 4 for view in self.views)

    @property
    def drawing(self) -> MixerDrawing | None:
        """How its mixers are drawn; None where they cannot be opened."""
        return MAPS if self.has_maps else find_task(self.loaded.task).mixer_drawing()


def inspect(
    model: Source,
    images: Paths,
    *,
    against: Source | None = None,
    out: str | os.PathLike[str] = "inspect",
    layer: str | None = None,
    target: str | None = None,
    image_size: int | Sequence[int] | None = None,
    device: str = "auto",
    log: Callable[[str], None] = say,
) -> dict[str, Any]:
    """Look inside a model: a page without dependencies, and each picture on it as a PNG file.

    Effective receptive fields of the stages; what fills query, key, activation and value of a mixer; the kernel that a
    frequency filter equals for a picture, the bands of DSM, trained and merged kernels; class activation maps; the
    spectrum of the features by depth; and what the model's task has to show. See docs/inspect.md.

    Args:
        model: A run's folder, one of its checkpoints (``RUN/checkpoints/step-*.pt``, its average if it keeps one), a
            weights file, a model's name, or a loaded model.
        images: Pictures, or what else the model's task takes: a series, clouds. One or several.
        against: A second model for the same task, or another epoch of the run, shown beside it; how alike their layers
            are.
        out: The folder of the page and the PNG files.
        layer: The layer whose mixer is opened, such as ``"stages.2.blocks.0"``; None: the last one of each stage.
        target: The class that is explained, by its name or number; None: what the model says.
        image_size: Pixels, one number or (height, width); None: the model's.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
        log: Takes plain lines.

    Returns:
        What is in ``out/inspect.json``: of each model its receptive fields, spectra and answers, the alignment of two
        models, and the names of the files.

    Raises:
        ValueError: A model cannot be opened or looked at, the two are for different tasks, a file cannot be read, or
            there is no such layer or class.

    Examples:
        >>> import tokenmix
        >>> found = tokenmix.inspect("runs/mine", "cat.jpg", out="inside")  # doctest: +SKIP
        >>> found["models"]["mixernet_pico"]["receptive_fields"]["stages.0"]["width_px"]  # doctest: +SKIP
        55.0
    """
    listed = [images] if isinstance(images, str | os.PathLike) else list(images)
    files = expanded([os.fspath(image) for image in listed])
    if not files:
        raise ValueError("name at least one picture, or what else the model takes")
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--out {folder} is a file; give a folder")
    where = find_device(device)
    sources = [model] if against is None else [model, against]
    opened = [_opened(source) for source in sources]
    if len({loaded.task for loaded in opened}) > 1:
        titles = " and ".join(find_task(loaded.task).title for loaded in opened)
        raise ValueError(f"two models side by side must be for one task, not for {titles}")
    names = _names(sources, opened)
    subjects = []
    for name, loaded in zip(names, opened, strict=True):
        task = find_task(loaded.task)
        loaded.model.to(where).eval()
        log(f"{name}: looking at {len(files)} {'file' if len(files) == 1 else 'files'}")
        views = [task.view(loaded, path, wanted=target, image_size=_size(image_size)) for path in files]
        subjects.append(Subject(name, loaded, _told_apart(views, files)))
    groups = [group for group in _groups(subjects, layer, log) if group["rows"]]
    if len(subjects) == 2 and all(subject.has_maps for subject in subjects):
        groups += _alike(subjects[0], subjects[1], log)
    return _written(folder, subjects, files, groups, log)


def _opened(source: Source) -> LoadedModel:
    if not isinstance(source, LoadedModel) and is_exported(os.fspath(source)):
        raise ValueError(f"{source}: a file for another runtime cannot be opened; name the model that it was made from")
    loaded = source if isinstance(source, LoadedModel) else open_model(source)
    if getattr(loaded.model, "output_fmt", "NCHW") != "NCHW":
        raise ValueError(f"{loaded.name}: its maps are (B, H, W, C), which inspect would misread, as (B, C, H, W)")
    return loaded


def _names(sources: Sequence[Source], opened: Sequence[LoadedModel]) -> list[str]:
    """What the models are called: as short an end of their paths as tells them apart, or else a number."""
    own = [one.name for one in opened]
    paths = [
        name if isinstance(source, LoadedModel) else _place(source) for source, name in zip(sources, own, strict=True)
    ]
    return _ends(paths, own)


def _place(source: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """A path that says which model this is: of a run's checkpoint the run's, with the epoch and step in its name."""
    path = Path(source).absolute()
    if path.is_file() and (match := NAME.fullmatch(path.name)):
        run = path.parent.parent
        return run.parent / f"{run.name}, epoch {int(match[2])}, step {int(match[1])}"
    return source


def _told_apart(views: list[View], files: Sequence[str]) -> list[View]:
    """The views, named by the ends of their files' paths where their own names are the same."""
    names = [view.name for view in views]
    if len(set(names)) == len(names):
        return views
    return [replace(view, name=name) for view, name in zip(views, _ends(files, names), strict=True)]


def _ends(paths: Sequence[str | os.PathLike[str]], names: list[str]) -> list[str]:
    """As short ends of the paths as are different, and numbers where the paths are not."""
    parts = [Path(path).parts for path in paths]
    for length in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{name} ({place})" if names.count(name) > 1 else name for place, name in enumerate(names, 1)]


def _size(image_size: int | Sequence[int] | None) -> tuple[int, int] | None:
    if image_size is None:
        return None
    sides = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    return sides[0], sides[-1]


# ----------------------------------------------------------------------------------------------------------- the groups

Group = dict[str, Any]  # anchor, heading, text, rows of (title, figures)


def _groups(subjects: Sequence[Subject], layer: str | None, log: Callable[[str], None]) -> Iterator[Group]:
    """The parts of the page; an unknown layer is told before the work."""
    mapped = [subject for subject in subjects if subject.has_maps]
    opened = [
        (subject, drawing, chosen_mixers(subject.loaded.model, layer))
        for subject in subjects
        if (drawing := subject.drawing) is not None
    ]
    if layer is not None and not opened:
        raise ValueError(f"--layer {layer}: mixers of networks of this kind cannot be opened; leave it out")
    own = [_rows(subject, lambda subject, view: find_task(subject.loaded.task).own_figures(subject.loaded, view))
           for subject in subjects]  # fmt: skip
    yield _group("task", "What the answer was made from", "", own)
    if mapped:
        log("class activation maps")
        rows = [_rows(one, _activation) for one in mapped]
        yield _group("activation", "Where the answer comes from", ACTIVATION, rows)
        log("effective receptive fields")
        yield _group("receptive", "Effective receptive fields", RECEPTIVE, [_receptive(one) for one in mapped])
    if opened:
        log("slots of the mixers")
        text = f"{SLOTS} {opened[0][1].text}"
        yield _group("slots", "Inside the mixers", text, [list(_slots(*each)) for each in opened])
    if mapped:
        log("spectra by depth")
    for one in mapped:
        passed = [passing(blocks(one.loaded.model), view.run, view.inputs) for view in one.views]
        one.numbers["spectra"] = spectra(passed)
        one.numbers["high_frequencies"] = {name: kept_high(line) for name, line in one.numbers["spectra"].items()}


ACTIVATION = (
    "Left, what the network sees; then Grad-CAM (arXiv:1610.02391) and Score-CAM (arXiv:1910.01279), which needs no "
    "gradient, of the last stage's map: bright pixels speak for the answer."
)
RECEPTIVE = (
    "How much the centre of a stage's map depends on each pixel of the input (arXiv:1701.04128): the energy of the "
    "gradient, averaged over the pictures, by its fourth root. The width is that of the smallest square "
    f"that holds {SHARE:.0%} of it; the reach, the share of the pixels that count at all."
)
SLOTS = (
    "Every mixer is value(act(key(query(x), x))): what fills these places for each picture, computed by the functions "
    "that the network runs."
)


def _group(anchor: str, heading: str, text: str, rows: Sequence[Sequence[tuple[str, list[Figure]]]]) -> Group:
    """A part of the page, of rows of each model, in turn where there are as many of both."""
    in_turn = len({len(each) for each in rows}) == 1
    merged = [row for group in (zip(*rows, strict=True) if in_turn else rows) for row in group if row[1]]
    return {"anchor": anchor, "heading": heading, "text": text, "rows": merged}


def _rows(subject: Subject, look: Callable[[Subject, View], Sequence[Figure]]) -> list[tuple[str, list[Figure]]]:
    """A row for each picture."""
    rows = []
    for view in subject.views:
        figures = list(look(subject, view))
        for figure in figures:
            subject.numbers.setdefault("figures", {}).setdefault(view.name, {}).update(figure.numbers)
        title = f"{subject.name}: {view.name}" + (f", {view.answer}" if view.answer else "")
        subject.numbers.setdefault("answers", {})[view.name] = view.answer
        rows.append((title, figures))
    return rows


def _activation(subject: Subject, view: View) -> list[Figure]:
    if view.picture is None or view.score is None:
        return []
    last = list(stages(subject.loaded.model).values())[-1]
    if not passing({"map": last}, view.score, view.inputs):  # tokens, as a plain transformer has them
        return []
    picture = enlarged(view.picture, PICTURE_PX)
    figures = [Figure("seen", "what it sees", picture)]
    for name, title, look in (("grad-cam", "Grad-CAM", grad_cam), ("score-cam", "Score-CAM", score_cam)):
        found = look(last, view.score, view.inputs).cpu()
        figures.append(Figure(name, title, over(picture, found.numpy(), 0.85)))
    return figures


def _receptive(subject: Subject) -> list[tuple[str, list[Figure]]]:
    parts = stages(subject.loaded.model)
    if len(parts) == 1:  # a trunk without stages: a few of its blocks
        inner = list(blocks(subject.loaded.model).items())
        places = sorted({round(step * (len(inner) - 1) / 3) for step in range(4)})
        parts = dict(inner[place] for place in places)
    first = subject.views[0].inputs.shape
    inputs = [view.inputs for view in subject.views if view.inputs.shape == first]
    found = receptive_fields(parts, subject.views[0].run, inputs)
    figures, numbers = [], {}
    for name, energy in found.items():
        width, reach = width_of(energy), reach_of(energy)
        numbers[name] = {"width_px": width, "reach": reach}
        note = f"{SHARE:.0%} within {width} of {max(energy.shape)} px; {100 * reach:.0f} % of the pixels count"
        drawn = enlarged(amounts(energy.cpu().pow(0.25).numpy()), 224)
        figures.append(Figure(name, name, drawn, note, numbers[name]))
    subject.numbers["receptive_fields"] = numbers
    title = subject.name
    if len(inputs) < len(subject.views):
        size = " x ".join(map(str, first[-2:]))
        title += f", averaged over the {len(inputs)} of {len(subject.views)} pictures that it sees at {size} px"
    return [(title, figures)]


def _slots(
    subject: Subject, drawing: MixerDrawing, chosen: Mapping[str, nn.Module]
) -> Iterator[tuple[str, list[Figure]]]:
    """A row for each mixer's kernels, and for what fills its slots for each picture."""
    subject.numbers["mixers"] = list(mixers(subject.loaded.model))
    differences: dict[str, float] = {}
    heard = []
    for view in subject.views:
        with torch.no_grad(), listening(chosen, inputs=True) as given, listening(chosen) as returned:
            view.run(view.inputs)
        heard.append((view, given, returned))
    for name, mixer in chosen.items():
        yield f"{subject.name}: {name}, its kernels", [_named(figure, name) for figure in drawing.kernels(mixer)]
        for view, given, returned in heard:
            if name in given:  # else it is a part that this network does not run
                figures, difference = _opened_mixer(drawing, mixer, given[name], returned[name])
                if difference is not None:
                    differences[name] = max(difference, differences.get(name, 0.0))
                title = f"{subject.name}: {name}, {view.name}"
                yield title, [_named(figure, f"{name}-{Path(view.name).with_suffix('')}") for figure in figures]
    subject.numbers["slots_differ_by"] = differences


@torch.no_grad()
def _opened_mixer(
    drawing: MixerDrawing, mixer: nn.Module, given: Sequence[Any], y: Tensor
) -> tuple[list[Figure], float | None]:
    """The figures of what one mixer is given and returns, and how far its slots' value is from that."""
    if drawing is MAPS:
        x, y = given[0][:1], y[:1]
        if x.shape[-2] * x.shape[-1] > MOST_TOKENS:
            x = F.adaptive_avg_pool2d(x, math.isqrt(MOST_TOKENS))
            y = mixer(x)
        given = (x, *given[1:])
    slots, difference = slots_of(mixer, y, *given)
    figures = list(slot_figures(drawing, mixer, slots, given))
    bands = band_figure(mixer, given[0]) if drawing is MAPS else None
    return [*figures, *([] if bands is None else [bands])], difference


def _named(figure: Figure, where: str) -> Figure:
    return Figure(f"{where}-{figure.name}", figure.title, figure.picture, figure.note, figure.numbers)


def _alike(one: Subject, other: Subject, log: Callable[[str], None]) -> list[Group]:
    """How alike the blocks of two models are; nothing where those of one return no maps."""
    seen = []
    for subject in (one, other):
        parts = blocks(subject.loaded.model)
        seen.append([passing(parts, view.run, view.inputs) for view in subject.views])
        if not seen[-1][0]:
            log(f"{subject.name}: its blocks return tokens, not maps, so that how alike the two are is not compared")
            return []
    least = min(min(x.shape[-2:]) for passed in seen for maps in passed for x in maps.values())
    side = min(SIDE, least)
    rows = [{name: rows_of([maps[name] for maps in passed], side) for name in passed[0]} for passed in seen]
    table = alignments(*rows)
    one.numbers["alignment"] = {"rows": list(rows[0]), "columns": list(rows[1]), "values": table}
    note = (
        f"A row for each block of {one.name}, from the first on top; a column for each of {other.name}. Bright is 1, "
        f"dark 0 or less. The samples are the cells of a grid of {side} x {side} over "
        f"{len(one.views)} picture{'s' * (len(one.views) != 1)}."
    )
    values = torch.tensor(table, dtype=torch.float64).nan_to_num(0.0).clamp(min=0)
    figure = Figure("alignment", "centred kernel alignment", enlarged(amounts(values.numpy(), 1.0), 420), note)
    text = "Unbiased linear CKA (arXiv:1905.00414, arXiv:2010.15327): 1 for features equal up to rotation and scale."
    title = f"{one.name} and {other.name}"
    return [{"anchor": "alike", "heading": "How alike they are", "text": text, "rows": [(title, [figure])]}]


# ------------------------------------------------------------------------------------------------------------- the page


def _written(
    folder: Path,
    subjects: Sequence[Subject],
    files: Sequence[str],
    groups: Sequence[Group],
    log: Callable[[str], None],
) -> dict[str, Any]:
    """Write the pictures, the numbers and the page; returns the numbers."""
    pictures: dict[str, bytes] = {}
    shown = []
    for group in groups:
        rows = []
        for place, (title, figures) in enumerate(group["rows"], 1):
            entries = []
            for figure in figures:
                name = f"{group['anchor']}-{place}-{slug(figure.name)}.png"
                pictures[name] = picture_file(figure.picture, "PNG")
                entries.append({"file": name, "title": figure.title, "note": figure.note, "size": figure.picture.size})
            rows.append({"title": title, "figures": entries})
        shown.append({**group, "rows": rows})
    result = {
        "schema": SCHEMA,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "task": subjects[0].loaded.task,
        "files": _ends(files, list(files)),
        "models": {one.name: {"model": one.loaded.name, **one.numbers} for one in subjects},
        "groups": shown,
    }
    for name, file in pictures.items():
        with atomic_path(folder / name) as temporary:
            temporary.write_bytes(file)
    write_json(folder / "inspect.json", finite(result))
    write_text(folder / "report.html", inspection_page(result, pictures))
    log(f"{folder / 'report.html'}: {len(pictures)} pictures")
    return result
