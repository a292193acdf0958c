"""The checkpoints of a run: how many stay, and what happens when there is no room for one."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest
import torch

import tokenmix.cli.train_command
import tokenmix.files
from tests.test_train_resume import killed, outcome, run, same
from tests.train_toys import checkpoint, toy_recipe
from tokenmix.cli import main
from tokenmix.files import DiskFull, sweep
from tokenmix.recipes import Recipe
from tokenmix.train.checkpoint import Checkpoints


@pytest.mark.parametrize("keep", [1, 3])
def test_the_last_ones_stay(tmp_path, keep) -> None:
    run(tmp_path, keep=keep)
    names = [path.name for path in Checkpoints(tmp_path).all()]
    expected = ["step-00000018-epoch-0003.pt", "step-00000017-epoch-0002.pt", "step-00000016-epoch-0002.pt"]
    assert names == expected[:keep]
    assert sorted(os.listdir(tmp_path / "checkpoints")) == sorted(names)


def test_none_to_keep_is_a_mistake(tmp_path) -> None:
    with pytest.raises(ValueError, match="keep must be 1 checkpoint or more, got 0"):
        run(tmp_path, keep=0)


def test_what_killed_writers_left_is_removed(tmp_path, monkeypatch) -> None:
    killed(tmp_path, monkeypatch, "save", 3)
    left = [tmp_path / ".best.safetensors.x.tmp", tmp_path / "checkpoints" / ".step-00000003-epoch-0000.pt.x.tmp"]
    for path in left:
        path.write_bytes(b"half")
    (folder := tmp_path / "checkpoints" / ".step-00000009-epoch-0000.tmp").mkdir()
    run(tmp_path)
    assert not any(path.exists() for path in (*left, folder))


@pytest.mark.parametrize("fresh", [False, True])
def test_a_fresh_start_that_was_killed_leaves_a_folder_that_works(tmp_path, monkeypatch, fresh) -> None:
    def dying(path: Path) -> None:
        raise KeyboardInterrupt

    checkpoints = Checkpoints(tmp_path)
    _write_one(checkpoints)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", dying)
        with pytest.raises(KeyboardInterrupt):
            checkpoints.clear()
    if fresh:
        _write_one(checkpoints)
        checkpoints.clear()
    sweep(tmp_path)
    assert os.listdir(tmp_path) == []


def _write_one(checkpoints: Checkpoints) -> None:
    checkpoints.folder.mkdir()
    (checkpoints.folder / "step-00000001-epoch-0000.pt").write_bytes(b"of another recipe")


def test_the_recipe_in_a_checkpoint_and_beside_it_repeats_the_run(tmp_path) -> None:
    run(tmp_path / "one", toy_recipe(mixup=0.3, warmup_epochs=0, warmup_steps=4, schedule="linear"))
    written = Recipe.from_json((tmp_path / "one" / "recipe.json").read_text())
    assert written == Recipe.from_json(checkpoint(tmp_path / "one")["recipe"])
    run(tmp_path / "two", written)
    assert same(outcome(tmp_path / "one"), outcome(tmp_path / "two"))


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def disk(monkeypatch):
    """A disk whose size can be set: what goes beyond it is an error once it is to be written out."""
    room: dict[Path, int] = {}
    inner = tokenmix.files.sync

    def sync(path) -> None:
        if any(size(folder) > limit for folder, limit in room.items()):
            raise OSError(errno.ENOSPC, "No space left on device")
        inner(path)

    monkeypatch.setattr(tokenmix.files, "sync", sync)
    return room


def test_older_checkpoints_make_room(tmp_path, disk) -> None:
    run(tmp_path / "whole")
    one = Checkpoints(tmp_path / "whole").newest().stat().st_size
    disk[tmp_path / "full"] = size(tmp_path / "whole") + one // 2  # two and a half checkpoints
    run(tmp_path / "full", keep=2)
    assert same(outcome(tmp_path / "full"), outcome(tmp_path / "whole"))


@pytest.mark.parametrize("share", [0.3, 0.8, 1.5])
def test_a_full_disk_is_one_error_and_nothing_is_lost(tmp_path, disk, share) -> None:
    run(tmp_path / "whole")
    one, out = Checkpoints(tmp_path / "whole").newest().stat().st_size, tmp_path / "full"
    (out / "checkpoints").mkdir(parents=True)
    (out / "checkpoints" / "step-00000000-epoch-0000.pt.broken").write_bytes(bytes(one))
    disk[out] = int(share * one)
    for _ in range(2):
        with pytest.raises(
            DiskFull, match=r"full needs about [\d,]+ bytes and [\d,]+ are free; .* the same command continues"
        ):
            run(out)
    assert size(out) <= disk[out]
    assert not list(out.rglob("*.tmp")) + list(out.rglob("*.broken"))
    if share > 1:
        assert Checkpoints(out).newest() is not None
    disk.clear()
    run(out)
    assert same(outcome(out), outcome(tmp_path / "whole"))


def test_no_room_for_the_results(tmp_path, monkeypatch, disk) -> None:
    run(tmp_path / "whole")
    killed(tmp_path / "full", monkeypatch, "save", 12)  # the epoch's end, before its weights are written
    (tmp_path / "full" / "best.safetensors").unlink(missing_ok=True)
    disk[tmp_path / "full"] = size(tmp_path / "full") // 3
    with pytest.raises(DiskFull):
        run(tmp_path / "full")
    assert Checkpoints(tmp_path / "full").newest().name == "step-00000012-epoch-0002.pt"
    disk.clear()
    run(tmp_path / "full")
    assert same(outcome(tmp_path / "full"), outcome(tmp_path / "whole"))


@pytest.mark.parametrize(
    "error", [DiskFull("the disk is full"), ConnectionError("process 0 of 2 has lost another one")]
)
def test_the_exit_code_says_try_again(tmp_path, monkeypatch, capsys, error) -> None:
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("tokenmix.planning.training.fit", fail)
    assert main(["train", "digits", "--out", str(tmp_path)]) == 75
    assert capsys.readouterr().err == f"tokenmix train: error: {error}\n"


def test_a_file_of_another_kind_is_no_checkpoint(tmp_path) -> None:
    run(tmp_path, toy_recipe(epochs=1))
    for path in Checkpoints(tmp_path).all():
        torch.save({"format": "something else"}, path)
    with pytest.raises(ValueError, match="no readable checkpoint"):
        run(tmp_path, toy_recipe(epochs=1))
