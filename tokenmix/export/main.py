"""`tokenmix export` as a function: prepare once, then write, verify and keep a file per format."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tokenmix.checkpoints import LoadedModel, open_model
from tokenmix.export.extras import matching
from tokenmix.export.fixed import with_fixed_shapes
from tokenmix.export.formats import FORMATS, PRECISIONS, Format
from tokenmix.export.intermediate import first_difference
from tokenmix.export.manifest import add_file, describe
from tokenmix.export.onnx import ExportError
from tokenmix.export.pictures import inputs, labels_of, readable
from tokenmix.export.prepare import Prepared, evaluation_mode, prepare
from tokenmix.export.verify import TOLERANCES, VerificationError, check, compare
from tokenmix.export.wrap import check_inside, wrap
from tokenmix.files import new_folders, sha256, sync
from tokenmix.limits import check_number
from tokenmix.names import unknown
from tokenmix.runtime.preprocess import height_width
from tokenmix.shortage import shortage

Pictures = Tensor | str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def export(
    source: str | os.PathLike[str] | LoadedModel,
    formats: Sequence[str] = ("onnx",),
    out: str | os.PathLike[str] = "model",
    *,
    image_size: int | Sequence[int] | None = None,
    dynamic_batch: bool | None = None,
    dynamic_size: bool = False,
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
        source: What `tokenmix.checkpoints.open_model` takes, or what it returns.
        formats: Names of `tokenmix.export.formats.FORMATS`.
        out: The stem, or the name of a file of the one format.
        image_size: Height and width in pixels, or one number for both; default: the model's. Fixed in the file
            unless ``dynamic_size``. Detectors pad it inside the file.
        dynamic_batch: Files take any batch size; default: where formats and post-processing can.
        dynamic_size: Files take pictures of any size; ``"resize"`` inside implies it.
        precision: ``"fp32"``, ``"fp16"`` or ``"int8"``; inputs and outputs stay float32.
        inside: What the file does itself: ``"resize"`` (pictures of any size) and ``"normalize"``, both for values
            of 0..255; ``"softmax"``, ``"argmax"`` or ``"nms"`` (boxes, decoded and suppressed).
        images: To verify with: files, a folder, or inputs (N, 3, H, W) ready for the file; default: photographs that
            scikit-image or scikit-learn bring along, else noise. For a classifier's pictures in folders named after
            its classes the manifest has the accuracy in PyTorch and in the file too. Files that cannot be read are left
            out with a warning.
        calibration: To choose the ranges of int8 with, likewise; needed for it.
        tolerance: Largest relative error to accept; default: `TOLERANCES` of the precision.

    Raises:
        ImportError: A format's packages are missing; the message gives the command that installs them.
        ExportError: The model cannot be written in a format.
        VerificationError: A file computes something else; for ONNX the message names the first layer that differs.
        ValueError: An option is unknown or does not fit the model or the format.
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
    opened = source if isinstance(source, LoadedModel) else open_model(source)
    parts = check_inside(opened, inside)
    dynamic_size = dynamic_size or "resize" in parts
    single = opened.task == "instances" or "nms" in parts
    if single and dynamic_size:
        raise ValueError("a file with box decoding inside takes one size: leave out 'nms', or the dynamic size")
    if single and dynamic_batch:
        raise ValueError("a file with box decoding inside takes one picture at a time: leave out the dynamic batch")
    if dynamic_batch is None:
        dynamic_batch = not single and all(kind.dynamic_batch and not kind.fixed_by_default for kind in kinds)
    for kind in kinds:
        for wanted, can, what in (
            (dynamic_batch, kind.dynamic_batch, "batch"),
            (dynamic_size, kind.dynamic_size, "size"),
        ):
            if wanted and not can:
                raise ValueError(f"{kind.name} files have a fixed {what}: leave the dynamic {what} out, or the format")

    size = height_width(opened.image_size if image_size is None else image_size)
    images, calibration = readable(images), readable(calibration)
    examples, what = inputs(images, opened, size, parts)
    labels = labels_of(images, opened.classes) if opened.task == "classification" else None
    ranges = inputs(calibration, opened, size, parts)[0] if calibration is not None else examples
    with evaluation_mode(opened.model):
        whole, names = wrap(opened, size, parts)
    prepared = Prepared(
        prepare(whole).cpu().float(),
        _sample(size, len(opened.mean), dynamic_batch, "resize" in parts),
        "image",
        names,
        dynamic_batch,
        dynamic_size,
        opened.name if opened.head is None else f"{opened.name} with {opened.head}",
    )
    try:
        outputs = _outputs(prepared.model, prepared.sample)
        batches = _batches(examples, prepared)
        with evaluation_mode(whole):
            expected = [_outputs(whole, batch) for batch, _ in batches]
    except (RuntimeError, AssertionError) as error:
        if shortage(error):
            raise
        raise ValueError(f"{prepared.name} cannot take images of {size[0]} x {size[1]} pixels: {error}") from error
    manifest = describe(opened, prepared, outputs, size, parts) | {"precision": precision}
    limit = TOLERANCES[precision] if tolerance is None else tolerance

    with new_folders(stem.parent):
        failures: list[ValueError] = []
        for kind in kinds:
            target = stem.with_name(stem.name + kind.suffix)
            with tempfile.TemporaryDirectory(prefix=f".{stem.name}.", suffix=".tmp", dir=stem.parent) as folder:
                path = Path(folder) / target.name
                given = with_fixed_shapes(prepared) if kind.fixed_shapes else prepared
                try:
                    facts = kind.write(given, path, precision, ranges)
                    if kind.embed is not None:
                        kind.embed(path, manifest)
                    numbers = _verify(kind, path, target, given, batches, expected, limit, labels)
                    facts["errors"] = {"images": len(examples), "source": what, **numbers}
                except ValueError as error:
                    failures.append(error)
                    continue
                _move(Path(folder), stem.parent)
            facts = {"file": target.name, **_size(target), "precision": precision, **facts}
            facts["input_shape"] = manifest["input"]["shape"]
            written = add_file(stem.with_name(stem.name + ".json"), manifest, kind.name, facts)
        if len(failures) == 1:
            raise failures[0]
        if failures:
            raise ExportError("\n".join(map(str, failures)))
    return written


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
    own = {kind.suffix: kind for kind in FORMATS.values()}
    if stem.suffix in own:
        if [own[stem.suffix]] != kinds:
            raise ValueError(f"{stem} is no name for {' and '.join(formats)}: leave its ending out")
        stem = stem.with_suffix("")
    elif stem.is_dir():
        raise ValueError(f"{stem} is a folder: name a file with --out, such as {stem / 'model'}")
    for kind in kinds:
        target = stem.with_name(stem.name + kind.suffix)
        if target.is_dir() and not kind.folder:
            raise ValueError(f"{target} is a folder: name a file with --out")
    return kinds, stem


def _sample(size: tuple[int, int], chans: int, dynamic_batch: bool, whole_picture: bool) -> Tensor:
    """An example input. Batch 2 where it is dynamic: torch.export takes a size of 1 for a constant."""
    height, width = (2 * side + 1 for side in size) if whole_picture else size
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2 if dynamic_batch else 1, chans, height, width, generator=generator)


_Batches = list[tuple[Tensor, list[int]]]


def _batches(examples: Sequence[Tensor], prepared: Prepared) -> _Batches:
    """All inputs that are run, each with the numbers of its pictures.

    Each picture, in batches of one size where a file takes batches; and one of another size.
    """
    batches: _Batches = [(one, [i]) for i, one in enumerate(examples)]
    if prepared.dynamic_batch:
        sizes: dict[torch.Size, list[int]] = {}
        for i, one in enumerate(examples):
            sizes.setdefault(one.shape, []).append(i)
        groups = [(torch.cat([examples[i] for i in group]), group) for group in sizes.values()]
        batches = [(examples[0], []), *groups]
    if prepared.dynamic_size:
        height, width = examples[0].shape[2:]
        batches.append((examples[0][:, :, : height - height // 4, : width - width // 3], []))
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
    prepared: Prepared,
    batches: _Batches,
    expected: Sequence[Sequence[Tensor]],
    tolerance: float,
    labels: Sequence[int] | None,
) -> dict[str, Any]:
    """What is found when the file is loaded back."""
    if kind.run is None:
        assert kind.inspect is not None
        return {"verified": False, **kind.inspect(path, prepared)}
    found = [kind.run(path, batch) for batch, _ in batches]
    numbers: dict[str, Any] = {**compare(prepared.output_names, found, expected)}
    if labels is not None:
        truth = torch.tensor([labels[i] for _, numbered in batches for i in numbered])
        both = [[output[0] for output in expected], [torch.from_numpy(output[0]) for output in found]]
        answers = [
            torch.cat([output[: len(numbered)].argmax(1) for output, (_, numbered) in zip(one, batches, strict=True)])
            for one in both
        ]
        numbers["top1"] = [100.0 * float((one == truth).double().mean()) for one in answers]
    try:
        check(numbers, tolerance=tolerance, name=str(target))
    except VerificationError as error:
        if kind.name != "onnx":
            raise
        layer = first_difference(path, prepared, batches[0][0], tolerance)
        where = f"the first layer that differs is {layer}" if layer else "no single layer of it stands out"
        raise VerificationError(f"{error}; {where}") from error
    return {"verified": True, **numbers}


def _move(folder: Path, target: Path) -> None:
    """Put all that a writer left in its folder in place, the old ones away."""
    for path in sorted(folder.iterdir()):
        place = target / path.name
        if path.is_file():
            sync(path)
        elif place.is_dir():
            shutil.rmtree(place)
        os.replace(path, place)
    sync(target)


def _size(path: Path) -> dict[str, Any]:
    """Bytes and hash of a file, or the bytes of a folder, which has no single hash."""
    if path.is_file():
        return {"bytes": path.stat().st_size, "sha256": sha256(path)}
    return {"bytes": sum(part.stat().st_size for part in path.rglob("*") if part.is_file()), "sha256": None}
