"""The manifest inside an exported file: what the model takes and returns, checked before anything is run."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenmix_runtime.names import unknown
from tokenmix_runtime.preprocess import CROP_MODES, INTERPOLATIONS
from tokenmix_runtime.readings import READINGS, Reading
from tokenmix_runtime.untrusted import LIMITS, image_problem, norm_problem, parse_json, read_json, shown

FAMILY, NEWEST = "tokenmix.model/", 2
TASKS = tuple(sorted({task for reading in READINGS.values() for task in reading.tasks}))
INSIDE: tuple[list[str], ...] = ([], ["normalize"], ["resize"], ["resize", "normalize"])  # resizing brings normalising
# What the manifest beside a file, which tells of files in several formats, must say as the one inside does.
SAME = ("model", "task", "head", "labels", "preprocess", "postprocess")


class ModelError(ValueError):
    """A model file that cannot be used; the message says why and what to do.

    Examples:
        >>> from tokenmix_runtime import Predictor
        >>> try:
        ...     predict = Predictor("another.onnx")
        ... except ModelError as error:  # not a file of ``tokenmix export``
        ...     print("another file, please:", error)  # doctest: +SKIP
    """


@dataclass(frozen=True)
class Manifest:
    """What `Predictor` knows about a file.

    Attributes:
        task: One of `TASKS`.
        model: The architecture's name.
        labels: Names of the classes, of a detector from label 1 on; None if nobody knows them.
        input_name: Of the graph's input.
        shape: Its (batch, channels, height, width); None where any is taken.
        dtype: Its type, ``"float32"`` or ``"uint8"``.
        image_size: (height, width) in pixels to which pictures are scaled.
        mean: Per channel, of values in 0..1.
        std: Per channel, of values in 0..1.
        crop_pct: See `tokenmix_runtime.preprocess.resize_and_crop`.
        crop_mode: ``"center"``, ``"squash"``; ``"fit"``, see `tokenmix_runtime.preprocess.fit`; or ``"none"``, of
            graphs that enlarge pictures, which go in as they are.
        interpolation: ``"bicubic"`` or ``"bilinear"``.
        inside: The steps of preparation that the graph does itself: ``"normalize"``, ``"resize"``.
        postprocess: ``kind``, ``inside``, ``multiple``, and what the kind needs.
        content: The whole manifest, as it stands in the file.

    Examples:
        >>> from tokenmix_runtime import Predictor
        >>> Predictor("photos.onnx").manifest.image_size  # doctest: +SKIP
        (96, 96)
    """

    task: str
    model: str
    labels: tuple[str, ...] | None
    input_name: str
    shape: tuple[int | None, int | None, int | None, int | None]
    dtype: str
    image_size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_pct: float
    crop_mode: str
    interpolation: str
    inside: tuple[str, ...]
    postprocess: Mapping[str, Any]
    content: Mapping[str, Any]

    @property
    def reading(self) -> Reading:
        """How its outputs become an answer."""
        return READINGS[self.postprocess["kind"]]

    def names(self, used: range, *, first: int = 0, whole: bool = False) -> tuple[str, ...]:
        """The names of all classes, of which these occur, or are all there are; without a name they are numbered.

        Raises:
            ValueError: There are other classes than the labels name.
        """
        if self.labels is None and used.start >= 0:
            return tuple(f"class {first + i}" for i in range(used.stop))
        known = self.labels or ()
        if used.start < 0 or used.stop > len(known) or (whole and used.stop != len(known)):
            raise ValueError(f"classes {used.start} to {used.stop - 1}, and {len(known)} labels")
        return known


def read_manifest(path: str | os.PathLike[str], metadata: Mapping[str, str]) -> Manifest:
    """The manifest in an ONNX file's metadata; the one beside the file, ``STEM.json``, must agree if there is one.

    Args:
        path: The file, for messages and for its neighbour.
        metadata: Its metadata: a JSON value for each key.

    Raises:
        ModelError: There is no manifest of ours, it is newer than this code, damaged or inconsistent, or the file is
            not the one that its neighbour describes.
    """
    content = inner_manifest(path, metadata)
    name, version = os.fspath(path), _version(content["schema"])
    after = content.get("postprocess")
    if isinstance(after, dict) and "horizon" in after:
        raise ModelError(
            f"{name} forecasts series: tokenmix forecast CSV --model {name}, or python -m tokenmix_runtime.forecaster"
        )
    try:
        return _parsed(content if version == 2 else _from_first(content))
    except KeyError as error:
        raise ModelError(f"the manifest inside {name} lacks {error}: export the model again") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"the manifest inside {name} is wrong ({error}): export the model again") from None


def inner_manifest(path: str | os.PathLike[str], metadata: Mapping[str, str]) -> dict[str, Any]:
    """The JSON values of the manifest in an ONNX file's metadata, whatever its model does; see `read_manifest`.

    Raises:
        ModelError: See `read_manifest`; what the values say is not checked.
    """
    name = os.fspath(path)
    if "schema" not in metadata:
        raise ModelError(f"{name} has no manifest of tokenmix inside: write the file with tokenmix export")
    try:
        content = {key: parse_json(value) for key, value in metadata.items()}
    except ValueError as error:
        raise ModelError(f"the manifest inside {name} is damaged ({error}): export the model again") from None
    version = _version(content["schema"])
    if version is None:
        raise ModelError(f"the manifest inside {name} is damaged, or is not tokenmix's: export the model again")
    if version > NEWEST:
        raise ModelError(f"{name} was written by a newer tokenmix ({content['schema']}): update this one")
    _compare_neighbour(Path(path), content)
    return content


def _version(schema: Any) -> int | None:
    number = schema.removeprefix(FAMILY) if isinstance(schema, str) and schema.startswith(FAMILY) else ""
    return int(number) if number.isdecimal() and len(number) < 10 else None


def _compare_neighbour(path: Path, content: Mapping[str, Any]) -> None:
    """Raise unless ``STEM.json``, if it is a manifest of ours and names the file, describes just this one."""
    neighbour = path.with_suffix(".json")
    if not neighbour.exists():
        return
    try:
        beside = read_json(neighbour)
    except (OSError, ValueError) as error:
        raise ModelError(f"{neighbour}, the manifest beside {path.name}, cannot be read ({error}): remove it") from None
    if not isinstance(beside, dict) or _version(beside.get("schema")) is None:
        return
    files = beside.get("files")
    entry = files.get("onnx") if isinstance(files, dict) else None
    if not isinstance(entry, dict) or entry.get("file") != path.name:
        return
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != entry.get("sha256"):
            raise ModelError(
                f"{path} is not the file that {neighbour.name} describes (another SHA-256): it was changed or not "
                "copied whole; copy both again"
            )
    changed = [key for key in SAME if content.get(key) != beside.get(key)]
    if changed:
        raise ModelError(
            f"{neighbour} and the manifest inside {path.name} differ in {', '.join(changed)}: copy both from one "
            "export, or remove the former"
        )


def _from_first(content: Mapping[str, Any]) -> dict[str, Any]:
    """Schema 1, which only knew classifiers, in the words of schema 2."""
    names = ("mean", "std", "crop_pct", "crop_mode", "interpolation")
    unsaid = [name for name in names if content[name] is None]
    if unsaid:
        raise ValueError(f"nothing is said about {', '.join(unsaid)}")
    shape = content["input"]["shape"]
    return {
        **content,
        "task": "classification",
        "preprocess": {**{name: content[name] for name in names}, "image_size": shape[2:], "inside": []},
        "postprocess": {"kind": "softmax", "inside": False, "multiple": 1},
    }


def _parsed(content: Mapping[str, Any]) -> Manifest:
    source, before, after = content["input"], content["preprocess"], content["postprocess"]
    labels, task, kind = content["labels"], content["task"], after["kind"]
    height, width = (int(side) for side in before["image_size"])
    shape = tuple(side if isinstance(side, int) else None for side in source["shape"])
    if len(shape) != 4 or shape[1] != 3:
        raise ValueError(
            f"an input of shape {shown(source['shape'])}, and only RGB images, (B, 3, H, W), can be prepared"
        )
    taken = [None, None] if "resize" in before["inside"] else [height, width]
    if shape[2:] != (None, None) and list(shape[2:]) != taken and before["crop_mode"] != "fit":
        raise ValueError(
            f"pictures would be {'of any size' if taken[0] is None else taken}, and the input takes {list(shape[2:])}"
        )
    inside = before["inside"]
    rules = [
        ("task", task, task in TASKS),
        ("postprocess.kind", kind, isinstance(kind, str) and kind in READINGS and task in READINGS[kind].tasks),
        ("postprocess.inside", after["inside"], isinstance(after["inside"], bool)),
        ("postprocess.multiple", after["multiple"], _counts(after["multiple"], 1)),
        ("mean", before["mean"], len(before["mean"]) == 3),
        ("std", before["std"], len(before["std"]) == 3),
        ("crop_mode", before["crop_mode"], before["crop_mode"] in _modes(kind)),
        ("postprocess.scale", after.get("scale", 1), _counts(after.get("scale", 1), 1)),
        ("postprocess.radius", after.get("radius"), after.get("radius") is None or _counts(after["radius"], 0)),
        *((f"postprocess.{name}", after[name], holds(after[name])) for name, holds in _RULES.items() if name in after),
        ("interpolation", before["interpolation"], before["interpolation"] in INTERPOLATIONS),
        ("preprocess.inside", inside, list(inside) in INSIDE),
        ("input.dtype", source["dtype"], source["dtype"] in (("float32", "uint8") if inside else ("float32",))),
        (
            "labels",
            labels,
            labels is None
            or (
                (isinstance(labels, list) and all(isinstance(label, str) for label in labels))
                and len(labels) <= LIMITS["classes"]
            ),
        ),
    ]
    for name, value, holds in rules:
        if not holds:
            raise ValueError(f"{name} is {shown(value)}")
    if problem := image_problem([height, width], before["crop_pct"]) or norm_problem(before["mean"], before["std"]):
        raise ValueError(problem)
    return Manifest(
        task=task,
        model=str(content["model"]),
        labels=None if labels is None else tuple(labels),
        input_name=str(source["name"]),
        shape=(shape[0], shape[1], shape[2], shape[3]),
        dtype=source["dtype"],
        image_size=(height, width),
        mean=tuple(map(float, before["mean"])),
        std=tuple(map(float, before["std"])),
        crop_pct=float(before["crop_pct"]),
        crop_mode=before["crop_mode"],
        interpolation=before["interpolation"],
        inside=tuple(inside),
        postprocess=after,
        content=content,
    )


def _modes(kind: Any) -> tuple[str, ...]:
    """The crop modes that files with that postprocessing may have."""
    enlarges = isinstance(kind, str) and kind in READINGS and READINGS[kind].enlarges
    return ("none",) if enlarges else (*CROP_MODES, "fit")


def _counts(value: Any, least: int) -> bool:
    """Whether a value is a whole number of pixels, or of times, that a picture can have."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= LIMITS["side"]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _are_factors(values: Any) -> bool:
    return isinstance(values, list) and all(_is_number(value) and value != 0 for value in values)


def _are_levels(levels: Any) -> bool:
    return isinstance(levels, list) and all(level["stride"] is None or _counts(level["stride"], 1) for level in levels)


# What holds of the numbers by which boxes are decoded, where a kind has them; JSON's are finite.
_RULES: Mapping[str, Callable[[Any], bool]] = {
    "levels": _are_levels,
    "variances": _are_factors,
    "weights": _are_factors,
    "max_log_size": _is_number,
    "score_threshold": _is_number,
    "nms_threshold": _is_number,
    "candidates": lambda value: isinstance(value, int) and value >= 1,
    "max_detections": lambda value: isinstance(value, int) and value >= 1,
}


def check_task(name: str, task: str, wanted: str) -> None:
    """Raise unless a model has the wanted task.

    Raises:
        ValueError: There is no such task.
        ModelError: The model has another one.
    """
    if wanted not in TASKS:
        raise ValueError(unknown("task", wanted, TASKS))
    if task != wanted:
        raise ModelError(f"{name} is a model for {task}, and one for {wanted} is needed")
