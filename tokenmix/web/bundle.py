"""The files of the page that runs an exported model in the visitor's browser."""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
import json
import lzma
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenmix.export.extras import require
from tokenmix.files import atomic_path
from tokenmix.version import __version__
from tokenmix.web.masks import add_masks
from tokenmix.web.samples import sample_pictures

SCHEMA = "tokenmix.model/2"
KINDS = ("softmax", "argmax", "ssdlite", "retinanet", "rcnn")
_NEEDED = ("input", "outputs", "preprocess", "postprocess", "task")


def page_files(path: str | os.PathLike[str]) -> dict[str, bytes]:
    """Everything the page needs, by file name: the page itself, the model, its manifest, samples and the runtime.

    The model gets one more output for each mask of its frequency mixers (see `tokenmix.web.masks.add_masks`); its
    manifest, ``model.json``, names them under ``masks``.

    Args:
        path: An ONNX file that ``tokenmix export`` wrote. A manifest beside it adds what its check found.

    Raises:
        ImportError: The package onnx is missing.
        ValueError: It is no such file, is damaged, or the manifest beside it belongs to another file.
    """
    onnx = require("onnx")
    source = Path(path)
    content = _read(source)
    try:
        proto = onnx.load_model_from_string(content)
        onnx.checker.check_model(proto)
    except Exception as error:  # protobuf's and onnx's errors have no public base
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"{source} is damaged or no ONNX file ({reason}); {_remedy()}") from None
    manifest = _manifest(proto, source) | _checked(source, content)
    manifest |= {"file": source.name, "bytes": len(content), "masks": add_masks(proto), "tokenmix": __version__}
    samples = sample_pictures()
    manifest["samples"] = list(samples)
    model = {"model.onnx": proto.SerializeToString(), "model.json": json.dumps(manifest, allow_nan=False).encode()}
    return _packaged("static") | _packaged("vendor") | samples | model


def write_page(files: Mapping[str, bytes], folder: str | os.PathLike[str]) -> None:
    """Write the files into a folder that any static web server can serve, under any path.

    Raises:
        ValueError: The folder is a file, or holds something else than an earlier page of ours.
    """
    out = Path(folder)
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file: name a folder with --out")
    if out.is_dir() and any(out.iterdir()) and not (out / "model.json").is_file():
        raise ValueError(f"{out} holds other files: name a new folder with --out")
    out.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        with atomic_path(out / name) as temporary:
            temporary.write_bytes(content)


def _read(path: Path) -> bytes:
    if path.is_dir() or path.suffix in (".safetensors", ".pt", ".pth", ".tar"):
        raise ValueError(f"{path} is no ONNX file; {_remedy(path)}")
    if not path.is_file():
        raise ValueError(f"{path}: no such file; {_remedy()}")
    return path.read_bytes()


def _remedy(model: str | os.PathLike[str] = "MODEL") -> str:
    return f"make one with: tokenmix export {os.fspath(model)} --to onnx --out model.onnx"


def _manifest(proto: Any, path: Path) -> dict[str, Any]:
    """The manifest inside the file."""
    try:
        manifest = {entry.key: json.loads(entry.value) for entry in proto.metadata_props}
    except ValueError:
        manifest = {}
    schema = manifest.get("schema")
    if not isinstance(schema, str) or not schema.startswith("tokenmix.model/"):
        raise ValueError(f"{path} was not written by tokenmix, so that nobody knows its pictures; {_remedy()}")
    if schema != SCHEMA:
        raise ValueError(f"{path} has the schema {schema}, and this page reads {SCHEMA}: export the model again")
    missing = [name for name in _NEEDED if name not in manifest]
    outputs = [output["name"] for output in manifest.get("outputs", ())]
    if missing or outputs != [output.name for output in proto.graph.output]:
        what = f"lacks {', '.join(missing)}" if missing else f"names other outputs ({', '.join(outputs)}) than the file"
        raise ValueError(f"the manifest inside {path} {what}: export the model again")
    if manifest["postprocess"].get("kind") not in KINDS:
        raise ValueError(f"{path}: the page knows no postprocess {manifest['postprocess'].get('kind')!r}")
    return manifest


def _checked(path: Path, content: bytes) -> dict[str, Any]:
    """What the manifest beside the file says of how exact it is."""
    beside = path.with_suffix(".json")
    try:
        entry = json.loads(beside.read_text(encoding="utf-8"))["files"]["onnx"]
        found = {"errors": entry["errors"], "precision": entry["precision"]}
        matching = entry["sha256"] == hashlib.sha256(content).hexdigest()
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # there is none, or it is about something else
    if not matching:
        raise ValueError(f"{beside} is the manifest of another file than {path}: move it away, or export again")
    return found


@functools.cache
def _packaged(folder: str) -> dict[str, bytes]:
    """The files of a folder of this package by name, unpacked."""
    files = {}
    for entry in importlib.resources.files("tokenmix.web").joinpath(folder).iterdir():
        content = entry.read_bytes()
        files[entry.name.removesuffix(".xz")] = lzma.decompress(content) if entry.name.endswith(".xz") else content
    return files
