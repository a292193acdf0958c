"""`tokenmix export` as a function: prepare once, then write, verify and keep a file per format."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tokenmix.checkpoints import LoadedModel, described_model, open_model
from tokenmix.export.errors import ExportError
from tokenmix.export.extras import matching
from tokenmix.export.formats import FORMATS, PRECISIONS, Format
from tokenmix.export.intermediate import first_difference
from tokenmix.export.manifest import add_file, describe, read_manifest
from tokenmix.export.prepare import Prepared, evaluation_mode, prepare
from tokenmix.export.verify import TOLERANCES, check
from tokenmix.files import new_folders, sha256, sync
from tokenmix.tasks import Task, all_tasks, find_task
from tokenmix.tasks.file_form import FileForm, VerificationError
from tokenmix_runtime.limits import check_number
from tokenmix_runtime.names import unknown
from tokenmix_runtime.preprocess import height_width
from tokenmix_runtime.shortage import shortage

Pictures = Tensor | str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def export(
    source: str | os.PathLike[str] | LoadedModel | torch.nn.Module,
    formats: Sequence[str] = ("onnx",),
    out: str | os.PathLike[str] = "model",
    *,
    image_size: int | Sequence[int] | None = None,
    dynamic_batch: bool | None = None,
    dynamic_size: bool | None = None,
    precision: str = "fp32",
    inside: Sequence[str] = (),
    images: Pictures | None = None,
    calibration: Pictures | None = None,
    tolerance: float | None = None,
) -> dict[str, Any]:
    """Write a model for other runtimes, verified there against PyTorch; returns the manifest.

    The model is re-parameterised, its spectral transforms become matrix products. Each file appears whole and verified
    or not at all, as ``STEM.onnx`` and the like; ``STEM.json``, the manifest, describes it, and those written before
    from the same weights. Where several formats are asked for, those that succeed are kept.

    Args:
        source: What `tokenmix.checkpoints.open_model` takes, or what it returns; or a classifier of timm's registry,
            which has a configuration.
        formats: Names of `tokenmix.export.formats.FORMATS`.
        out: The stem, or the name of a file of the one format.
        image_size: Height and width in pixels, or one number for both; default: the model's. Fixed in the file
            unless ``dynamic_size`` is true. Detectors pad it inside the file.
        dynamic_batch: Files take any batch size; default: where formats and post-processing can.
        dynamic_size: Files take pictures of any size; ``"resize"`` inside implies it. Default: where the task's files
            usually do (`tokenmix.tasks.file_form.FileForm.open_size`), the formats can, and no ``image_size`` is given.
        precision: ``"fp32"``, ``"fp16"`` or ``"int8"``; inputs and outputs stay float32.
        inside: What the file does itself, of the task's `tokenmix.tasks.base.Task.file_parts`. Of pictures these are
            ``"resize"`` (pictures of any size) and ``"normalize"``, both for values of 0..255; ``"softmax"``,
            ``"argmax"`` or ``"nms"`` (boxes, decoded and suppressed).
        images: To verify with: inputs (N, ...) ready for the file, or what else the task takes. Of pictures these are
            files or a folder; default: those of ``calibration``, else photographs that scikit-image or scikit-learn
            bring along, else noise. For a
            classifier's pictures in folders named after its classes the manifest has the accuracy in PyTorch and in the
            file too. Files that cannot be read are left out with a warning.
        calibration: To choose the ranges of int8 with, likewise; needed for it.
        tolerance: Largest relative error to accept; default: `TOLERANCES` of the precision.

    Returns:
        As ``STEM.json`` has it.

    Raises:
        ImportError: A format's packages are missing; the message gives the command that installs them.
        ExportError: The model cannot be written in a format.
        VerificationError: A file computes something else; for ONNX the message names the first layer that differs.
        ValueError: An option is unknown or does not fit the model or the format.
        TypeError: The source is something else.

    Examples:
        >>> manifest = export("runs/photos", ["onnx"], "photos.onnx", precision="fp16")  # doctest: +SKIP
        >>> manifest["files"]["onnx"]["file"]  # doctest: +SKIP
        'photos.onnx'
    """
    kinds, stem = _formats(formats, out, precision)
    if precision == "int8" and calibration is None:
        raise ValueError("int8 needs pictures to choose its ranges with: give a folder of them (--calibration DIR)")
    if image_size is not None:
        image_size = height_width(image_size)
    if tolerance is not None:
        check_number("tolerance", tolerance)
    for kind in kinds:
        for package in kind.packages:
            matching(package, kind.extra)
    loaded = _loaded(source)
    task = find_task(loaded.task)
    form = task.file_form(loaded, image_size, _parts(task, inside))
    if dynamic_size is None and image_size is not None:
        dynamic_size = False  # who names a size wants that one
    open_axes = _open_axes(kinds, form, dynamic_batch, form.any_size or dynamic_size)

    shown = calibration if images is None else images  # pictures of the user's own say more than ours
    examples, what, truth = form.inputs(shown)
    ranges = examples if calibration is None else form.inputs(calibration).tensors
    with evaluation_mode(loaded.model):
        whole = form.module()
    # Batch 2 where it is open: torch.export takes a size of 1 for a constant.
    prepared = Prepared(
        prepare(whole).cpu().float(),
        form.example(2 if 0 in open_axes else 1),
        form.input_name,
        form.outputs,
        open_axes,
        form.title,
    )
    try:
        outputs = _outputs(prepared.model, prepared.sample)
        batches = _batches(examples, prepared)
        with evaluation_mode(whole):
            expected = [_outputs(whole, batch) for batch, _ in batches]
    except (RuntimeError, AssertionError) as error:
        if shortage(error):
            raise
        raise ValueError(f"{prepared.name} cannot take {form.samples}: {error}") from error
    manifest = describe(form, prepared, outputs) | {"precision": precision}
    limit = TOLERANCES[precision] if tolerance is None else tolerance

    with new_folders(stem.parent):
        failures: list[ValueError] = []
        for kind in kinds:
            target = stem.with_name(stem.name + kind.suffix)
            with tempfile.TemporaryDirectory(prefix=f".{stem.name}.", suffix=".tmp", dir=stem.parent) as folder:
                path = Path(folder) / target.name
                given = _with_fixed_shapes(form, prepared) if kind.fixed_shapes else prepared
                try:
                    facts = kind.write(given, path, precision, ranges)
                    if kind.embed is not None:
                        kind.embed(path, manifest)
                    numbers = _verify(kind, path, target, form, given, batches, expected, limit, truth)
                    facts["errors"] = {"images": len(examples), "source": what, **numbers}
                    beside = _move(Path(folder), target)
                except (ValueError, RuntimeError) as error:  # the latter of runtimes whose errors have no class
                    if shortage(error):
                        raise
                    failures.append(error if isinstance(error, ValueError) else _failure(target, error))
                    continue
            facts = {"file": target.name, **_size(target, beside), "precision": precision, **facts}
            facts["input_shape"] = manifest["input"]["shape"]
            written = add_file(stem.with_name(stem.name + ".json"), manifest, kind.name, facts)
        if len(failures) == 1:
            raise failures[0]
        if failures:
            raise ExportError("\n".join(map(str, failures)))
    return written


def _failure(target: Path, error: RuntimeError) -> ExportError:
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    told = ExportError(f"{target} could not be written and run: {reason}")
    told.__cause__ = error
    return told


def _loaded(source: Any) -> LoadedModel:
    """The model that a caller of `export` means."""
    if isinstance(source, LoadedModel):
        return source
    if isinstance(source, str | os.PathLike):
        return open_model(source)
    if isinstance(source, torch.nn.Module) and isinstance(cfg := getattr(source, "pretrained_cfg", None), dict):
        return described_model(source, {"model": cfg.get("architecture") or type(source).__name__})
    raise TypeError(
        f"export takes a run's folder, a weights file, a model's name, a classifier that timm made, or a LoadedModel, "
        f"not {type(source).__name__}; of another module say how its pictures are prepared: "
        "tokenmix.checkpoints.LoadedModel(model.eval(), 'mine', 'classification', image_size=(224, 224), "
        "mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), facts={'classes': [...]})"
    )


def _formats(formats: Sequence[str], out: str | os.PathLike[str], precision: str) -> tuple[list[Format], Path]:
    """The formats, and the path of their files without a suffix."""
    if isinstance(formats, str):
        formats = [formats]
    if not formats:
        raise ValueError(f"no format to write: choose among {', '.join(FORMATS)}")
    for name in formats:
        if name not in FORMATS:
            raise ValueError(unknown("format", name, FORMATS))
    kinds = [FORMATS[name] for name in dict.fromkeys(formats)]
    if precision not in PRECISIONS:
        raise ValueError(unknown("precision", precision, PRECISIONS))
    for kind in kinds:
        if precision not in kind.precisions:
            raise ValueError(f"{kind.name} files cannot be {precision} here, only {' or '.join(kind.precisions)}")
    stem = Path(out)
    own = [kind for kind in FORMATS.values() if stem.name.endswith(kind.suffix)]
    if own:
        kind = max(own, key=lambda kind: len(kind.suffix))  # ``.aoti.pt2``, not ``.pt2``
        if stem.name == kind.suffix:
            raise ValueError(f"--out {stem} is an ending alone: give a name before it, such as model{kind.suffix}")
        if [kind] != kinds:
            raise ValueError(f"{stem} is no name for {' and '.join(formats)}: leave its ending out")
        stem = stem.with_name(stem.name.removesuffix(kind.suffix))
    elif stem.is_dir():
        raise ValueError(f"{stem} is a folder: name a file with --out, such as {stem / 'model'}")
    beside = stem.with_name(stem.name + ".json")
    if beside.exists() and not read_manifest(beside):
        raise ValueError(f"{beside} is there and no manifest of an export: give another --out")
    for kind in kinds:
        target = stem.with_name(stem.name + kind.suffix)
        if target.is_dir() and not kind.folder:
            raise ValueError(f"{target} is a folder: name a file with --out")
    return kinds, stem


def _parts(task: Task, inside: Sequence[str]) -> tuple[str, ...]:
    """The parts in the task's order, without doubles.

    Raises:
        ValueError: A part is unknown or is not one of the task's files.
    """
    for part in inside:
        others = [other.name for other in all_tasks().values() if part in other.file_parts]
        if not others:
            raise ValueError(unknown("part inside the file", part, file_parts()))
        if part not in task.file_parts:
            raise ValueError(
                f"{part!r} cannot be inside a file for {task.name}, only inside one for {' or '.join(others)}; what "
                f"can be is {', '.join(task.file_parts) or 'nothing'}"
            )
    return tuple(part for part in task.file_parts if part in inside)


def file_parts() -> list[str]:
    """What files of any task can do themselves."""
    return list(dict.fromkeys(part for task in all_tasks().values() for part in task.file_parts))


def _open_axes(
    kinds: Sequence[Format], form: FileForm, dynamic_batch: bool | None, dynamic_size: bool | None
) -> dict[int, str]:
    """The axes of the input that the files leave open.

    Raises:
        ValueError: The model or a format needs one of them fixed.
    """
    single = form.single
    if single and dynamic_size:
        raise ValueError(f"a file {single} takes one size: leave that out, or the dynamic size")
    if single and dynamic_batch:
        raise ValueError(f"a file {single} takes one sample at a time: leave out the dynamic batch")
    if dynamic_size and not form.size_axes:
        raise ValueError(f"{form.title} takes {form.samples} of one size: leave out the dynamic size")
    if dynamic_batch is None:
        dynamic_batch = not single and all(kind.dynamic_batch and not kind.fixed_by_default for kind in kinds)
    if dynamic_size is None:
        dynamic_size = form.open_size and all(kind.dynamic_size and not kind.fixed_by_default for kind in kinds)
    for kind in kinds:
        for wanted, can, what in (
            (dynamic_batch, kind.dynamic_batch, "batch"),
            (dynamic_size, kind.dynamic_size, "size"),
        ):
            if wanted and not can:
                raise ValueError(f"{kind.name} files have a fixed {what}: leave the dynamic {what} out, or the format")
    return ({0: "batch"} if dynamic_batch else {}) | (dict(form.size_axes) if dynamic_size else {})


def _with_fixed_shapes(form: FileForm, prepared: Prepared) -> Prepared:
    """The same for runtimes that lay out their memory beforehand."""
    with evaluation_mode(form.loaded.model):
        whole = form.module(fixed_shapes=True)
    return dataclasses.replace(prepared, model=prepare(whole).cpu().float())


_Batches = list[tuple[Tensor, list[int]]]


def _batches(examples: Sequence[Tensor], prepared: Prepared) -> _Batches:
    """All inputs that are run, each with the numbers of its samples.

    Each sample, in batches of one size where a file takes batches; and one of another size.
    """
    batches: _Batches = [(one, [i]) for i, one in enumerate(examples)]
    if prepared.open_batch:
        sizes: dict[torch.Size, list[int]] = {}
        for i, one in enumerate(examples):
            sizes.setdefault(one.shape, []).append(i)
        groups = [(torch.cat([examples[i] for i in group]), group) for group in sizes.values()]
        batches = [(examples[0], []), *groups]
    if prepared.open_size:
        other = examples[0]
        for part, axis in enumerate(axis for axis in prepared.open_axes if axis):
            other = other.narrow(axis, 0, other.shape[axis] - other.shape[axis] // max(4 - part, 2))
        batches.append((other, []))
    return batches


@torch.no_grad()
def _outputs(model: torch.nn.Module, x: Tensor) -> list[Tensor]:
    first = next((tensor for tensor in (*model.parameters(), *model.buffers()) if tensor.is_floating_point()), x)
    found = model(x.to(first.device, first.dtype))
    return [found] if isinstance(found, Tensor) else list(found)


def _verify(
    kind: Format,
    path: Path,
    target: Path,
    form: FileForm,
    prepared: Prepared,
    batches: _Batches,
    expected: Sequence[Sequence[Tensor]],
    tolerance: float,
    truth: Sequence[Any] | None,
) -> dict[str, Any]:
    """What is found when the file is loaded back."""
    if kind.run is None:
        assert kind.inspect is not None
        return {"verified": False, **kind.inspect(path, prepared)}
    found = [[torch.from_numpy(np.asarray(one)) for one in kind.run(path, batch)] for batch, _ in batches]
    expected = [[one.cpu() for one in outputs] for outputs in expected]
    numbers: dict[str, Any] = form.compare(found, expected)
    if truth is not None:
        told = [truth[i] for _, numbered in batches for i in numbered]
        scores = [form.scores(_cut(side, batches), told) for side in (expected, found)]
        numbers |= {name: [one[name] for one in scores] for name in scores[0]}
    try:
        check(numbers, tolerance=tolerance, disagreement=form.disagreement(numbers), name=str(target))
    except VerificationError as error:
        if kind.name != "onnx":
            raise
        layer = first_difference(path, prepared, batches[0][0], tolerance)
        where = f"the first layer that differs is {layer}" if layer else "no single layer of it stands out"
        raise VerificationError(f"{error}; {where}") from error
    return {"verified": True, **numbers}


def _cut(outputs: Sequence[Sequence[Tensor]], batches: _Batches) -> list[list[Tensor]]:
    """Of each batch the outputs of its numbered samples."""
    return [[one[: len(own)] for one in some] for some, (_, own) in zip(outputs, batches, strict=True)]


def _move(folder: Path, target: Path) -> list[Path]:
    """Put all that a writer left in its folder in place, the old ones away; never are parts of both there together.

    Returns:
        What lies beside ``target`` now and belongs to it: the weights of OpenVINO's network.

    Raises:
        ValueError: A file there has the name of one of these, and came from elsewhere, as there is no ``target`` yet.
    """
    places = {path: target.parent / path.name for path in sorted(folder.iterdir())}
    beside = [place for place in places.values() if place != target]
    if not target.exists() and (others := [place for place in beside if place.exists()]):
        raise ValueError(f"{others[0]} is in the way, and no part of an earlier export: choose another name with --out")
    if beside:
        target.unlink(missing_ok=True)
    for path, place in sorted(places.items(), key=lambda pair: pair[1] == target):  # last of all
        if path.is_file():
            sync(path)
        elif place.is_dir():
            shutil.rmtree(place)
        os.replace(path, place)
    sync(target.parent)
    return beside


def _size(path: Path, beside: Sequence[Path]) -> dict[str, Any]:
    """Bytes of a file or a folder and what lies beside it, and hashes of files; a folder has no single one."""
    if path.is_dir():
        return {"bytes": sum(part.stat().st_size for part in path.rglob("*") if part.is_file()), "sha256": None}
    parts = {"parts": {one.name: sha256(one) for one in beside}} if beside else {}
    return {"bytes": sum(one.stat().st_size for one in (path, *beside)), "sha256": sha256(path), **parts}
