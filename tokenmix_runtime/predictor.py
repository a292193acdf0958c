"""An exported file and a picture become an answer."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tokenmix_runtime.cores import cpu_quota, usable_cores
from tokenmix_runtime.images import MAX_PIXELS, ImageError, open_image, to_rgb
from tokenmix_runtime.manifest import Manifest, ModelError, check_task, read_manifest
from tokenmix_runtime.preprocess import enough, fit, normalised, resize_and_crop
from tokenmix_runtime.readings import View
from tokenmix_runtime.results import Result
from tokenmix_runtime.untrusted import regular_file

Picture = str | os.PathLike[str] | Image.Image | NDArray[np.uint8]
Array = NDArray[Any]
_LEFT: list[Any] = []  # of forked processes: sessions of the parent, whose end would wait for threads that are not here
_BATCH = 16  # pictures per run, where answers have no places


class Predictor:
    """A model in an ONNX file that ``tokenmix export`` wrote, run by ONNX Runtime on the CPU.

    Called with a picture it returns its answer, with a list of pictures a list of answers: a `Classification`,
    `Detections` (with masks where the model finds them) or a `SegmentMap`. A picture is the path of a file, an image of
    Pillow's, or a uint8 array, (H, W, 3) RGB or (H, W) grey. It is prepared as in training's evaluation.

    It can be copied and sent to other processes (joblib, Ray, Spark, gunicorn), which open the file anew; so does a
    process that was forked, since ONNX Runtime's threads do not come along.

    Args:
        path: The file.
        task: What the model must be for, one of `tokenmix_runtime.manifest.TASKS`; None: anything.
        threads: Of ONNX Runtime; None: as many as there are cores, or as a container's CPU quota allows.

    Raises:
        ImportError: onnxruntime is not installed.
        ModelError: The file is missing, damaged, not from ``tokenmix export``, or its model has another task.
        ImageError: In use, for a picture that cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str], *, task: str | None = None, threads: int | None = None) -> None:
        self.path = os.fspath(path)
        self._threads, self._process = threads, os.getpid()
        self._session = open_session(self.path, threads)
        self.manifest: Manifest = read_manifest(self.path, self._session.get_modelmeta().custom_metadata_map)
        self.task = self.manifest.task
        if task is not None:
            check_task(self.path, self.task, task)
        (source, *others) = self._session.get_inputs()
        graph = tuple(side if isinstance(side, int) else None for side in source.shape)
        if others or source.name != self.manifest.input_name or graph != self.manifest.shape:
            raise ModelError(
                f"the manifest inside {self.path} is that of another graph (input {source.name} {source.shape}): "
                "export the model again"
            )
        self._names = [output.name for output in self._session.get_outputs()]

    def __reduce__(self) -> tuple[Any, ...]:
        return _opened, (os.path.abspath(self.path), self.task, self._threads)

    def __call__(self, pictures: Picture | Sequence[Picture]) -> Any:
        """The answer for a picture, or a list of answers for a list of pictures."""
        if self._process != os.getpid():
            _LEFT.append(self._session)
            self._session, self._process = open_session(self.path, self._threads), os.getpid()
        if not isinstance(pictures, list | tuple):
            return self._answer([pictures])[0]  # type: ignore[list-item]
        batch, *shape = self.manifest.shape
        step = 1 if self.manifest.reading.placed or batch is not None or None in shape else _BATCH
        return [
            answer for begin in range(0, len(pictures), step) for answer in self._answer(pictures[begin : begin + step])
        ]

    def _answer(self, pictures: Sequence[Picture]) -> list[Result]:
        """Of one picture, or of several that become equally large."""
        stored = [self._open(picture) for picture in pictures]
        ready = [self._prepare(picture) for picture in stored]
        batch = np.stack([image for image, _ in ready])
        try:
            values = self._session.run(None, {self.manifest.input_name: batch})
        except Exception as error:  # onnxruntime has one class per status and no common public base
            raise ModelError(f"ONNX Runtime cannot run {self.path} on {batch.shape}: {_first_line(error)}") from None
        height, width = batch.shape[2:]
        views = [
            View((picture.height, picture.width), seen, (height, width))
            for picture, (_, seen) in zip(stored, ready, strict=True)
        ]
        try:
            return list(self.manifest.reading.read(dict(zip(self._names, values, strict=True)), self.manifest, views))
        except (KeyError, TypeError, ValueError, IndexError) as error:
            reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
            raise ModelError(f"the outputs of {self.path} are not those of its manifest: {reason}") from None

    def _open(self, picture: Picture) -> Image.Image:
        if isinstance(picture, str | os.PathLike):
            m = self.manifest
            reduced = not m.reading.placed and m.crop_mode != "fit" and "resize" not in m.inside
            return open_image(picture, at_least=enough(m.image_size, m.crop_pct) if reduced else None)
        if isinstance(picture, Image.Image):
            if picture.width * picture.height > MAX_PIXELS:
                raise ImageError(f"{picture.width} x {picture.height} pixels are over the limit of {MAX_PIXELS}")
            try:
                picture.load()
                return to_rgb(picture)
            except Exception as error:  # a file that Pillow has opened and not read yet
                raise ImageError(f"cannot read the image: {error}") from None
        array = np.asarray(picture)
        if (
            array.dtype != np.uint8
            or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3))
            or not array.size
        ):
            raise ImageError(
                "a picture is a path, an image of Pillow's, or a uint8 array (H, W, 3) or (H, W), not "
                f"{type(picture).__name__} of {array.dtype} and shape {array.shape}"
            )
        return Image.fromarray(array).convert("RGB")

    def _prepare(self, picture: Image.Image) -> tuple[Array, tuple[int, int]]:
        """The input (3, H, W), padded where it must be, and the height and width of the picture in it."""
        m = self.manifest
        if "resize" not in m.inside:
            if m.crop_mode == "fit":
                picture = fit(picture, m.image_size, interpolation=m.interpolation, within=m.shape[2:])
            else:
                picture = resize_and_crop(
                    picture,
                    m.image_size,
                    crop_pct=m.crop_pct,
                    interpolation=m.interpolation,
                    crop_mode=m.crop_mode,
                )
        seen = picture.height, picture.width
        if m.inside:
            image = np.asarray(picture).transpose(2, 0, 1).astype(m.dtype, order="C")
            fill = np.array([round(255 * value) for value in m.mean], m.dtype)
        else:
            image, fill = normalised(picture, m.mean, m.std), np.zeros(3, np.float32)
        canvas = np.empty(
            (3, *(max(fixed or 0, side) for fixed, side in zip(m.shape[2:], seen, strict=True))), image.dtype
        )
        canvas[:] = fill[:, None, None]
        canvas[:, : seen[0], : seen[1]] = image
        return canvas, seen


def _opened(path: str, task: str, threads: int | None) -> Predictor:
    """The model anew, in another process."""
    return Predictor(path, task=task, threads=threads)


def open_session(path: str, threads: int | None) -> Any:
    """ONNX Runtime's session of a file, on the CPU.

    Raises:
        ImportError: onnxruntime is not installed.
        ModelError: There is no such file, or it is damaged.
        ValueError: ``threads`` is below 1.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise ImportError("this needs onnxruntime, which is not installed: pip install onnxruntime") from error
    if not Path(path).exists() or Path(path).is_dir():
        raise ModelError(f"no such file: {path}")
    try:
        regular_file(path)
    except ValueError as error:
        raise ModelError(str(error)) from None
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be 1 or more, not {threads}")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised
    if threads is None and math.isfinite(cpu_quota()):  # which ONNX Runtime does not ask for
        threads = usable_cores()
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # see above
        raise ModelError(
            f"{path} is damaged, is no ONNX file, or needs a newer ONNX Runtime than {onnxruntime.__version__} "
            f"({_first_line(error)}): copy it again, or export it again"
        ) from None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
