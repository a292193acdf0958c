"""What is known of an exported model: beside its files as STEM.json, and inside those that have a place for it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tokenmix.checkpoints import LoadedModel
from tokenmix.export.postprocess import postprocess_of
from tokenmix.export.prepare import Prepared
from tokenmix.files import write_json
from tokenmix.safety import read_json
from tokenmix.version import __version__

SCHEMA = "tokenmix.model/2"
_SAME = ("schema", "model", "task", "head", "weights_sha256", "preprocess", "postprocess")


def weights_sha256(model: nn.Module) -> str:
    """The hexadecimal SHA-256 of a model's state dict: names, types, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        own = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {own.dtype} {tuple(own.shape)}\n".encode())
        digest.update(own.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def describe(
    opened: LoadedModel,
    prepared: Prepared,
    outputs: Sequence[Tensor],
    image_size: tuple[int, int],
    inside: Sequence[str],
) -> dict[str, Any]:
    """The manifest without its files.

    Args:
        opened: The model.
        prepared: Its form that is written.
        outputs: What that returns for its sample.
        image_size: Height and width of the prepared picture.
        inside: Names of `tokenmix.export.wrap.PARTS`.
    """
    before = [part for part in inside if part in ("resize", "normalize")]
    after = opened.task == "instances" or any(part in inside for part in ("softmax", "argmax", "nms"))
    batch = "batch" if prepared.dynamic_batch else 1
    size = ["height", "width"] if prepared.dynamic_size else list(prepared.sample.shape[2:])
    return {
        "schema": SCHEMA,
        "model": opened.name,
        "task": opened.task,
        "head": opened.head,
        "parameters": sum(parameter.numel() for parameter in prepared.model.parameters()),
        "labels": None if opened.classes is None else list(opened.classes),
        "license": opened.license,
        "weights_sha256": weights_sha256(opened.model),
        "input": {
            "name": prepared.input_name,
            "shape": [batch, prepared.sample.shape[1], *size],
            "dtype": "float32",
            "layout": "NCHW",
        },
        "outputs": [
            {"name": name, "shape": _shape(name, output, prepared, opened.task, after), "dtype": str(output.dtype)[6:]}
            for name, output in zip(prepared.output_names, outputs, strict=True)
        ],
        "preprocess": {
            "image_size": list(image_size),
            "mean": list(opened.mean),
            "std": list(opened.std),
            "crop_pct": opened.crop_pct,
            "crop_mode": opened.crop_mode,
            "interpolation": opened.interpolation,
            "inside": before,
        },
        "postprocess": {**postprocess_of(opened.model, opened.head), "inside": after},
        "versions": {"tokenmix": __version__, "torch": torch.__version__},
    }


def _shape(name: str, output: Tensor, prepared: Prepared, task: str, after: bool) -> list[int | str]:
    """The shape of an output, with names where the file leaves it open."""
    shape: list[int | str] = list(output.shape)
    if task in ("detection", "instances") and after:
        return ["detections", *shape[1:]]
    if prepared.dynamic_batch:
        shape[0] = "batch"
    if prepared.dynamic_size and task == "detection":
        shape[1] = "anchors"
    elif prepared.dynamic_size and task == "segmentation":
        shape[-2:] = ["height", "width"] if name == "classes" else ["rows", "columns"]
    return shape


def read_manifest(path: Path) -> dict[str, Any]:
    """A manifest that lies beside a file; empty if there is none, or one of another kind."""
    try:
        found = read_json(path)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and found.get("schema") == SCHEMA else {}


def add_file(path: Path, manifest: Mapping[str, Any], name: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write the manifest with one more file; those of the same weights, used in the same way, stay in it.

    Args:
        path: The manifest's.
        manifest: What `describe` returned.
        name: The file's format.
        facts: About the file.
    """
    before = read_manifest(path)
    same = all(before.get(key) == json.loads(json.dumps(manifest[key])) for key in _SAME)
    files = {**before["files"], name: dict(facts)} if same else {name: dict(facts)}
    whole = {**manifest, "files": files}
    write_json(path, whole)
    return whole
