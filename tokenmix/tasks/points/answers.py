"""One cloud of a user -> the same cloud with a class for each point, a picture, and numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tokenmix.evaluate import evaluating
from tokenmix.files import atomic_path, short_name
from tokenmix.tasks.answer import Answer
from tokenmix.tasks.points.model import PointUNet
from tokenmix.tasks.points.normals import estimate_normals
from tokenmix.tasks.points.picture import draw_cloud, painted
from tokenmix.tasks.points.readers import read_cloud
from tokenmix.tasks.points.votes import look
from tokenmix.tasks.points.writers import write_answer
from tokenmix.text_tables import bar

_LARGEST = (960, 720)  # pixels of the picture


class CloudAnswers:
    """Answers files of clouds one by one, and writes each answer into a folder.

    Args:
        model: What classifies, on its device.
        classes: Names.
        features: What the model reads; normals are estimated where a cloud has none.
        voxel: Side of a voxel in metres.
        views: How a cloud is looked at, of `tokenmix.tasks.points.options.VIEWS`.
        folder: Where the answers go.
    """

    def __init__(
        self, model: PointUNet, classes: Sequence[str], features: Sequence[str], voxel: float, views: str, folder: Path
    ) -> None:
        self.model, self.classes, self.features = model, list(classes), tuple(features)
        self.voxel, self.views, self.folder = voxel, views, folder
        self._written: set[str] = set()

    def answer(self, path: str) -> Answer:
        """The answer to a file.

        Raises:
            CloudError: It cannot be read, or lacks what the model reads.
        """
        source = Path(path)
        cloud = read_cloud(source)
        if cloud.normal is None and "normal" in self.features:
            cloud = estimate_normals(cloud)
        with evaluating(self.model):
            probability = look(self.model, cloud, self.features, self.voxel, self.views)
        confidence, segment = (tensor.numpy() for tensor in probability.max(1))
        stem = self._free(source.stem)
        target = write_answer(source, self.folder / stem, cloud, segment, self.classes, confidence)
        drawing = self.folder / short_name(stem, ".png")
        with atomic_path(drawing) as temporary:
            colors = painted(segment, len(self.classes))
            draw_cloud(cloud.coord, colors, cloud.normal, width=_LARGEST[0], height=_LARGEST[1]).save(temporary, "PNG")
        counts = np.bincount(segment, minlength=len(self.classes))
        shares = [
            {"class": name, "share": round(count / len(cloud), 6), "points": count}
            for name, count in sorted(zip(self.classes, counts.tolist(), strict=True), key=lambda row: -row[1])
            if count
        ]
        values = {"points": len(cloud), "cloud": str(target), "drawing": str(drawing), "classes": shares}
        width = max(len(row["class"]) for row in shares)
        lines = [f"{path} -> {target}, {drawing}"]
        lines += [f"  {row['class']:<{width}}  {bar(row['share'])}  {100 * row['share']:5.1f} %" for row in shares]
        return Answer(values, lines, shares)

    def _free(self, stem: str) -> str:
        """A name for an answer; several files of one name are numbered."""
        number, name = 1, f"{stem}-points"
        while name.casefold() in self._written:  # some file systems do not tell A from a
            number += 1
            name = f"{stem}-points-{number}"
        self._written.add(name.casefold())
        return name
