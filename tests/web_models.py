"""Tiny exported models of each task for the page's tests, with manifests of their own."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.dense_cases import dense
from tests.scramble import scramble
from tokenmix.export import prepare
from tokenmix.export.extras import quiet
from tokenmix.heads import HEADS, Raw
from tokenmix.mixers.frequency import FrequencyFilter
from tokenmix.mixers.spectrum import SpectrumMixer

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZE = (48, 48)
CLASSES = ["ant", "bee", "cat <b>", "dog", "elk", "fox", "gnu"]


class Toy(nn.Module):
    """``(B, 3, H, W) -> (B, 7)`` with an AFF and a DSM in it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 4, 4)
        self.filter = FrequencyFilter(16, groups=4)
        self.spectrum = SpectrumMixer(16)
        self.head = nn.Linear(16, len(CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.filter(x)
        x = x + self.spectrum(x)
        return 3 * self.head(torch.nn.functional.gelu(x).mean((2, 3)))


def toy() -> Toy:
    """The classifier with weights that matter."""
    return scramble(Toy().eval())  # type: ignore[return-value]


def dense_toy(head: str) -> Any:
    """A small dense model in float32."""
    model = dense(head, "mixernet_pico" if head == "semantic_fpn" else "casvit_xs").float()
    for name in model.classifiers if head != "semantic_fpn" else ():
        model.get_submodule(name).weight.data *= 0.05  # scores that differ, instead of certainty
    return model


def write(
    model: nn.Module,
    path: Path,
    *,
    head: str | None = None,
    task: str = "classification",
    size: tuple[int, int] = SIZE,
    dynamic: bool = False,
    **changes: Any,
) -> dict[str, Any]:
    """Write a model as the schema tokenmix.model/2 has it; ``changes`` are other entries of the manifest."""
    reading = {"kind": "softmax", "multiple": 1} if head is None else HEADS[head].decoding(model)
    postprocess = reading | {"inside": False}
    names = ["logits"] if head is None else list(HEADS[head].outputs)
    prepared = prepare(model)
    sizes = {2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO} if dynamic else {}
    with quiet(), warnings.catch_warnings():
        program = torch.onnx.export(
            prepared if head is None else Raw(prepared),
            (torch.randn(1, 3, *size),),
            dynamo=True,
            opset_version=20,
            dynamic_shapes=(sizes,) if sizes else None,
            input_names=["image"],
            output_names=names,
        )
    assert program is not None
    proto = program.model_proto
    mode = "center" if head is None else "squash" if head == "ssdlite" else "fit"
    filters = {"crop_pct": 1.0 if head else 0.9, "interpolation": "bilinear" if head else "bicubic", "crop_mode": mode}
    manifest: dict[str, Any] = {
        "schema": "tokenmix.model/2",
        "model": "toy",
        "task": task,
        "head": head,
        "parameters": sum(parameter.numel() for parameter in prepared.parameters()),
        "labels": CLASSES if head is None else CLASSES[:3],
        "license": None,
        "input": {
            "name": "image",
            "shape": [1, 3, *(("height", "width") if dynamic else size)],
            "dtype": "float32",
            "layout": "NCHW",
        },
        "outputs": [{"name": name, "shape": [], "dtype": "float32"} for name in names],
        "preprocess": {"image_size": list(size), "mean": MEAN, "std": STD, "inside": [], **filters},
        "postprocess": postprocess,
        "precision": "fp32",
        "versions": {"tokenmix": "0.1.0"},
    }
    set_manifest(proto, manifest | changes)
    path.write_bytes(proto.SerializeToString())
    return manifest | changes


def set_manifest(proto: Any, manifest: dict[str, Any]) -> None:
    """Replace the manifest inside a ModelProto."""
    del proto.metadata_props[:]
    for key, value in manifest.items():
        proto.metadata_props.add(key=key, value=json.dumps(value))
