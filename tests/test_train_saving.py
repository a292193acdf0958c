"""Checkpoints are written beside the training, which goes on meanwhile and still hears what went wrong."""

from __future__ import annotations

import copy
import threading

import pytest
import torch

from tests.test_train_resume import outcome, run, same
from tests.train_toys import checkpoint, toy_recipe
from tokenmix.train.checkpoint import ALONE, Checkpoints
from tokenmix.train.loop import _Run
from tokenmix.train.saving import Writer, snapshot


def test_the_training_goes_on_while_a_checkpoint_is_written(tmp_path, monkeypatch) -> None:
    """The first checkpoint is not finished before two more steps are done, and holds its own moment all the same."""
    run(tmp_path / "plain")
    steps: list[int] = []
    two_more = threading.Event()
    inner_step, inner_save = _Run.step, Checkpoints.save

    def step(self, *given) -> None:
        inner_step(self, *given)
        steps.append(self.state.steps)
        self.due = self.state.steps == 1
        if self.state.steps == 3:
            two_more.set()

    def save(self, content, group=None) -> None:
        if content["state"]["steps"] == 1:
            assert two_more.wait(60)
            early.append(copy.deepcopy(content))
        inner_save(self, content, group)

    early: list[dict] = []
    monkeypatch.setattr(_Run, "step", step)
    monkeypatch.setattr(Checkpoints, "save", save)
    run(tmp_path / "beside", checkpoint_seconds=60.0)
    assert same(outcome(tmp_path / "beside"), outcome(tmp_path / "plain"))
    monkeypatch.undo()
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "stopped")
    (content,), stopped = early, checkpoint(tmp_path / "stopped")
    for name in ("task", "optimizer", "average"):
        assert same(content[name], stopped[name])


def stop_after(patch, steps: int) -> None:
    """Let the run end by Ctrl-C after that many steps."""
    inner = _Run.step

    def step(self, *given) -> None:
        inner(self, *given)
        if self.state.steps == steps:
            self.signals.came.append(2)

    patch.setattr(_Run, "step", step)


def test_what_a_writer_meets_is_raised_where_it_is_waited_for() -> None:
    def fail() -> None:
        raise OSError("the disk is gone")

    done: list[int] = []
    with Writer(ALONE) as writer:
        writer.start(fail)
        with pytest.raises(OSError, match="the disk is gone"):
            writer.wait()
        writer.wait()  # it is told once
        writer.start(fail)
        writer.settle()
        writer.start(lambda: done.append(1))
    assert done == [1]  # leaving waits


def test_the_last_checkpoint_of_a_run_is_waited_for(tmp_path, monkeypatch) -> None:
    inner = Checkpoints.save

    def save(self, content, group=None) -> None:
        if content["state"]["finished"]:
            raise OSError("the last one fails")
        inner(self, content, group)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", save)
        with pytest.raises(OSError, match="the last one fails"):
            run(tmp_path, toy_recipe(epochs=1))
    assert not checkpoint(tmp_path)["state"]["finished"]
    assert run(tmp_path, toy_recipe(epochs=1))[0].history


def test_a_snapshot_does_not_change_any_more() -> None:
    value = torch.arange(24.0).view(1, 2, 3, 4).to(memory_format=torch.channels_last)
    given = {"a": [value, (value[0], "text", None)], "b": {0: torch.tensor(3)}}
    copied = snapshot(given, torch.device("cpu"))
    expected = copy.deepcopy(given)
    value.zero_()
    assert same(copied["a"][0], expected["a"][0])
    assert same(copied["a"][1][0], expected["a"][1][0])
    assert copied["a"][1][1:] == ("text", None)
    assert copied["a"][0].stride() == value.stride()
    assert isinstance(copied["a"][1], tuple)
