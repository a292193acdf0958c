"""COCO's average precision, by COCO's own evaluator."""

from __future__ import annotations

import contextlib
import copy
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from tokenmix.metrics.base import Metric
from tokenmix.metrics.classification import NOTHING
from tokenmix.metrics.items import ItemScores, jackknife

_NUMBERS = ("AP", "AP50", "AP75", "APs", "APm", "APl")  # pycocotools' stats 0 to 5
GROUPS = 100  # of images, one of which is left out at a time
_KINDS = {"box": "bbox", "mask": "segm"}
ImageEntries = tuple[list[dict[str, Any]], list[dict[str, Any]], tuple[int, int]]  # found, truth, (height, width)


class CocoAP(Metric):
    """Detections and annotations as torchvision's dicts -> ``box_AP``, ``box_AP50``, ... and ``mask_AP``, in percent.

    AP is the mean over the classes and the IoU thresholds 0.5, 0.55, ..., 0.95 of the precision at 101 levels of
    recall, with the 100 best detections of an image; AP50 and AP75 are those of one threshold, APs, APm and APl those
    of annotations of an ``area`` below 32^2, up to 96^2 and above. pycocotools computes all of it. What
    does not exist (no annotation to be found) is NaN. A detection whose box or score is not finite finds nothing.

    Args:
        num_classes: K; labels are 1 .. K.
        masks: Whether to judge ``masks`` too.

    Raises:
        ValueError: pycocotools is not installed.

    Examples:
        >>> truth = {"boxes": torch.tensor([[2.0, 2.0, 9.0, 9.0]]), "labels": torch.tensor([1])}
        >>> target = [truth | {"iscrowd": torch.tensor([0]), "area": torch.tensor([49.0])}]
        >>> batch = {"target": target, "size": torch.tensor([[16, 16]]), "index": torch.tensor([0])}
        >>> metric = CocoAP(num_classes=2)
        >>> metric.update([truth | {"scores": torch.tensor([0.9])}], batch | {"mask": torch.tensor([True])})
        >>> round(metric.compute()["box_AP"], 6)
        100.0
    """

    def __init__(self, num_classes: int, *, masks: bool = False) -> None:
        super().__init__((1,))  # images
        try:
            import pycocotools.cocoeval  # noqa: F401
        except ImportError as error:
            raise ValueError("COCO's AP needs pycocotools: pip install 'tokenmix[detection]'") from error
        self.num_classes = num_classes
        self.kinds = ("box", "mask") if masks else ("box",)
        self.images: dict[int, ImageEntries] = {}  # that this process has seen
        self._everything: dict[int, ImageEntries] | None = None
        self._evaluators: dict[str, Any] | None = None

    def update(self, prediction: Sequence[dict[str, Tensor]], batch: dict[str, Any]) -> None:
        """Add a batch.

        Args:
            prediction: Of each image ``boxes`` (N, 4) left, top, right, bottom in pixels, ``labels`` (N,), ``scores``
                (N,), and ``masks`` (N, 1, H, W), probabilities or booleans, of which those above 0.5 are the mask.
            batch: ``target`` with the same without scores, and ``iscrowd`` (N,), ``area`` (N,), masks (N, H, W);
                ``size`` (B, 2), ``index`` (B,) and ``mask`` (B,): the images whose ``mask`` is False are left out.
        """
        self._everything = self._evaluators = None
        rows = zip(prediction, batch["target"], batch["size"].tolist(), batch["index"].tolist(), strict=True)
        for (found, target, size, index), counts in zip(rows, batch["mask"].tolist(), strict=True):
            if counts:
                truth = self._entries(target, index, ("iscrowd", "area"))
                self.images[index] = (self._entries(_all_finite(found), index, ("score",)), truth, tuple(size))
                self.add(torch.ones(1, dtype=self.sums.dtype))

    def _entries(self, values: dict[str, Tensor], index: int, more: Sequence[str]) -> list[dict[str, Any]]:
        """COCO's entries for the objects in an image."""
        names = ("boxes", "labels", *(name if name in values else f"{name}s" for name in more))  # "scores" is "score"
        columns = [values[name].detach().cpu().double().tolist() for name in names]
        entries = []
        for (left, top, right, bottom), label, *rest in zip(*columns, strict=True):
            box = [left, top, right - left, bottom - top]
            entry = {"image_id": index, "category_id": int(label), "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            entries.append(entry | dict(zip(more, rest, strict=True)))
        if "mask" in self.kinds:
            for entry, code in zip(entries, _encoded(values["masks"]), strict=True):
                entry["segmentation"] = code
        return entries

    def compute(self) -> dict[str, float]:
        """``{"box_AP": percent, ...}``, and ``mask_...`` where masks are judged."""
        judges = self._judges()
        return {
            f"{kind}_{name}": _percent(value)
            for kind, judge in judges.items()
            for name, value in zip(_NUMBERS, judge.stats, strict=False)
        }

    def by_class(self) -> list[dict[str, Any]]:
        """Of each class ``box_AP``, ``box_AP50``, ``box_AP75`` and ``box_precision``, and so for masks.

        The last is the precision at an IoU of 0.5 for each of 101 levels of recall from 0 to 1, in percent: the points
        of the PR curve. What does not exist is NaN or an empty list.
        """
        classes: list[dict[str, Any]] = [{} for _ in range(self.num_classes)]
        for kind, judge in self._judges().items():
            precision = judge.eval["precision"][:, :, :, 0, 2]  # (10 thresholds, 101 levels, K)
            for number, found in enumerate(classes):
                for name, part in (("AP", slice(None)), ("AP50", slice(0, 1)), ("AP75", slice(5, 6))):
                    found[f"{kind}_{name}"] = _percent(precision[part, :, number].mean())
                curve = precision[0, :, number]
                found[f"{kind}_precision"] = (100 * curve).tolist() if curve[0] >= 0 else []
        return classes

    def by_image(self) -> tuple[float, list[dict[str, Any]]]:
        """A score, and of each image how many objects were found, missed and false among detections of that score.

        It is the score at which F1 over all images is highest, 0.5 if nothing was detected. What matches is COCO's
        decision: masks, or else boxes, of the same class at an IoU of 0.5; crowds count for nothing. A row has
        ``index``, ``hits``, ``missed``, ``false`` and ``F1`` = 2 hits / (2 hits + missed + false) in percent, 100
        where nothing is there and nothing was detected.
        """
        judge = list(self._judges().values())[-1]
        parts = [part for part in judge.evalImgs if part and part["aRng"] == judge.params.areaRng[0]]
        there = dict.fromkeys(sorted(self.everything()), 0)
        columns: list[tuple[int, float, bool]] = []  # image, score, hit
        for part in parts:
            there[part["image_id"]] += int(len(part["gtIgnore"]) - np.sum(part["gtIgnore"]))
            rows = zip(part["dtScores"], part["dtMatches"][0] > 0, part["dtIgnore"][0], strict=True)
            columns += [(part["image_id"], score, bool(hit)) for score, hit, ignored in rows if not ignored]
        threshold = _best_score([score for _, score, _ in columns], [hit for *_, hit in columns], sum(there.values()))
        hits, false = dict.fromkeys(there, 0), dict.fromkeys(there, 0)
        for index, score, hit in columns:
            if score >= threshold:
                (hits if hit else false)[index] += 1
        told = []
        for index, count in there.items():
            wrong = count - hits[index] + false[index]
            f1 = 200 * hits[index] / (2 * hits[index] + wrong) if hits[index] + wrong else 100.0
            row = {"index": index, "hits": hits[index], "missed": count - hits[index], "false": false[index], "F1": f1}
            told.append(row)
        return threshold, told

    def item_scores(self, kind: str) -> ItemScores | None:
        """``box_AP`` or ``mask_AP`` in percent by image, see `tokenmix.metrics.items.jackknife`.

        Of many images it is by groups of neighbours, `GROUPS` at most: COCO's evaluator runs once for each. None where
        there are fewer than two images or nothing to be found.

        Args:
            kind: ``"box"`` or ``"mask"``.
        """
        judge = self._judges()[kind]
        images = list(judge.params.imgIds)
        whole = _percent(judge.stats[0])
        if len(images) < 2 or math.isnan(whole):
            return None
        groups = np.array_split(np.arange(len(images)), min(len(images), GROUPS))
        kept, most = judge.eval, judge.params.maxDets[-1:]
        without = []
        with contextlib.redirect_stdout(io.StringIO()):
            for group in groups:
                params = copy.copy(judge.params)
                params.areaRng, params.maxDets = params.areaRng[:1], most
                params.imgIds = [None if place in group else image for place, image in enumerate(images)]
                judge.accumulate(params)
                precision = judge.eval["precision"]
                without.append(100 * float(precision[precision > -1].mean()) if (precision > -1).any() else 0.0)
        judge.eval = kept
        noun = "images" if len(groups) == len(images) else f"groups of {-(-len(images) // len(groups))} images"
        return ItemScores(jackknife(whole, without), noun)

    def everything(self) -> dict[int, ImageEntries]:
        """By index, of the images of all processes, in order: COCO's entries of what was found and is there, the size.

        Every process must call this.
        """
        if self._everything is None:
            images = self.images
            if dist.is_available() and dist.is_initialized():
                parts: list[Any] = [None] * dist.get_world_size()
                dist.all_gather_object(parts, images)
                images = {index: found for part in parts for index, found in part.items()}
            self._everything = {index: images[index] for index in sorted(images)}
        return self._everything

    def _judges(self) -> dict[str, Any]:
        """COCO's evaluator of each kind, over the images of all processes."""
        if self._evaluators is None:
            self._evaluators = self._evaluated()
        return self._evaluators

    def _evaluated(self) -> dict[str, Any]:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        if not self.total().item():
            raise ValueError(NOTHING)
        images, judges = self.everything(), {}
        with contextlib.redirect_stdout(io.StringIO()):
            for kind in self.kinds:
                truth, found = COCO(), COCO()
                for side, column in ((truth, 1), (found, 0)):
                    side.dataset = self._content(images, column, kind)
                    side.createIndex()
                judge = COCOeval(truth, found, _KINDS[kind])
                judge.evaluate()
                judge.accumulate()
                judge.summarize()
                judges[kind] = judge
        return judges

    def _content(self, images: dict[int, Any], column: int, kind: str) -> dict[str, list[dict[str, Any]]]:
        """What COCO's file would hold: the annotations (1) or what was found (0), which is as large as its mask."""
        import pycocotools.mask

        entries = [entry for image in images.values() for entry in image[column]]
        if kind == "mask" and column == 0:
            entries = [entry | {"area": float(pycocotools.mask.area(entry["segmentation"]))} for entry in entries]
        return {
            "images": [{"id": index, "height": size[0], "width": size[1]} for index, (*_, size) in images.items()],
            "categories": [{"id": number} for number in range(1, self.num_classes + 1)],
            "annotations": [entry | {"id": number} for number, entry in enumerate(entries, 1)],
        }


def _all_finite(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same, where a detection whose box or score is not finite is an empty one: NaN passes all of COCO's limits."""
    known = found["scores"].isfinite()
    lost = ~(known & found["boxes"].isfinite().all(1))
    if not lost.any():
        return found
    emptied = {"boxes": found["boxes"].masked_fill(lost[:, None], 0.0), "scores": found["scores"].where(known, 1.0)}
    if "masks" in found:
        masks = found["masks"].clone()
        masks[lost] = 0
        emptied["masks"] = masks
    return {**found, **emptied}


def _encoded(masks: Tensor) -> list[dict[str, Any]]:
    """(N, H, W) or (N, 1, H, W) -> COCO's run-length codes"""
    import pycocotools.mask

    masks = masks[:, 0] if masks.ndim == 4 else masks
    values = ((mask > 0.5).to(torch.uint8).cpu().numpy() for mask in masks)  # one at a time: all would be gigabytes
    return [pycocotools.mask.encode(np.asfortranarray(value)) for value in values]


def _best_score(scores: Sequence[float], hits: Sequence[bool], there: int) -> float:
    """The score from which on detections have the highest F1; 0.5 if there is no detection.

    Args:
        scores: Of the detections.
        hits: Whether each has found an object.
        there: How many objects there are.
    """
    if not scores:
        return 0.5
    order = np.argsort(-np.asarray(scores), kind="stable")
    ranked = np.asarray(scores)[order]
    found = np.asarray(hits)[order].cumsum()
    f1 = 2 * found / (np.arange(1, len(ranked) + 1) + there)
    last = np.append(ranked[1:] < ranked[:-1], True)  # of those with an equal score: a threshold takes all of them
    return float(ranked[np.where(last, f1, -1.0).argmax()])


def _percent(value: float) -> float:
    """COCO's -1 means that there is no such number."""
    return 100 * float(value) if value > -1 else math.nan
