"""Choices that were made before, and their files: a folder for each model, inputs and machine.

Among the files is native code, so that they are taken only from a folder in which nobody else can write, and only with
the bytes that were put there.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tokenmix.bench.machine import describe
from tokenmix.compilation.choice import Choice, as_dict, from_dict
from tokenmix.data.memory import data_root
from tokenmix.export.aoti import no_compiler
from tokenmix.export.manifest import weights_sha256
from tokenmix.files import atomic_path, sha256, write_json
from tokenmix.safety import vouch_for
from tokenmix_runtime.untrusted import read_json

SCHEMA = "tokenmix.compiled/1"
_NAME = "choice.json"


def default_folder() -> Path:
    """``compiled`` beside the downloaded data sets: below ``TOKENMIX_DATA``, else in ``~/.cache/tokenmix``."""
    return data_root() / "compiled"


def key_of(model: nn.Module, inputs: Sequence[Tensor], settings: Mapping[str, Any]) -> str:
    """A name for a model (weights and structure), its inputs, what was asked for and this machine with its versions."""
    machine = describe()
    facts = {
        "weights": weights_sha256(model),
        # Without the addresses of functions, which are others in each process.
        "structure": re.sub(r" at 0x[0-9a-fA-F]+", "", f"{type(model).__module__}.{type(model).__qualname__}\n{model}"),
        "buffers": [_digest(buffer) for _, buffer in model.named_buffers()],  # those too that no state dict has
        "inputs": [[list(x.shape), str(x.dtype), str(x.device)] for x in inputs],
        "machine": {name: machine[name] for name in ("cpu", "cores", "gpu", "system", "vector_instructions")},
        "versions": machine["versions"],
        "threads": torch.get_num_threads(),
        "compiler": no_compiler() is None,
        **settings,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def make_private(folder: Path) -> None:
    """Make a folder that only this user can write in.

    Raises:
        ValueError: It is there, and others can write in it.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _check_own(folder)


def load(entry: Path) -> tuple[Choice, float] | None:
    """A choice that was kept, its files checked and vouched for, and the seconds it was given; None: there is none.

    Raises:
        ValueError: It is damaged, or others could have changed it.
        OSError: It cannot be read.
    """
    if not (entry / _NAME).exists():
        return None
    _check_own(entry)
    _check_own(entry / _NAME)
    found = read_json(entry / _NAME)
    try:
        if found["schema"] != SCHEMA:
            raise ValueError(f"its schema is {found['schema']!r}")
        choice, seconds, files = from_dict(found), float(found["seconds"]), dict(found["files"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{entry / _NAME} is damaged ({error})") from None
    for name, digest in files.items():
        path = entry / Path(name).name
        _check_own(path)
        if sha256(path) != digest:
            raise ValueError(f"{path} is not the file that was put there (another SHA-256)")
        vouch_for(digest)
    return choice, seconds


def save(entry: Path, choice: Choice, seconds: float, made: Path) -> None:
    """Keep a choice and the files that belong to it; whoever reads meanwhile finds an old whole one or none."""
    make_private(entry)
    for path in entry.iterdir():
        if path.is_file() and not path.name.startswith("."):
            path.unlink()
    files = {}
    for path in sorted(made.iterdir()):
        with atomic_path(entry / path.name) as temporary:
            shutil.copyfile(path, temporary)
        (entry / path.name).chmod(0o600)
        files[path.name] = sha256(entry / path.name)
    write_json(entry / _NAME, {"schema": SCHEMA, "seconds": seconds, "files": files, **as_dict(choice)})
    (entry / _NAME).chmod(0o600)


def _digest(x: Tensor) -> str:
    return hashlib.sha256(x.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()).hexdigest()


def _check_own(path: Path) -> None:
    """Raise unless a file or folder is this user's, and nobody else's to write."""
    if not hasattr(os, "getuid"):  # Windows: a user's folders are theirs
        return
    found = path.stat()
    if found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ValueError(
            f"{path} can be changed by others, and native code is loaded from there: chmod go-w {path}, or choose "
            "another folder with cache="
        )
