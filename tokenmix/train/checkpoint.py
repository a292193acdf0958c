"""What a run leaves behind: checkpoints to continue from, and weights that rebuild their model."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import timm
import torch
from torch import Tensor, nn

from tokenmix.checkpoints import fill, load_checkpoint
from tokenmix.files import DiskFull, atomic_path, is_full, sweep, sync
from tokenmix.train import shards
from tokenmix.train.distributed import Group, laid_out, local
from tokenmix.version import __version__
from tokenmix.weight_files import read_info, weights_file
from tokenmix_runtime.limits import check_number

FORMAT = "tokenmix.checkpoint/2"
NAME = re.compile(r"step-(\d+)-epoch-(\d+)(\.pt)?")
ALONE = Group(0, 1, torch.device("cpu"))


class Checkpoints:
    """The checkpoints of a run, ``checkpoints/step-<steps>-epoch-<whole epochs>``, of which the last few are kept.

    One process writes a file of ``torch.save``, ``.pt``; processes that share the weights out write a folder, see
    ``tokenmix.train.shards``. Either comes into being whole or not at all, and checksums tell a damaged one.

    Args:
        out: The run's folder.
        keep: How many are kept.

    Raises:
        ValueError: None are to be kept.
    """

    def __init__(self, out: str | os.PathLike[str], keep: int = 2) -> None:
        if keep < 1:
            raise ValueError(f"keep must be 1 checkpoint or more, got {keep}")
        check_number("keep", keep)
        self.folder = Path(out) / "checkpoints"
        self.keep = keep

    def all(self) -> list[Path]:
        """The checkpoints, whole or damaged, the newest first."""
        found = [(match, path) for path in self.folder.glob("step-*") if (match := NAME.fullmatch(path.name))]
        return [path for match, path in sorted(found, key=lambda pair: (int(pair[0][1]), int(pair[0][2])))][::-1]

    def newest(self) -> Path | None:
        """The newest checkpoint, or None; it may be damaged."""
        return next(iter(self.all()), None)

    def whole(self, log: Callable[[str], None]) -> Path | None:
        """The newest checkpoint that is whole, or None if there is none at all.

        Damaged ones on the way are named in the log and put aside under another name.

        Raises:
            ValueError: There are checkpoints and none is whole.
        """
        broken: list[Path] = []
        for path in self.all():
            try:
                _check(path)
            except Exception as error:  # damaged bytes raise anything from zipfile, struct or the unpickler
                broken.append(path)
                log(f"checkpoint {path} is broken ({error}); trying the one before")
                continue
            for other in broken:
                _remove(aside := other.with_name(f"{other.name}.broken"))
                os.replace(other, aside)
            return path
        if broken:
            raise ValueError(
                f"no readable checkpoint in {self.folder}: {', '.join(path.name for path in broken)} "
                "broken; start again with --fresh (fresh=True) or another output folder"
            )
        return None

    def read(self, path: Path, group: Group | None = None) -> dict[str, Any]:
        """The content of a checkpoint, on the CPU; sharded tensors whole unless the group shares its weights out."""
        if path.is_dir():
            return shards.read(path, group or ALONE)
        return torch.load(path, map_location="cpu", weights_only=True)

    def save(self, content: dict[str, Any], group: Group | None = None) -> None:
        """Write ``content`` and remove what is too old; all processes of the group call it.

        Raises:
            DiskFull: There is no room, not even without all checkpoints but the last one.
        """
        group = group or ALONE
        state, content = content["state"], {"format": FORMAT, **content}
        path = self.folder / f"step-{state['steps']:08}-epoch-{state['epoch']:04}"
        if shards.is_sharded(content):
            needed = sum(group.collect(_size(content)))
            self.with_room(lambda: self._write_folder(path, content, group), needed, group)
        else:
            needed = _size(content)
            self.with_room(lambda: group.by_first(lambda: _write_file(path.with_suffix(".pt"), content)), needed, group)
        group.by_first(lambda: self._thin(self.keep))

    def _write_folder(self, path: Path, content: dict[str, Any], group: Group) -> None:
        temporary = path.with_name(f".{path.name}.tmp")

        def begin() -> None:
            _remove(temporary)
            temporary.mkdir(parents=True)

        def end() -> None:
            sync(temporary)
            os.replace(temporary, path)
            sync(self.folder)

        if group.by_first(path.exists):
            return  # a run that was stopped twice at the same moment
        group.by_first(begin)
        try:
            shards.write(temporary, content, group)
        except OSError:
            group.by_first(lambda: _remove(temporary))
            raise
        group.by_first(end)

    def with_room(self, write: Callable[[], None], needed: int, group: Group | None = None) -> None:
        """Call ``write``; if the disk is full, remove all checkpoints but the last one and call it again.

        Args:
            write: Raises the same in all processes of the group.
            needed: About how many bytes it writes.
            group: The processes that call this.

        Raises:
            DiskFull: There still is no room.
        """
        try:
            return write()
        except OSError as error:
            if not is_full(error):
                raise
        (group or ALONE).by_first(self._shrink)
        try:
            write()
        except OSError as error:
            if not is_full(error):
                raise
            free = shutil.disk_usage(self.folder.parent).free
            raise DiskFull(
                f"the disk is full: {self.folder.parent} needs about {needed:,} bytes and {free:,} are free; "
                "make room, and the same command continues from the last checkpoint"
            ) from None

    def _thin(self, keep: int) -> None:
        """Leave that many checkpoints."""
        for path in self.all()[keep:]:
            _remove(path)

    def _shrink(self) -> None:
        """Leave nothing but the last checkpoint."""
        self._thin(1)
        for path in self.folder.glob("*.broken"):
            _remove(path)

    def sweep(self) -> None:
        """Remove what writers left who were killed."""
        sweep(self.folder)

    def clear(self) -> None:
        """Remove everything."""
        _remove(self.folder)


def _check(path: Path) -> None:
    """Raise if a checkpoint is damaged."""
    if path.is_dir():
        shards.check(path)
        return
    with zipfile.ZipFile(path) as archive:  # torch.load does not compare the records with their checksums
        if (record := archive.testzip()) is not None:
            raise ValueError(f"record {record} does not match its checksum")
    content = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"it is not of the format {FORMAT}")


def _write_file(path: Path, content: dict[str, Any]) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # its own, while it handles the file's
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None


def _remove(path: Path) -> None:
    """Remove a file or a folder, if it is there; a folder never stays in part under its name."""
    if path.is_dir():
        aside = path if path.name.startswith(".") else path.with_name(f".{path.name}.tmp")
        if aside != path:
            _remove(aside)  # of a process that was killed right here
            os.replace(path, aside)
        shutil.rmtree(aside)
    else:
        path.unlink(missing_ok=True)


def _size(value: Any) -> int:
    """The bytes of the tensors in nested dicts and lists, as far as this process has them."""
    if isinstance(value, Tensor):
        return local(value).nbytes
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return sum(map(_size, parts))


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

    Examples:
        >>> from tokenmix.train import load_run
        >>> model, info = load_run("runs/photos")  # doctest: +SKIP
        >>> info["classes"], info["image_size"]  # doctest: +SKIP
        (['cat', 'dog'], (96, 96))
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
    """Fill the module, strictly; of a sharded one, every process takes its share of the values.

    Raises:
        ValueError: The names or shapes are not the module's.
    """
    own = module.state_dict()
    state = {name: laid_out(value, own.get(name)) for name, value in state.items()}
    fill(module, state, origin)


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
