"""What a run shows: its files say the same as its checkpoint, and the loader is never slow in silence."""

from __future__ import annotations

import csv
import json
import re
import time

import pytest
import torch

import tokenmix.tasks.classification.evidence as evidence
import tokenmix.train.recorder as watching
import tokenmix.train.reporter as publish
from tests.test_train_resume import Killed, killed, outcome, run, same
from tests.train_toys import checkpoint, toy_data, toy_model, toy_recipe
from tokenmix.tasks.classification.loader import Loader
from tokenmix.train import Diverged, load_run
from tokenmix.train.training_step import TrainingStep


def points(out) -> list[dict]:
    return [json.loads(line) for line in (out / "steps.jsonl").read_text().splitlines()]


def page(out) -> str:
    return (out / "report.html").read_text()


def test_the_files_of_a_run(tmp_path) -> None:
    result, _ = run(tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert rows == result.history
    with (tmp_path / "history.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [{name: float(value) for name, value in row.items()} for row in table] == rows
    assert [row["step"] for row in rows] == [6, 12, 18]
    curve = points(tmp_path)
    assert [point["step"] for point in curve] == list(range(1, 19))
    for number, row in enumerate(rows):
        part = curve[6 * number : 6 * number + 6]
        assert sum(point["loss"] for point in part) / 6 == pytest.approx(row["loss"])
        assert part[-1]["epoch"] == row["epoch"]
        assert part[-1]["lr"] == row["lr"]
    assert all(row["images_per_second"] > 0 and 0 <= row["data_wait"] <= 100 for row in rows)
    assert all(row["memory_mb"] > 50 for row in rows)  # Python and torch alone take more


@pytest.mark.parametrize("most", [1, 4, 7])
def test_the_loss_curve_is_thinned_evenly(tmp_path, monkeypatch, most) -> None:
    run(tmp_path / "all", toy_recipe(epochs=2.5))
    monkeypatch.setattr(watching, "POINTS", most)
    run(tmp_path / "thin", toy_recipe(epochs=2.5))
    every = -(-15 // most)
    losses = [point["loss"] for point in points(tmp_path / "all")]
    thin = points(tmp_path / "thin")
    assert [point["step"] for point in thin] == sorted({*range(every, 16, every), 15})
    begin = 0
    for point in thin:
        part = losses[begin : point["step"]]
        assert point["loss"] == pytest.approx(sum(part) / len(part))
        begin = point["step"]
    assert thin[-1]["epoch"] == 2.5


@pytest.mark.parametrize("call", [2, 7])
def test_a_thinned_curve_survives_a_death(tmp_path, monkeypatch, call) -> None:
    monkeypatch.setattr(watching, "POINTS", 4)
    run(tmp_path / "whole")
    killed(tmp_path / "killed", monkeypatch, "step", call)
    run(tmp_path / "killed")
    assert same(outcome(tmp_path / "killed"), outcome(tmp_path / "whole"))


def test_skipped_steps_have_no_loss(tmp_path, monkeypatch) -> None:
    inner = TrainingStep.step

    def sometimes(self, batch, images, step, *rest):
        loss, bad, stop = inner(self, batch, images, step, *rest)
        return (float("nan"), "loss", stop) if step in (0, 4) else (loss, bad, stop)

    monkeypatch.setattr(TrainingStep, "step", sometimes)
    run(tmp_path)
    assert [point["step"] for point in points(tmp_path) if point["loss"] is None] == [1, 5]


def test_the_report_shows_what_the_kept_weights_get_wrong(tmp_path) -> None:
    data = toy_data()
    run(tmp_path, toy_recipe(epochs=1, lr=1e-4), data)
    seen = checkpoint(tmp_path)["watch"]
    model, info = load_run(tmp_path, model=toy_model())
    shape = {name: info[name] for name in ("image_size", "mean", "std", "crop_pct", "interpolation", "crop_mode")}
    (batch,) = Loader(data.val, batch_size=len(data.val), train=False, **shape).batches()
    with torch.no_grad():
        shares = model(batch["image"]).softmax(1)
    answer, sure = shares.argmax(1), shares.amax(1)
    wrong = [index for index in sure.argsort(descending=True).tolist() if answer[index] != batch["label"][index]]
    assert len(wrong) > 3
    assert [mistake["index"] for mistake in seen["evidence"]["mistakes"]] == wrong[: evidence.MISTAKES]
    assert sum(count for _, _, count in seen["evidence"]["cells"]) == len(data.val)
    text = page(tmp_path)
    assert f"{len(wrong)} of 18 validation images wrong" in text
    assert data.val.names[wrong[0]] in text
    assert text.count("data:image/png;base64,") == min(len(wrong), evidence.MISTAKES)
    assert "Finished after 1 epoch." in text


def test_the_report_follows_the_run(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(publish, "REFRESH_S", 0.0)
    seen: list[str] = []
    inner = publish.Reporter.refresh
    monkeypatch.setattr(
        publish.Reporter, "refresh", lambda self, *told: (inner(self, *told), seen.append(page(self.out)))
    )
    run(tmp_path)
    assert len(seen) == 15  # within three epochs of six steps
    assert "Running: epoch 0.1667 of 3." in seen[0]
    assert 'id="live"' in seen[-1]
    assert 'id="live"' not in page(tmp_path)


def test_a_report_says_why_the_run_stopped_and_goes_on_later(tmp_path, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(TrainingStep, "step", lambda *_: (float("nan"), "loss", [False, False]))
        with pytest.raises(Diverged):
            run(tmp_path, toy_recipe(max_bad_steps=3))
    assert "Stopped at epoch 0.3333 of 3." in page(tmp_path)
    assert "the loss is not finite, 3 steps in a row" in page(tmp_path)
    run(tmp_path, toy_recipe(max_bad_steps=3))
    assert "Finished after 3 epochs." in page(tmp_path)


def test_a_report_that_fails_is_said_once_and_the_run_goes_on(tmp_path, monkeypatch) -> None:
    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(publish, "write_run", full)
    result, lines = run(tmp_path)
    assert len(result.history) == 3
    assert [line for line in lines if "report.html could not be written: no space left on device" in line] == lines[:1]


class Slow:
    """Batches that take their time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self, batches):
        for batch in batches:
            time.sleep(self.seconds)
            yield batch


@pytest.mark.parametrize(
    ("workers", "remedy"), [(0, "give --workers 5 (workers=5)"), (5, "all 5 cores load already: store smaller images")]
)
def test_a_slow_loader_is_named_once_with_the_remedy(tmp_path, monkeypatch, workers, remedy) -> None:
    inner, slow = Loader.batches, Slow(0.02)
    monkeypatch.setattr(
        Loader, "batches", lambda self, *where: slow(inner(self, *where)) if self.train else inner(self, *where)
    )
    monkeypatch.setattr(watching, "PATIENCE_S", 0.05)
    monkeypatch.setattr(watching, "usable_cores", lambda: 5)
    inner_init = Loader.__init__
    monkeypatch.setattr(
        Loader, "__init__", lambda self, *words, **options: inner_init(self, *words, **(options | {"workers": 0}))
    )
    result, lines = run(tmp_path, workers=workers)
    (line,) = lines
    assert re.fullmatch(r"the loader is the bottleneck: \d+% of the time waits for images; (.*)", line)[1].startswith(
        remedy
    )
    assert all(row["data_wait"] > 20 for row in result.history)


def test_a_fast_loader_is_not_named(tmp_path, monkeypatch) -> None:
    inner = TrainingStep.step
    monkeypatch.setattr(TrainingStep, "step", lambda *told: (time.sleep(0.03), inner(*told))[1])
    monkeypatch.setattr(watching, "PATIENCE_S", 0.05)
    assert run(tmp_path, checkpoint_seconds=60.0)[1] == []


def test_a_run_that_dies_in_its_validation_keeps_its_first_evidence(tmp_path, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        inner = evidence.Answers.gather
        calls: list[int] = []

        def dying(self):
            calls.append(1)
            if len(calls) == 2:
                raise Killed
            return inner(self)

        patch.setattr(evidence.Answers, "gather", dying)
        with pytest.raises(Killed):
            run(tmp_path / "killed")
    run(tmp_path / "killed")
    run(tmp_path / "whole")
    assert same(outcome(tmp_path / "killed"), outcome(tmp_path / "whole"))
