"""Small ONNX files with a manifest, for the run-time: of graphs that always answer the same, and of real models."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from tokenmix.export import prepare
from tokenmix.files import sha256
from tokenmix.heads import HEADS

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_NUMBERS = np.random.default_rng(0)
_ONE_STAGE = {"score_threshold": 0.0, "candidates": 9, "nms_threshold": 0.5, "max_detections": 9}
_FOUND = {
    "boxes": np.array([[1, 1, 5, 6], [2, 2, 7, 7]], np.float32),
    "scores": np.array([0.9, 0.8], np.float32),
    "labels": np.array([1, 3]),
}
# The outputs of a file of each kind, for pictures of 8 x 8 and three classes, its task and its postprocess.
KINDS: dict[str, tuple[dict[str, np.ndarray], str, dict[str, Any]]] = {
    "logits": ({"logits": _NUMBERS.random((1, 3), np.float32)}, "classification", {"kind": "softmax"}),
    "probabilities": (
        {"probabilities": np.array([[0.2, 0.5, 0.3]], np.float32)},
        "classification",
        {"kind": "softmax", "inside": True},
    ),
    "maps": (
        {"logits": _NUMBERS.random((1, 3, 2, 2), np.float32)},
        "segmentation",
        {"kind": "argmax", "align_corners": False},
    ),
    "classes": (
        {"classes": _NUMBERS.integers(0, 3, (1, 8, 8)).astype(np.int32)},
        "segmentation",
        {"kind": "argmax", "inside": True},
    ),
    "ssdlite": (
        {"scores": _NUMBERS.random((1, 1, 4), np.float32), "boxes": np.zeros((1, 1, 4), np.float32)},
        "detection",
        {
            "kind": "ssdlite",
            "levels": [{"stride": 8, "anchors": [[0.2, 0.2]]}],
            "variances": [0.1, 0.2],
            **_ONE_STAGE,
        },
    ),
    "retinanet": (
        {"scores": _NUMBERS.random((1, 1, 3), np.float32), "boxes": np.zeros((1, 1, 4), np.float32)},
        "detection",
        {
            "kind": "retinanet",
            "levels": [{"stride": 8, "anchors": [[-4, -4, 4, 4]]}],
            "weights": [1, 1, 1, 1],
            "max_log_size": 4,
            **_ONE_STAGE,
        },
    ),
    "detections": (_FOUND, "detection", {"kind": "retinanet", "inside": True}),
    "instances": (
        {**_FOUND, "masks": _NUMBERS.random((2, 1, 28, 28), np.float32)},
        "instances",
        {"kind": "rcnn", "inside": True},
    ),
}
# What a file holds, and what its manifest says that it does. Masks beside detections do no harm.
MISTAKEN = [(a, b) for a in KINDS for b in KINDS if a != b and (a, b) != ("instances", "detections")]


def manifest(task: str, postprocess: dict[str, Any], shape: list[Any], /, **changes: Any) -> dict[str, Any]:
    """What ``tokenmix export`` writes into a file; ``changes`` replace entries, a dict's only in part."""
    content: dict[str, Any] = {
        "schema": "tokenmix.model/2",
        "model": "toy",
        "task": task,
        "head": None,
        "labels": None,
        "input": {"name": "image", "shape": shape, "dtype": "float32", "layout": "NCHW"},
        "preprocess": {
            "image_size": shape[2:],
            "mean": list(MEAN),
            "std": list(STD),
            "crop_pct": 1.0,
            "crop_mode": "center" if task == "classification" else "fit",
            "interpolation": "bilinear",
            "inside": [],
        },
        "postprocess": {"inside": False, "multiple": 1, **postprocess},
    }
    for key, value in changes.items():
        content[key] = {**content[key], **value} if isinstance(value, dict) else value
    return content


def embed(path: Path, content: dict[str, Any]) -> Path:
    """Put a manifest into a file, in place of the one that is there."""
    proto = onnx.load(path)
    del proto.metadata_props[:]
    for key, value in content.items():
        proto.metadata_props.add(key=key, value=json.dumps(value))
    onnx.save(proto, path)
    return path


def constant_file(path: Path, outputs: dict[str, np.ndarray], content: dict[str, Any] | None) -> Path:
    """A graph that takes the manifest's input and returns the outputs, whatever it is given."""
    shape = [1, 3, 8, 8] if content is None else content["input"]["shape"]
    kind = TensorProto.UINT8 if content is not None and content["input"]["dtype"] == "uint8" else TensorProto.FLOAT
    nodes = [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value))
        for name, value in outputs.items()
    ]
    graph = helper.make_graph(
        nodes,
        "constant",
        [helper.make_tensor_value_info("image", kind, shape)],
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
            for name, value in outputs.items()
        ],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path if content is None else embed(path, content)


class Raw(nn.Module):
    """A model up to its raw outputs, in the form that is exported."""

    def __init__(self, model: Any, head: str | None) -> None:
        super().__init__()
        self.model, self.dense = prepare(model), head is not None

    def forward(self, x: torch.Tensor) -> Any:
        return self.model.raw(x) if self.dense else self.model(x)


def model_file(
    path: Path, model: Any, head: str | None, size: tuple[int, int], labels: list[str] | None = None, **changes: Any
) -> Path:
    """A model's raw outputs with its manifest: a classifier's for any batch size, a dense model's for one image."""
    task = "classification" if head is None else HEADS[head].task
    reading = {"kind": "softmax"} if head is None else HEADS[head].decoding(model)
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Raw(model, head).eval(),
            (torch.zeros(1 if head else 2, 3, *size),),
            path,
            input_names=["image"],
            output_names=["logits"] if head is None else list(HEADS[head].outputs),
            dynamic_shapes=None if head else ({0: torch.export.Dim("batch")},),
            dynamo=True,
            verbose=False,
            external_data=False,
        )
    if head is not None:
        changes = {"preprocess": {"crop_mode": HEADS[head].crop_mode}, **changes}
    shape = [1 if head else "batch", 3, *size]
    return embed(path, manifest(task, reading, shape, head=head, labels=labels, **changes))


def neighbour(path: Path, content: dict[str, Any], **changes: Any) -> Path:
    """``STEM.json`` beside a file."""
    files = {"onnx": {"file": path.name, "sha256": sha256(path)}}
    beside = path.with_suffix(".json")
    beside.write_text(json.dumps({**content, "files": files, **changes}))
    return beside
