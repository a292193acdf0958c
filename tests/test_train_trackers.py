"""Trackers: each gets every number once, whatever happens to the run or to the tracker."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import tokenmix.train.trackers as trackers
from tests.test_train_resume import killed, run
from tokenmix.cli import main
from tokenmix.train.trackers import TRACKERS, Tracker

ROOT = Path(__file__).parents[1]


class Fake(Tracker):
    """Keeps what it gets, over all sessions."""

    sessions: list[dict]
    failing = ""

    def __init__(self, out, mark, config) -> None:
        if self.failing == "init":
            raise OSError("no route to host")
        self.told: list[tuple[int, dict]] = []
        self.sessions.append({"id": mark["id"], "told": self.told, "config": config, "failed": None})

    def log(self, step, values) -> None:
        if self.failing == "log" and step > 4:
            raise OSError("no route to host")
        self.told.append((step, dict(values)))

    def close(self, failed) -> None:
        self.sessions[-1]["failed"] = failed


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setitem(TRACKERS, "json", Fake)  # "json" can be imported, as an installed tracker
    monkeypatch.setattr(Fake, "sessions", [], raising=False)
    return Fake


def test_every_point_and_row_arrives_once(tmp_path, fake) -> None:
    result, _ = run(tmp_path, trackers=("json",))
    (session,) = fake.sessions
    assert [step for step, _ in session["told"]] == list(range(1, 19))
    values = dict(session["told"])
    curve = [json.loads(line) for line in (tmp_path / "steps.jsonl").read_text().splitlines()]
    for point in curve:
        assert values[point["step"]]["train/loss"] == point["loss"]
        assert values[point["step"]]["train/lr"] == point["lr"]
    for row in result.history:
        assert values[row["step"]]["val/top1"] == row["val_top1"]
        assert values[row["step"]]["run/images_per_second"] == row["images_per_second"]
    assert "val/top1" not in values[1]
    assert session["config"]["run.batch_size"] == 8
    assert session["failed"] is False


@pytest.mark.parametrize(("where", "call"), [("step", 3), ("step", 8), ("save", 7), ("publish", 1), ("end_epoch", 2)])
def test_a_killed_run_is_continued_without_doubles(tmp_path, monkeypatch, fake, where, call) -> None:
    monkeypatch.setattr("tokenmix.train.reporter.REFRESH_S", 0.0)
    killed(tmp_path, monkeypatch, where, call, trackers=("json",))
    run(tmp_path, trackers=("json",))
    first, second = fake.sessions
    assert first["id"] == second["id"]
    told = [step for session in fake.sessions for step, _ in session["told"]]
    assert told == list(range(1, 19))
    rows = [step for session in fake.sessions for step, values in session["told"] if "val/top1" in values]
    assert rows == [6, 12, 18]
    assert first["failed"] is True
    assert second["failed"] is False


def test_a_finished_run_can_still_be_told(tmp_path, fake) -> None:
    run(tmp_path)
    for _ in range(2):
        run(tmp_path, trackers=("json",))
    assert [len(session["told"]) for session in fake.sessions] == [18, 0]
    run(tmp_path, trackers=("json",), fresh=True)
    assert len(fake.sessions[-1]["told"]) == 18
    assert fake.sessions[-1]["id"] != fake.sessions[0]["id"]


def test_a_tracker_that_fails_is_left_out_and_the_run_goes_on(tmp_path, monkeypatch, fake) -> None:
    monkeypatch.setattr(fake, "failing", "log")
    result, lines = run(tmp_path, trackers=("json",))
    assert len(result.history) == 3
    assert lines == ["the tracker 'json' failed: no route to host; the training goes on without it"]
    monkeypatch.setattr(fake, "failing", "init")
    with pytest.raises(ValueError, match="the tracker 'json' does not start: no route to host"):
        run(tmp_path / "other", trackers=("json",))


def test_wrong_and_missing_trackers_are_named_before_any_work(tmp_path, monkeypatch, capsys) -> None:
    with pytest.raises(ValueError, match="unknown tracker 'tensorbord'; did you mean 'tensorboard'"):
        run(tmp_path / "run", trackers=("tensorbord",))
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ImportError, match=r"pip install 'tokenmix\[wandb\]'"):
        run(tmp_path / "run", trackers=("wandb",))
    assert not (tmp_path / "run").exists()
    assert main(["train", "digits", "--track", "tensorbord"]) == 2
    assert "did you mean 'tensorboard'" in capsys.readouterr().err


def test_tensorboard_reads_a_killed_run_without_doubles(tmp_path, monkeypatch) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setattr("tokenmix.train.reporter.REFRESH_S", 0.0)
    inner = trackers.write_json

    def dying(path, marks) -> None:  # between the event file and the mark: what is in the file comes again
        if marks.get("tensorboard", {}).get("step") == 8:
            raise KeyboardInterrupt
        inner(path, marks)

    with monkeypatch.context() as patch:
        patch.setattr(trackers, "write_json", dying)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, trackers=("tensorboard",))
    result, _ = run(tmp_path, trackers=("tensorboard",))
    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    curve = [json.loads(line) for line in (tmp_path / "steps.jsonl").read_text().splitlines()]
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [
        (point["step"], pytest.approx(point["loss"], rel=1e-6)) for point in curve
    ]
    assert [(event.step, event.value) for event in events.Scalars("val/top1")] == [
        (row["step"], pytest.approx(row["val_top1"])) for row in result.history
    ]


def session(out: Path, name: str, **environment: str) -> None:
    """Two sessions of a toy run in processes of their own, the first one stopped after the first epoch."""
    code = (
        "import sys\n"
        "from tests.train_toys import toy_data, toy_model, toy_recipe\n"
        "from tokenmix.train import fit\n"
        "import tokenmix.train.loop as loop\n"
        "if sys.argv[3] == 'stop':\n"
        "    inner = loop._Run.train_epoch\n"
        "    def stop(self):\n"
        "        if self.state.epoch == 1: raise KeyboardInterrupt\n"
        "        inner(self)\n"
        "    loop._Run.train_epoch = stop\n"
        "fit(toy_recipe(), toy_data(), sys.argv[1], model=toy_model, trackers=[sys.argv[2]])\n"
        "print('done')\n"
    )
    for end in ("stop", "go"):
        done = subprocess.run(
            [sys.executable, "-c", code, str(out), name, end],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert ("done" in done.stdout) == (end == "go"), done.stderr


def wandb_records(content: bytes) -> Iterator[bytes]:
    """The records of a file in LevelDB's log format, after wandb's own header of 7 bytes."""
    at, record = 7, b""
    while at + 7 <= len(content):
        if (room := 32768 - at % 32768) < 7:  # the rest of a block
            at += room
            continue
        length, kind = struct.unpack_from("<HB", content, at + 4)
        record += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


@pytest.mark.slow
def test_wandb_offline(tmp_path) -> None:
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    session(tmp_path / "run", "wandb", WANDB_MODE="offline")
    steps, ids = [], set()
    for file in sorted((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")):
        for content in wandb_records(file.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(content)
            if record.WhichOneof("record_type") == "run":
                ids.add(record.run.run_id)
            elif record.WhichOneof("record_type") == "history":
                keys = {item.key or "/".join(item.nested_key) for item in record.history.item}
                if "train/loss" in keys:
                    steps.append(record.history.step.num)
    assert steps == list(range(1, 19))
    assert ids == {json.loads((tmp_path / "run" / "trackers.json").read_text())["wandb"]["id"]}


@pytest.mark.slow
def test_trackio_locally(tmp_path) -> None:
    pytest.importorskip("trackio")
    session(tmp_path / "run", "trackio", TRACKIO_DIR=str(tmp_path / "trackio"), HF_HUB_OFFLINE="1")
    import sqlite3

    (database,) = (tmp_path / "trackio").glob("tokenmix*.db")
    with sqlite3.connect(database) as connection:
        rows = connection.execute("select run_name, step, metrics from metrics order by step").fetchall()
    assert [step for _, step, _ in rows] == list(range(1, 19))
    assert {name for name, *_ in rows} == {
        f"run-{json.loads((tmp_path / 'run' / 'trackers.json').read_text())['trackio']['id']}"
    }
    assert "train/loss" in str(rows[0][2])
