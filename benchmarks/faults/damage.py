"""Files that are not as they were written: the checkpoint of a killed run, or what lies beside it."""

from __future__ import annotations

import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

from faults.registry import fault
from faults.session import require
from faults.trial import Trial
from tokenmix.train.checkpoint import Checkpoints

KIND = "Damaged checkpoint"
FALLS_BACK = "names it, falls back to the one before; bit-identical"


def flip(path: Path, position: int, bit: int = 2) -> None:
    """Flip one bit of a file."""
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)


def truncate(path: Path, size: int) -> None:
    """Keep the first ``size`` bytes."""
    path.write_bytes(path.read_bytes()[:size])


def in_header(path: Path, chance: random.Random) -> None:
    """Flip a bit in the checksum that the zip directory states for a tensor."""
    content = path.read_bytes()
    entries = [at for at in range(len(content)) if content.startswith(b"PK\1\2", at)]
    flip(path, chance.choice(entries) + 16 + chance.randrange(4))


def in_data(path: Path, chance: random.Random) -> None:
    """Flip a bit of a tensor, which ``torch.load`` alone would not notice."""
    with zipfile.ZipFile(path) as archive:
        record = max((entry for entry in archive.infolist() if "/data/" in entry.filename), key=lambda e: e.file_size)
        content = archive.read(record)
    flip(path, path.read_bytes().index(content) + chance.randrange(len(content)), chance.randrange(8))


def directory(path: Path, chance: random.Random) -> None:
    """Flip a bit in the signature of a zip directory's entry."""
    flip(path, path.read_bytes().rindex(b"PK\1\2") + chance.randrange(4))


def damaged(name: str, sentence: str, damage: Callable[[Path, random.Random], object], times: int = 1) -> None:
    """Register: the newest checkpoint damaged."""

    def run(trial: Trial) -> None:
        newest, *_ = trial.half_way()
        damage(newest, trial.random)
        text = trial.finish()
        require(newest.name in text and "broken" in text, f"it does not name {newest.name}: {text[-1000:]}")

    fault(KIND, sentence, name=name, outcome=FALLS_BACK, times=times)(run)


damaged("checkpoint-empty", "the newest is empty", lambda path, _: truncate(path, 0))
damaged(
    "checkpoint-truncated",
    "the newest ends at a random byte",
    lambda path, chance: truncate(path, chance.randrange(1, path.stat().st_size)),
    times=2,
)
damaged(
    "checkpoint-last-byte", "the newest lacks its last byte", lambda path, _: truncate(path, path.stat().st_size - 1)
)
damaged("checkpoint-bit-data", "a bit of a tensor is flipped in the newest", in_data, times=2)
damaged("checkpoint-bit-checksum", "a bit of a checksum is flipped in the newest", in_header)
damaged("checkpoint-bit-directory", "a bit of the zip directory is flipped in the newest", directory)
damaged(
    "checkpoint-garbage",
    "the newest is random bytes",
    lambda path, chance: path.write_bytes(chance.randbytes(path.stat().st_size)),
)
damaged(
    "checkpoint-other-file",
    "another file lies in the newest's place",
    lambda path, _: shutil.copy(path.parents[1] / "best.safetensors", path),
)


@fault(KIND, "any bit of the newest is flipped", outcome="bit-identical, whether it fell back or not", times=3)
def checkpoint_bit_anywhere(trial: Trial) -> None:
    newest, *_ = trial.half_way()
    flip(newest, trial.random.randrange(newest.stat().st_size), trial.random.randrange(8))
    trial.finish()


@fault(KIND, "the newest is missing", outcome="continues from the one before; bit-identical")
def checkpoint_missing(trial: Trial) -> None:
    newest, *_ = trial.half_way()
    newest.unlink()
    require("continuing at" in trial.finish(), "it started again")


@fault(KIND, "all are missing", outcome="starts again; bit-identical")
def checkpoints_missing(trial: Trial) -> None:
    for path in trial.half_way():
        path.unlink()
    require("continuing at" not in trial.finish(), "it continued from nothing")


@fault(KIND, "all are broken", outcome="stops with code 2 and names the remedy, `--fresh`; with it bit-identical")
def checkpoints_broken(trial: Trial) -> None:
    for path in trial.half_way():
        truncate(path, path.stat().st_size // 2)
    for _ in range(2):
        end = trial.start().wait()
        require(end.code == 2 and "--fresh" in end.text, f"ended with {end.code}: {end.text[-1000:]}")
    trial.finish("--fresh")


@fault(KIND, "the newest is broken after the end", outcome="does what is missing again; bit-identical")
def checkpoint_broken_after_the_end(trial: Trial) -> None:
    trial.finish()
    in_data(Checkpoints(trial.out).all()[0], trial.random)
    trial.finish()


def beside(name: str, sentence: str, file: str, change: Callable[[Path], object]) -> None:
    """Register: another file of the run is changed while it is not running."""

    def run(trial: Trial) -> None:
        trial.half_way()
        change(trial.out / file)
        trial.finish()

    fault("Damaged other file", sentence, name=name, outcome="written anew; bit-identical")(run)


beside("best-missing", "`best.safetensors` is missing", "best.safetensors", Path.unlink)
beside("best-bit", "a bit of `best.safetensors` is flipped", "best.safetensors", lambda path: flip(path, -9))
beside("best-json-empty", "`best.json` is empty", "best.json", lambda path: truncate(path, 0))
beside("history-missing", "`history.jsonl` is missing", "history.jsonl", Path.unlink)
beside("history-truncated", "`history.jsonl` ends in the middle of a line", "history.jsonl", lambda p: truncate(p, 30))
beside("recipe-missing", "`recipe.json` is missing", "recipe.json", Path.unlink)
beside("recipe-garbage", "`recipe.json` is garbage", "recipe.json", lambda path: path.write_bytes(b"\xff{"))


@fault(
    "Damaged other file", "everything but the checkpoints is lost after the end", outcome="written anew; bit-identical"
)
def only_checkpoints_left(trial: Trial) -> None:
    trial.finish()
    kept = set(Checkpoints(trial.out).all())
    for path in trial.out.rglob("*"):
        if path.is_file() and path not in kept:
            path.unlink()
    trial.finish()
