"""An exported file and a picture become an answer."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tokenmix_runtime.enlarging import enlarge, window_side
from tokenmix_runtime.images import MAX_PIXELS, ImageError, open_image, to_rgb
from tokenmix_runtime.manifest import Manifest, ModelError, check_task, read_manifest
from tokenmix_runtime.preprocess import enough, fit, normalised, resize_and_crop
from tokenmix_runtime.readings import View
from tokenmix_runtime.results import Result
from tokenmix_runtime.session import Session, first_line

Picture = str | os.PathLike[str] | Image.Image | NDArray[np.uint8]
Array = NDArray[Any]
_BATCH = 16  # pictures per run, where answers have no places


class Predictor:
    """A model in an ONNX file that ``tokenmix export`` wrote, run by ONNX Runtime on the CPU.

    Called with a picture it returns its answer, with a list of pictures a list of answers: a `Classification`,
    `Detections` (with masks where the model finds them), a `SegmentMap`, or the picture `Enlarged`. A picture is the
    path of a file, an image of Pillow's, or a uint8 array, (H, W, 3) RGB or (H, W) grey. It is prepared as in
    training's evaluation.

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

    Examples:
        >>> from tokenmix_runtime import Predictor
        >>> predict = Predictor("photos.onnx")  # doctest: +SKIP
        >>> predict("cat.jpg").top(2)  # doctest: +SKIP
        [('cat', 0.98), ('dog', 0.02)]
    """

    def __init__(self, path: str | os.PathLike[str], *, task: str | None = None, threads: int | None = None) -> None:
        self.path = os.fspath(path)
        self._threads, self._session = threads, Session(self.path, threads)
        self.manifest: Manifest = read_manifest(self.path, self._session.here().get_modelmeta().custom_metadata_map)
        self.task = self.manifest.task
        if task is not None:
            check_task(self.path, self.task, task)
        graph = [
            (source.name, tuple(side if isinstance(side, int) else None for side in source.shape))
            for source in self._session.here().get_inputs()
        ]
        if graph != [(self.manifest.input_name, self.manifest.shape)]:
            told = ", ".join(f"{name} {shape}" for name, shape in graph) or "none"
            raise ModelError(
                f"the manifest inside {self.path} is that of another graph (input {told}): export the model again"
            )
        self._names = [output.name for output in self._session.here().get_outputs()]

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(Predictor, os.path.abspath(self.path), task=self.task, threads=self._threads), ()

    def __call__(self, pictures: Picture | Sequence[Picture]) -> Any:
        """The answer for a picture, or a list of answers for a list of pictures."""
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
        height, width = batch.shape[2:]
        views = [
            View((picture.height, picture.width), seen, (height, width))
            for picture, (_, seen) in zip(stored, ready, strict=True)
        ]
        run = self._enlarge if self.manifest.reading.enlarges else self._run
        try:
            return list(self.manifest.reading.read(run(batch), self.manifest, views))
        except (ModelError, ImageError):
            raise
        except (LookupError, TypeError, ValueError, ArithmeticError) as error:
            reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
            raise ModelError(f"the outputs of {self.path} are not those of its manifest: {reason}") from None

    def _run(self, batch: Array) -> dict[str, Array]:
        """The graph's outputs by their names."""
        try:
            values = self._session.run({self.manifest.input_name: batch})
        except Exception as error:  # onnxruntime has one class per status and no common public base
            raise ModelError(f"ONNX Runtime cannot run {self.path} on {batch.shape}: {first_line(error)}") from None
        if not all(np.isfinite(value).all() for value in values if np.issubdtype(value.dtype, np.floating)):
            raise ModelError(f"{self.path} computes no finite numbers for this picture")
        return dict(zip(self._names, values, strict=True))

    def _enlarge(self, batch: Array) -> dict[str, Array]:
        """The one picture of a batch made larger, as the graph's only output."""
        rules, (image,) = self.manifest.postprocess, batch
        scale, radius = rules["scale"], rules.get("radius")
        sides = window_side((image.shape[1], image.shape[2]), self.manifest.shape[2:], radius)
        return {"enlarged": enlarge(lambda window: self._run(window)["enlarged"], image, scale, sides, radius)}

    def _open(self, picture: Picture) -> Image.Image:
        if isinstance(picture, str | os.PathLike):
            m = self.manifest
            reduced = not m.reading.placed and m.crop_mode != "fit" and "resize" not in m.inside
            return open_image(picture, at_least=enough(m.image_size, m.crop_pct) if reduced else None)
        if isinstance(picture, Image.Image):
            if not picture.width * picture.height:
                raise ImageError("the picture has no pixels")
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
            elif m.crop_mode != "none":
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
            fill = np.array([255 * value if m.dtype == "float32" else round(255 * value) for value in m.mean], m.dtype)
        else:
            image, fill = normalised(picture, m.mean, m.std), np.zeros(3, np.float32)
        if m.reading.enlarges:
            return image, seen
        canvas = np.empty(
            (3, *(max(fixed or 0, side) for fixed, side in zip(m.shape[2:], seen, strict=True))), image.dtype
        )
        canvas[:] = fill[:, None, None]
        canvas[:, : seen[0], : seen[1]] = image
        return canvas, seen
