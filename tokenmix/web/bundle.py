"""The files of the page that runs an exported model in the visitor's browser."""

from __future__ import annotations

import functools
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
from tokenmix_runtime.manifest import read_manifest
from tokenmix_runtime.untrusted import read_json


def page_files(path: str | os.PathLike[str]) -> dict[str, bytes]:
    """Everything the page needs, by file name: the page itself, the model, its manifest, samples and the runtime.

    The model gets one more output for each mask of its frequency mixers (see `tokenmix.web.masks.add_masks`); its
    manifest, ``model.json``, names them under ``masks``.

    Args:
        path: An ONNX file that ``tokenmix export`` wrote. A manifest beside it adds what its check found.

    Returns:
        Contents by file name.

    Raises:
        ImportError: The package onnx is missing.
        ValueError: It is no such file or is damaged.
        ModelError: Its manifest is missing, wrong or another graph's, or the one beside it belongs to another file.

    Examples:
        >>> files = page_files("photos.onnx")  # doctest: +SKIP
        >>> "index.html" in files  # doctest: +SKIP
        True
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
    manifest = _manifest(proto, source)
    manifest |= {"file": source.name, "bytes": len(content), "masks": add_masks(proto), "tokenmix": __version__}
    samples = sample_pictures()
    manifest["samples"] = list(samples)
    model = {"model.onnx": proto.SerializeToString(), "model.json": json.dumps(manifest, allow_nan=False).encode()}
    return _packaged("static") | _packaged("vendor") | samples | model


def write_page(files: Mapping[str, bytes], folder: str | os.PathLike[str]) -> None:
    """Write the files into a folder that any static web server can serve, under any path.

    Args:
        files: Contents by file name, as of `page_files`.
        folder: Where; made if it is missing.

    Raises:
        ValueError: The folder is a file, or holds something else than an earlier page of ours.

    Examples:
        >>> write_page(page_files("photos.onnx"), "site")  # doctest: +SKIP
    """
    out = Path(folder)
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file: name a folder with --out")
    if out.is_dir() and any(out.iterdir()) and not _is_page(out):
        raise ValueError(f"{out} holds other files: name a new folder with --out")
    out.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        with atomic_path(out / name) as temporary:
            temporary.write_bytes(content)


def _is_page(folder: Path) -> bool:
    """Whether the folder holds a page of ours; an export's manifest has the same name, and names no samples."""
    try:
        return "samples" in read_json(folder / "model.json")
    except (OSError, ValueError, TypeError):
        return False


def _read(path: Path) -> bytes:
    if path.is_dir() or path.suffix in (".safetensors", ".pt", ".pth", ".tar"):
        raise ValueError(f"{path} is no ONNX file; {_remedy(path)}")
    if not path.is_file():
        raise ValueError(f"{path}: no such file; {_remedy()}")
    return path.read_bytes()


def _remedy(model: str | os.PathLike[str] = "MODEL") -> str:
    return f"make one with: tokenmix export {os.fspath(model)} --to onnx --out model.onnx"


def _manifest(proto: Any, path: Path) -> dict[str, Any]:
    """The manifest inside the file, which fits the graph, and what the one beside it says of how exact the file is."""
    read = read_manifest(path, {entry.key: entry.value for entry in proto.metadata_props})
    content = dict(read.content)
    outputs = content.get("outputs")
    named = [output.get("name") for output in outputs if isinstance(output, dict)] if isinstance(outputs, list) else []
    described = ", ".join(map(str, [read.input_name, *named]))
    graph = ", ".join(value.name for value in (*proto.graph.input, *proto.graph.output))
    if described != graph:
        raise ValueError(
            f"the manifest inside {path} is that of another graph ({described}, and the file has {graph}): export the "
            "model again"
        )
    return content | _errors(path)


def _errors(path: Path) -> dict[str, Any]:
    """What the manifest beside the file, which `read_manifest` found to be the file's, says of how exact it is."""
    try:
        entry = read_json(path.with_suffix(".json"))["files"]["onnx"]
        told = {"errors": entry["errors"], "precision": entry["precision"]}
        numbers = [entry["errors"].get(name, 0.0) for name in ("relative_error", "max_error")]
        fits = entry["file"] == path.name and all(type(number) in (int, float) for number in numbers)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}  # there is none, or it is about something else
    return told if fits else {}


@functools.cache
def _packaged(folder: str) -> dict[str, bytes]:
    """The files of a folder of this package by name, unpacked."""
    files = {}
    for entry in importlib.resources.files("tokenmix.web").joinpath(folder).iterdir():
        content = entry.read_bytes()
        files[entry.name.removesuffix(".xz")] = lzma.decompress(content) if entry.name.endswith(".xz") else content
    return files
