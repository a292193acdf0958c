"""What a run leaves behind: checkpoints to continue from, and weights that rebuild their model."""

from __future__ import annotations

import os
import platform
import subprocess
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import timm
import torch
from torch import Tensor, nn

from tokenmix.checkpoints import load_checkpoint, read_info, weights_file
from tokenmix.files import atomic_path
from tokenmix.version import __version__

FORMAT = "tokenmix.checkpoint/1"


class Checkpoints:
    """The last two checkpoints of a run, ``last.pt`` and ``previous.pt`` in its folder.

    Each is a file of ``torch.save``, written whole or not at all. Reading one compares every record with its CRC-32,
    which ``torch.load`` does not do, so that a flipped bit is noticed.
    """

    def __init__(self, folder: Path) -> None:
        self.next = folder / "next.pt"
        self.last = folder / "last.pt"
        self.previous = folder / "previous.pt"

    def save(self, content: dict[str, Any]) -> None:
        """Write ``content``; the checkpoint before stays as ``previous.pt``, the one before that goes."""
        with atomic_path(self.next) as temporary:
            torch.save({"format": FORMAT, **content}, temporary)
        if self.last.exists():
            os.replace(self.last, self.previous)
        os.replace(self.next, self.last)  # killed between the two, the run goes on from the previous one

    def load(self, log: Callable[[str], None]) -> dict[str, Any] | None:
        """The newest readable checkpoint on the CPU, or None if there is none; a broken one is named in the log.

        Raises:
            ValueError: There are checkpoints and none is readable.
        """
        broken: list[Path] = []
        for path in (self.last, self.previous):
            if not path.exists():
                continue
            try:
                content = _read(path)
            except Exception as error:  # damaged bytes raise anything from zipfile, struct or the unpickler
                broken.append(path)
                log(f"checkpoint {path} is broken ({error}); trying the one before")
                continue
            for other in broken:  # out of the way, or the next save would move it over the good one
                os.replace(other, other.with_name(f"{other.name}.broken"))
            return content
        if broken:
            raise ValueError(
                f"no readable checkpoint in {self.last.parent}: {', '.join(path.name for path in broken)} "
                "broken; start again with --fresh (fresh=True) or another output folder"
            )
        return None

    def clear(self) -> None:
        """Remove the checkpoints."""
        self.last.unlink(missing_ok=True)
        self.previous.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any]:
    """The content of a checkpoint file; raises if it is damaged."""
    with zipfile.ZipFile(path) as archive:
        if (record := archive.testzip()) is not None:
            raise ValueError(f"record {record} does not match its checksum")
    content = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"it is not of the format {FORMAT}")
    return content


def load_run(path: str | os.PathLike[str], *, model: nn.Module | None = None) -> tuple[nn.Module, dict[str, Any]]:
    """The model with its best weights in evaluation mode, on the CPU, and what is known about it.

    Args:
        path: A run folder, or the ``best.safetensors`` in it.
        model: The network to fill; by default it is built by timm from the name and the arguments in the file, which
            cannot bring back one that was made in code.

    Returns:
        The model, and a dict with ``model``, ``model_args``, ``task``, ``classes``, ``mean``, ``std``, ``image_size``,
        ``crop_pct``, ``interpolation``, ``crop_mode``; the last six are what ``tokenmix.data.preprocess`` needs.

    Raises:
        ValueError: No weights there, not written by tokenmix, or not those of the model.
    """
    file = weights_file(path)
    info = read_info(file)
    if info is None:
        raise ValueError(f"{file} does not say which model it belongs to: tokenmix's training did not write it")
    if model is None:
        model = load_checkpoint(file)
    else:
        load_weights(model, safetensors.torch.load_file(file), file)
    info |= {name: tuple(info[name]) for name in ("mean", "std", "image_size") if name in info}
    return model.eval(), info


def load_weights(module: nn.Module, state: Mapping[str, Tensor], origin: os.PathLike[str]) -> None:
    """Fill the module, strictly.

    Raises:
        ValueError: The names or shapes are not the module's.
    """
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        lines = str(error).splitlines()
        raise ValueError(
            f"the weights in {os.fspath(origin)} belong to another model than the one built here: "
            f"{lines[min(1, len(lines) - 1)].strip()}"
        ) from None


def versions() -> dict[str, str]:
    """What the run was made with: versions, and the git commit if tokenmix runs from a checkout."""
    found = {
        "tokenmix": __version__,
        "torch": str(torch.__version__),  # a subclass of str, which a weights-only load refuses
        "timm": timm.__version__,
        "python": platform.python_version(),
    }
    root = Path(__file__).resolve().parents[2]
    if (root / ".git").exists():
        try:
            command = ["git", "-C", str(root), "rev-parse", "HEAD"]
            found["commit"] = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            pass  # no git here, or another user's checkout: the versions have to do
    return found
