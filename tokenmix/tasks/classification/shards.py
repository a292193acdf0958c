"""Pictures in tar shards, read from any place of any shard; a shard that is a stream is fetched when it is needed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image

from tokenmix.data.download_cache import fetch, is_stream
from tokenmix.data.memory import data_root
from tokenmix.data.random_numbers import hashes, permutation
from tokenmix.data.tars import Contents, Sample, read_contents
from tokenmix.files import write_text
from tokenmix.tasks.classification.images import ImageSet
from tokenmix_runtime.images import ImageError, decode

LANES = 64  # so many shards are read at a time; a power of two, as most numbers of processes are
_SHARDS = 3  # the key of the draws of shards
_VERSION = 1  # of the remembered contents


@dataclass(frozen=True)
class Shard:
    """A tar file of labelled pictures: ``source`` is its path or a stream, ``name`` begins the names of its pictures.

    What it holds is remembered in `data_root`, under the path, size and time of a file, or the name of a stream.
    """

    name: str
    source: str

    def path(self) -> Path:
        """The tar on this machine; fetches it where it is a stream that is not here (any more).

        Raises:
            ValueError: It cannot be fetched, or is another one than it was.
        """
        if not is_stream(self.source):
            return Path(self.source)
        path = self._memory("tars", ".tar")
        if not path.exists():
            with self._locked("tars"):
                if not path.exists():
                    fetch(self.source, path, self._inspect)
        return path

    def contents(self, *, check: bool) -> Contents:
        """What it holds; with ``check``, pictures that cannot be decoded are among the skipped (found out once).

        Raises:
            ValueError: It cannot be fetched.
        """
        with self._locked("contents"):
            contents, broken = self._remembered()
            if contents is None:
                contents = self._read_contents()
                self._remember(contents, None)
            if check and broken is None:
                broken = self._broken(contents)
                self._remember(contents, broken)
        if not check or not broken:
            return contents
        bad = {name for name, _ in broken}
        good = [sample for sample in contents.samples if sample.name not in bad]
        return contents._replace(samples=good, skipped=contents.skipped + broken)

    def _read_contents(self) -> Contents:
        while True:
            try:
                return read_contents(self.path())
            except FileNotFoundError:
                if not is_stream(self.source):
                    raise
                # Removed to make room, between fetching and reading it.

    def read(self, offset: int, size: int) -> bytes:
        """The ``size`` bytes at ``offset``, fewer where the file is shorter.

        Raises:
            ValueError: It cannot be fetched.
            OSError: It cannot be read.
        """
        while True:
            try:
                with self.path().open("rb", buffering=0) as file:
                    file.seek(offset)
                    return file.read(size)
            except FileNotFoundError:
                if not is_stream(self.source):
                    raise
                # Removed to make room, between finding and opening it.

    def _broken(self, contents: Contents) -> list[tuple[str, str]]:
        broken = []
        for sample in contents.samples:
            try:
                decode(self.read(sample.offset, sample.size), sample.name, at_least=1)
            except ImageError as error:
                broken.append((sample.name, error.reason))
        return broken

    def _inspect(self, tar: Path) -> None:
        """Look at the fetched shard: a damaged one counts as a failed transfer."""
        contents = read_contents(tar)
        if contents.damage:
            raise OSError(contents.damage)
        before, _ = self._remembered()
        if before not in (None, contents):
            self._memory("contents", ".json").unlink(missing_ok=True)
            raise ValueError(f"{self.source} is another shard than it was before: start again")

    def _remembered(self) -> tuple[Contents | None, list[tuple[str, str]] | None]:
        """The contents and the pictures known as broken; None for what is not known."""
        try:
            found: dict[str, Any] = json.loads(self._memory("contents", ".json").read_text(encoding="utf-8"))
            if found["version"] != _VERSION:
                return None, None
            contents = Contents(
                [Sample(*sample) for sample in found["samples"]],
                [(key, reason) for key, reason in found["skipped"]],
                found["damage"],
            )
            broken = found["broken"]
            return contents, None if broken is None else [(name, reason) for name, reason in broken]
        except (OSError, ValueError, KeyError, TypeError):
            return None, None

    def _remember(self, contents: Contents, broken: list[tuple[str, str]] | None) -> None:
        text = json.dumps({"version": _VERSION, **contents._asdict(), "broken": broken}, separators=(",", ":"))
        write_text(self._memory("contents", ".json"), text)

    @contextlib.contextmanager
    def _locked(self, what: str) -> Iterator[None]:
        """One thread of one process at a time, where the file system has locks; the others wait for what it finds."""
        path = self._memory("locks", f".{what}")
        lock = FileLock(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except NotImplementedError:
            pass  # without locks each process does the same work, and what it writes is whole
        except OSError as error:
            raise ValueError(
                f"cannot write to {path.parent}: {error.strerror or error}; "
                "set TOKENMIX_DATA to a folder that can be written"
            ) from error
        try:
            yield
        finally:
            lock.release()

    def _memory(self, folder: str, suffix: str) -> Path:
        identity = self.source
        if not is_stream(self.source):
            stat = os.stat(self.source)
            identity = f"{os.path.abspath(self.source)}\0{stat.st_size}\0{stat.st_mtime_ns}"
        key = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        return data_root() / "shards" / folder / f"{key}{suffix}"


class ShardImages(ImageSet):
    """Pictures in shards: picture ``i`` is ``sizes[i]`` bytes at ``offsets[i]`` of ``shards[shard_of[i]]``."""

    def __init__(
        self,
        shards: Sequence[Shard],
        shard_of: NDArray[np.int64],
        offsets: NDArray[np.int64],
        sizes: NDArray[np.int64],
        labels: Sequence[int],
        names: Sequence[str],
        **kind: Any,
    ) -> None:
        super().__init__(labels, names, **kind)
        self.shards = list(shards)
        self.shard_of, self.offsets, self.sizes = shard_of, offsets, sizes

    def load(self, index: int) -> Image.Image:
        return decode(self.encoded(index), self.names[index])

    def load_reduced(self, index: int, at_least: int) -> Image.Image:
        return decode(self.encoded(index), self.names[index], at_least=at_least)

    def encoded(self, index: int) -> bytes:
        shard, size = self.shards[self.shard_of[index]], int(self.sizes[index])
        try:
            content = shard.read(int(self.offsets[index]), size)
        except OSError as error:
            reason = error.strerror or str(error)
            raise ImageError(f"cannot read {self.names[index]} from {shard.source}: {reason}", reason) from error
        if len(content) < size:
            raise ImageError(f"cannot read {self.names[index]}: {shard.source} has become shorter", "its shard is cut")
        return content

    def order(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """A random order that reads few shards at a time.

        Shards in random order, their pictures shuffled, are laid one after the other and cut into lanes of equal
        length, a power of two of them; the pictures come from each lane in turn. With a number of processes that
        divides the lanes and the batch, a process reads from lanes of its own, so that two of them share a shard only
        where a lane ends.
        """
        shards, place = np.unique(self.shard_of, return_inverse=True)
        turns = np.empty(len(shards), np.int64)
        turns[permutation(len(shards), seed, epoch, _SHARDS)] = np.arange(len(shards))
        count = len(self)
        queue = np.lexsort((hashes(seed, epoch, np.arange(count)), turns[place]))
        lanes = 1 << (min(LANES, len(shards)).bit_length() - 1)
        step, lane = np.divmod(np.arange(count), lanes)
        return queue[lane * (count // lanes) + np.minimum(lane, count % lanes) + step]

    def subset(self, rows: Sequence[int]) -> ShardImages:
        """Some of the pictures, in the order of ``rows``."""
        at = np.asarray(rows, np.int64)
        return ShardImages(
            self.shards,
            self.shard_of[at],
            self.offsets[at],
            self.sizes[at],
            [self.labels[row] for row in rows],
            [self.names[row] for row in rows],
            flip=self.flip,
            glyphs=self.glyphs,
            crop_pct=self.crop_pct,
        )
