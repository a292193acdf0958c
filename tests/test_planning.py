"""Plans: what is chosen from the data, how it is told, stored and taken up, and what is refused before any work."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.dense_toys import write_coco, write_plain
from tests.train_toys import toy_data
from tokenmix.cli import main
from tokenmix.planning import Budget, make_plan, read_budget, training
from tokenmix.planning.pace import Pace, measure_pace
from tokenmix.recipes import make_recipe
from tokenmix.tasks import find_task
from tokenmix.tasks.classification.planning import drafts
from tokenmix.tasks.dense.crops import object_crops
from tokenmix.tasks.dense.scenes import load_scenes
from tokenmix.tasks.picture_sizes import sides_up_to
from tokenmix.train.training_step import TrainingStep

TASK = find_task("classification")


@pytest.fixture
def quick(monkeypatch) -> list[float]:
    """A machine on which a step takes as long as the test says, so that nothing is measured."""
    step_s = [0.01]

    def measured(recipe, data, device, **options) -> Pace:
        steps = int(recipe.schedule.epochs * max(1, len(data.train) // recipe.run.batch_size))
        return Pace(step_s[0], 0.0, steps, int(recipe.schedule.epochs), 1_000_000)

    monkeypatch.setattr("tokenmix.planning.plan.measure_pace", measured)
    return step_s


def photos(root: Path, classes: dict[str, int], side: int = 40) -> Path:
    """A folder of noise with a class's own colour."""
    rng = np.random.default_rng(0)
    for place, (name, count) in enumerate(classes.items()):
        (root / name).mkdir(parents=True)
        for index in range(count):
            pixels = rng.integers(0, 120, (side, side, 3), dtype=np.uint8)
            pixels[..., place % 3] += 90
            Image.fromarray(pixels).save(root / name / f"{index}.png")
    return root


@pytest.mark.parametrize(
    ("words", "budget", "text"),
    [
        (["10min"], Budget(600.0), "10 min"),
        (["2h"], Budget(7200.0), "2.0 h"),
        (["2ms"], Budget(None, 2.0), "2ms"),
        (["0.5h", "1.5ms"], Budget(1800.0, 1.5), "30 min 1.5ms"),
        (["90s"], Budget(90.0), "90 s"),
        (["149s", "2ms"], Budget(149.0, 2.0), "149 s 2ms"),
    ],
)
def test_budgets(words: list[str], budget: Budget, text: str) -> None:
    assert read_budget(words) == budget
    assert str(budget) == text


@pytest.mark.parametrize("words", [["soon"], ["10"], ["10min", "2h"], ["0ms"]])
def test_what_is_no_budget(words: list[str]) -> None:
    with pytest.raises(ValueError, match="--budget"):
        read_budget(words)


def test_pictures_are_not_blown_up() -> None:
    assert sides_up_to((96, 64, 48, 32), (200, 140)) == [96, 64, 48, 32]
    assert sides_up_to((96, 64, 48, 32), (70, 50)) == [48, 32]
    assert sides_up_to((96, 64, 48, 32), (8, 8)) == [32]
    found = drafts(toy_data(), torch.device("cpu"), published=False)
    assert [draft.recipe.model.name for draft in found] == ["resnet10t", "mixernet_pico"]
    for draft in found:
        assert "blown up to 32 px" in draft.words["pictures"]


def test_rare_classes_count_for_more() -> None:
    data = toy_data()
    assert drafts(data, torch.device("cpu"), published=False)[0].recipe.task.balance == "none"
    data.train.labels = [0] * 40 + [1] * 8 + [2] * 10
    first = drafts(data, torch.device("cpu"), published=False)[0]
    assert first.recipe.task.balance == "weights"
    assert "rare classes count for more" in first.words["classes"]
    data.train.labels = [0] * 40 + [1] * 5 + [2] * 3
    first = drafts(data, torch.device("cpu"), published=False)[0]
    assert first.recipe.task.balance == "sampling"
    assert "rare classes are shown as often as the others" in first.words["classes"]


def test_a_short_plan_is_not_all_warm_up() -> None:
    found = drafts(toy_data(), torch.device("cpu"), published=False)[0]
    assert found.shorter is not None
    warmups = [found.shorter(epochs).schedule.warmup_epochs for epochs in (1, 3, 4, 60)]
    assert warmups == [0.25, 0.75, 1.0, 3.0]


def test_time_decides(quick) -> None:
    data = toy_data(train=480)
    plan = make_plan(data, "toy", TASK)
    whole = plan.recipe.schedule.epochs
    assert plan.seconds <= 1800
    assert any("here, of at most 30 min" in line for line in plan.lines)
    quick[0] = 3.0
    short = make_plan(data, "toy", TASK, budget=Budget(60.0))
    assert short.recipe.schedule.epochs < whole
    assert short.seconds <= 120
    side = plan.recipe.task.image_size[0]
    assert f"too little time for {plan.recipe.model.name} at {side} px for {whole:g} epochs" in short.lines[-1]
    fixed = make_plan(data, "toy", TASK, ["epochs=7", "lr=0.5"], budget=Budget(60.0))
    assert (fixed.recipe.schedule.epochs, fixed.recipe.optimizer.lr) == (7.0, 0.5)
    assert "as you set it" in fixed.lines[-1]
    assert fixed.recipe.source == "ours: planned for toy, epochs=7, lr=0.5, budget 60 s; see `tokenmix docs finetune`"


def test_ways_to_compute_are_kept_where_they_are_faster(monkeypatch) -> None:
    def measured(recipe, data, device, **options) -> Pace:
        run = recipe.run
        step_s = 0.02 * (0.5 if run.channels_last else 1.0) * (0.95 if run.precision == "bfloat16" else 1.0)
        return Pace(step_s, 0.0, 100, 10, 1_000_000)

    monkeypatch.setattr("tokenmix.planning.plan.measure_pace", measured)
    run = make_plan(toy_data(), "toy", TASK).recipe.run
    assert (run.channels_last, run.precision) == (True, "float32")  # a twentieth is not worth other digits
    run = make_plan(toy_data(), "toy", TASK, ["channels_last=false"]).recipe.run
    assert (run.channels_last, run.precision) == (False, "float32")
    plan = make_plan(toy_data(), "toy", TASK, ["precision=bfloat16"])
    assert (plan.recipe.run.channels_last, plan.recipe.run.precision) == (True, "bfloat16")
    assert "averaged weights, in bfloat16" in plan.lines[2]


def test_arguments_go_with_their_model(quick) -> None:
    def chosen(*settings: str) -> tuple[str, dict]:
        model = make_plan(toy_data(), "toy", TASK, settings).recipe.model
        return model.name, model.args

    assert chosen() == ("resnet10t", {})
    assert chosen("model_args.mixers=aff") == ("mixernet_pico", {"mixers": "aff", "stem_stride": 2})
    assert chosen("model=casvit_xs") == ("casvit_xs", {})
    assert chosen("model=mixernet_tiny", "model_args.mixers=pool") == ("mixernet_tiny", {"mixers": "pool"})
    many = toy_data(train=20_001)
    assert make_plan(many, "toy", TASK).recipe.model.name == "mixernet_tiny"
    assert make_plan(many, "toy", TASK, ["model=casvit_xs"]).recipe.model.args == {}


def test_a_plan_is_a_recipe_that_is_taken_up(tmp_path, quick, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "photos", {"red": 30, "green": 30})
    words = ["train", "--data", "photos", "--out", "run", "epochs=1", "warmup_epochs=0", "model_args.mixers=identity"]
    assert main([*words, "--plan"]) == 0
    told = capsys.readouterr().out
    assert "train it: the same command without --plan" in told
    assert "tokenmix train run/plan.json --data photos" in told
    assert not (tmp_path / "run" / "checkpoints").exists()
    stored = make_recipe("run/plan.json", ["data=photos"])
    assert (stored.schedule.epochs, stored.task.image_size) == (1.0, (32, 32))
    assert main([*words, "--batch-size", "21"]) == 0
    told = capsys.readouterr().out
    assert "plan: classification of photos" in told  # another batch size is another plan
    assert "test: top1" in told
    assert "top5" not in told  # two classes
    assert "next: tokenmix predict FILE --model run" in told
    assert json.loads((tmp_path / "run" / "test.json").read_text())["samples"] == 8
    assert main([*words, "--batch-size", "21", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {"best", "seconds", "weights", "test", "advice"}
    assert main([*words, "--set", "batch_size=21"]) == 0
    assert "the plan that was made before" in capsys.readouterr().out


def test_a_class_without_test_samples_has_no_number(tmp_path, monkeypatch) -> None:
    judged = SimpleNamespace(numbers={"mIoU": 40.0, "edge": math.nan}, rows=[{"class": "b", "IoU": math.nan}])
    monkeypatch.setattr(training, "open_model", lambda weights: None)
    monkeypatch.setattr(training, "judge", lambda *args, **options: judged)
    fitted, recipe = SimpleNamespace(best={"weights_sha256": "1"}, best_weights=tmp_path), make_recipe("basic")
    for _ in range(2):  # the second time it is read
        found = training._tested(tmp_path, fitted, toy_data(), recipe, torch.device("cpu"), 0, print)
        assert found == ({"mIoU": 40.0}, 6)
    assert json.loads((tmp_path / "test.json").read_text())["rows"] == [{"class": "b", "IoU": None}]


def test_a_run_keeps_its_plan(tmp_path, quick, capsys, monkeypatch) -> None:
    """Another question is refused before anything is measured or written, with --plan too."""
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "photos", {"red": 12, "green": 12})
    words = ["train", "--data", "photos", "--out", "run", "epochs=1", "warmup_epochs=0", "model_args.mixers=identity"]
    assert main([*words, "--json"]) == 0
    before = {path: path.read_bytes() for path in sorted((tmp_path / "run").rglob("*")) if path.is_file()}
    capsys.readouterr()
    for more in (["lr=0.001"], ["--budget", "60s"], ["lr=0.001", "--plan"], ["--fresh", "--plan"]):
        assert main([*words, *more]) == 2
        told = capsys.readouterr()
        assert "holds a run of another recipe" in told.err
        assert "measuring" not in told.out
    assert {path: path.read_bytes() for path in sorted((tmp_path / "run").rglob("*")) if path.is_file()} == before
    assert main([*words, "accumulate=2"]) == 0  # as a run is told that lacked memory
    assert "the plan that was made before" in capsys.readouterr().out
    words[2] = "./photos/"  # the same folder
    assert main(words) == 0
    assert "the plan that was made before" in capsys.readouterr().out


def test_values_are_refused_before_anything_is_measured(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "photos", {"red": 8, "green": 8})
    assert main(["train", "--data", "photos", "--out", "run", "epochs=abc"]) == 2
    told = capsys.readouterr()
    assert "epochs" in told.err
    assert "measuring" not in told.out


def test_planning_ends_after_its_share_of_the_time(monkeypatch) -> None:
    """A measurement takes three seconds of a made-up clock; what is left is chosen by the cheapest draft."""
    now, asked = [0.0], []

    def measured(recipe, data, device, **options) -> Pace:
        asked.append((recipe.model.name, recipe.run.channels_last))
        now[0] += 3.0
        return Pace(50.0, 0.0, 100, 10, 1_000_000)

    monkeypatch.setattr("tokenmix.planning.plan.measure_pace", measured)
    monkeypatch.setattr("tokenmix.planning.plan.time.perf_counter", lambda: now[0])
    plan = make_plan(toy_data(), "toy", TASK, budget=Budget(8.0), log=lambda line: None)
    assert asked == [("resnet10t", False), ("mixernet_pico", False)]
    assert plan.planning_s == 6.0
    assert "  planning  took 6 s, which count" in plan.lines
    assert plan.recipe.schedule.epochs == 1


def test_a_pace_is_measured_by_one_step_where_there_is_no_time() -> None:
    data = toy_data()
    recipe = make_plan_recipe()
    steps = []
    taken = TrainingStep.step

    def step(self, *args, **options):
        steps.append(1)
        return taken(self, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingStep, "step", step)
        assert measure_pace(recipe, data, torch.device("cpu"), until=0.0).step_s > 0
        assert len(steps) == 1
        measure_pace(recipe, data, torch.device("cpu"), most_s=0.0)
        assert len(steps) == 3  # one that warms up, and one


def make_plan_recipe():
    """A small recipe for the toy data."""
    return make_recipe("mixernet_pico", ["model_args.mixers=identity", "batch_size=4", "image_size=32", "epochs=1"])


def test_what_is_said_of_the_size_is_so(quick) -> None:
    plan = make_plan(toy_data(), "toy", TASK, ["image_size=48", "epochs=1"])
    assert "48 px" in plan.lines[1]
    assert "32 px" not in "".join(plan.lines)
    assert "1 epoch," in plan.lines[2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "nowhere"], "nowhere"),
        (["./nowhere/"], "./nowhere/: there is no such file or folder"),
        (["nowhere.zip"], "nowhere.zip: there is no such file or folder"),
        (["nowhere"], "unknown recipe or model 'nowhere'"),
        ([], "name what to learn from"),
        (["--data", "photos", "--budget", "tomorrow"], "--budget tomorrow"),
        (["basic", "--data", "photos", "--budget", "1h"], "a budget is for a plan"),
        (["basic", "--data", "photos", "--plan"], "--plan is for what is planned"),
        (["--data", "photos", "epochz=3"], "did you mean 'epochs'"),
        (["--data", "photos", "--track", "nobody"], "nobody"),
        (["--data", "photos", "--device", "gpu"], "gpu"),
    ],
)
def test_mistakes_are_told_before_any_work(tmp_path, monkeypatch, capsys, words, message) -> None:
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "photos", {"red": 8, "green": 8})
    assert main(["train", *words, "--out", "run"]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_detectors_start_at_cut_outs_of_their_own_pictures() -> None:
    pytest.importorskip("skimage")
    data = load_scenes("detection")
    data.train = data.train.subset(range(60)) if hasattr(data.train, "subset") else data.train
    draft = find_task("detection").drafts(data, torch.device("cpu"))[0]
    assert draft.recipe.model.head == "ssdlite"
    assert draft.recipe.task.image_size[0] <= 96
    assert draft.start is not None
    crops = object_crops(data)
    assert set(crops.classes) <= set(data.classes)
    index = len(crops.train) // 2
    assert min(crops.train.load(index).size) >= 8


@pytest.mark.parametrize(("write", "title"), [(write_coco, "detection"), (write_plain, "segmentation")])
def test_boxes_and_masks_by_the_same_command(tmp_path, monkeypatch, capsys, quick, write, title) -> None:
    """A first stage on cut-outs, then the detector or segmenter that starts at its backbone; taken up again."""
    pytest.importorskip("pycocotools")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tokenmix.tasks.dense.planning.LEAST_CROPS", 2)
    monkeypatch.setattr("tokenmix.tasks.dense.planning.CROPS_SEEN", 1)
    write(tmp_path / "data", count=8)
    words = ["train", "--data", "data", "--out", "run", "epochs=1", "warmup_epochs=0", "image_size=32,48"]
    assert main(words) == 0
    told = capsys.readouterr().out
    assert f"plan: {title} of data" in told
    assert "a backbone that first learns to name" in told
    assert "tensors fill the backbone" in told
    assert (tmp_path / "run" / "start" / "best.safetensors").is_file()
    assert make_recipe("run", ["data=data", "weights=run/start"]).model.weights == "run/start"
    assert main(words) == 0
    assert "the plan that was made before" in capsys.readouterr().out
