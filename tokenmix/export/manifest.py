"""What is known of an exported model: beside its files as STEM.json, and inside those that have a place for it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tokenmix.export.prepare import Prepared
from tokenmix.files import write_json
from tokenmix.tasks.file_form import FileForm
from tokenmix.version import __version__
from tokenmix_runtime.untrusted import read_json

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


def describe(form: FileForm, prepared: Prepared, outputs: Sequence[Tensor]) -> dict[str, Any]:
    """The manifest without its files.

    Args:
        form: The model as a file.
        prepared: Its form that is written.
        outputs: What that returns for its sample.
    """
    loaded, told = form.loaded, form.description()
    return {
        "schema": SCHEMA,
        "model": loaded.name,
        "task": loaded.task,
        "head": loaded.head,
        "parameters": sum(parameter.numel() for parameter in prepared.model.parameters()),
        "labels": told.pop("labels", None),
        "license": loaded.license,
        "weights_sha256": weights_sha256(loaded.model),
        "input": {
            "name": prepared.input_name,
            "shape": _shape(prepared.sample, prepared.open_axes),
            "dtype": "float32",
            "layout": form.layout,
        },
        "outputs": [
            {
                "name": name,
                "shape": _shape(
                    output,
                    ({0: prepared.open_axes[0]} if prepared.open_batch else {})
                    | dict(form.open_axes(name, prepared.open_size)),
                ),
                "dtype": str(output.dtype).removeprefix("torch."),
            }
            for name, output in zip(prepared.output_names, outputs, strict=True)
        ],
        **told,
        "versions": {"tokenmix": __version__, "torch": torch.__version__},
    }


def _shape(tensor: Tensor, open_axes: Mapping[int, str]) -> list[int | str]:
    """The shape of a tensor, with names where the file leaves it open."""
    return [open_axes.get(axis, length) for axis, length in enumerate(tensor.shape)]


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
    kept = before.get("files") if same else None
    whole = {**manifest, "files": {**(kept if isinstance(kept, dict) else {}), name: dict(facts)}}
    write_json(path, whole)
    return whole
