"""Points as a task: trained, killed and continued, judged, asked, and refused to the exporters, all by the house."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.scramble import scramble
from tokenmix.checkpoints import load_checkpoint, open_model
from tokenmix.cli import main
from tokenmix.data.loader import Key
from tokenmix.evaluate import judge
from tokenmix.recipes import make_recipe
from tokenmix.sources import load_data
from tokenmix.tasks import find_task
from tokenmix.tasks.points import sets
from tokenmix.tasks.points.batches import CloudBatches, collate, whole_sample
from tokenmix.tasks.points.cloud import Cloud, make_cloud
from tokenmix.tasks.points.model import PointUNet
from tokenmix.tasks.points.objective import PointsObjective
from tokenmix.tasks.points.official import KEYS
from tokenmix.tasks.points.options import VIEWS, Augment
from tokenmix.tasks.points.ply import read_ply, write_ply
from tokenmix.tasks.points.sets import CloudSet, PointData
from tokenmix.train import fit
from tokenmix.train.schedule import learning_rate
from tokenmix.train.training_step import TrainingStep

TINY = {"depths": [1, 1], "dims": [8, 16], "decoder_depths": [1], "decoder_dims": [8]}
SETTINGS = [
    f"model_args={TINY}",
    "data=rooms",
    "batch_size=2",
    "epochs=6",
    "warmup_epochs=1",
    "lr=0.02",
    "augment.max_voxels=400",
    "augment.mix=0.5",
    "task.voxel=0.2",
]
QUIET = {"progress": False, "log": lambda line: None}


def corner(index: int) -> Cloud:
    """A floor and a wall of one metre, with as many colours as classes."""
    draw = np.random.default_rng(index)
    u, v = draw.random((2, 600)) * 2
    wall = np.arange(600) % 2
    noise = draw.normal(0, 0.01, (600, 3))
    coord = np.where(wall[:, None] == 1, np.stack((u, 0 * u, v), 1), np.stack((u, v, 0 * u), 1)) + noise
    normal = np.where(wall[:, None] == 1, [[0, 1, 0]], [[0, 0, 1]])
    return make_cloud(coord, np.where(wall[:, None] == 1, 200, 60) + draw.normal(0, 30, (600, 3)), normal, segment=wall)


@pytest.fixture(autouse=True, scope="module")
def corners() -> Iterator[None]:
    """Corners in the place of the embedded rooms, which take longer."""
    made = sets.embedded_rooms

    def few() -> PointData:
        parts = [
            CloudSet([f"corner/{begin + i}" for i in range(count)], lambda i, begin=begin: corner(begin + i))
            for begin, count in ((0, 8), (8, 3), (11, 3))
        ]
        return PointData("rooms", *parts, ["floor", "wall"], ["color", "normal"], 0.1)

    sets.embedded_rooms = few
    yield
    sets.embedded_rooms = made


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("points") / "run"
    fit(make_recipe("rooms", SETTINGS), load_data("rooms", task="points", log=lambda line: None), out, **QUIET)
    return out


def test_it_learns_and_is_judged(trained: Path) -> None:
    loaded = open_model(trained)
    assert (loaded.task, loaded.facts["classes"], loaded.facts["features"]) == (
        "points",
        ["floor", "wall"],
        ["color", "normal"],
    )
    data = load_data("rooms", task="points", log=lambda line: None)
    quick = judge(loaded, data.test, data.facts)
    assert quick.numbers["mIoU"] > 80
    assert [row["class"] for row in quick.rows] == ["floor", "wall"]
    voted = judge(loaded, data.test, data.facts, views="none")
    assert voted.numbers["mIoU"] > 80
    assert voted.numbers != quick.numbers
    assert find_task("points").seen(loaded).voxel == 0.2


def test_its_page_shows_clouds(trained: Path) -> None:
    page = (trained / "report.html").read_text()
    assert "cloud-view" in page
    assert "Worst clouds" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_a_killed_run_equals_an_unkilled_one(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = load_data("rooms", task="points", log=lambda line: None)
    step, calls = TrainingStep.step, []

    def dying(self: TrainingStep, *args: object) -> object:
        calls.append(1)
        if len(calls) == 10:
            raise KeyboardInterrupt
        return step(self, *args)  # type: ignore[arg-type]

    recipe = make_recipe("rooms", SETTINGS)
    monkeypatch.setattr(TrainingStep, "step", dying)
    with pytest.raises(KeyboardInterrupt):
        fit(recipe, data, tmp_path, checkpoint_seconds=0, **QUIET)
    monkeypatch.undo()
    fit(recipe, data, tmp_path, **QUIET)
    ours, theirs = (open_model(folder).model.state_dict() for folder in (tmp_path, trained))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_commands_know_it(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(trained), "--data", "rooms", "--views", "none", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["task"], told["clouds"]) == ("points", 3)
    cloud = corner(20)
    write_ply(tmp_path / "corner.ply", Cloud(cloud.coord, cloud.color))  # no normals: they are estimated
    out = tmp_path / "out"
    assert main(["predict", str(tmp_path / "corner.ply"), "--model", str(trained), "--out", str(out), "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    labelled = read_ply(answer["cloud"])
    assert labelled.segment is not None
    assert cloud.segment is not None
    assert (labelled.segment == cloud.segment).mean() > 0.8
    assert Path(answer["drawing"]).stat().st_size > 1000
    assert sum(row["points"] for row in answer["classes"]) == 600
    assert main(["data", "check", "rooms", "--task", "points"]) == 0
    assert main(["predict", str(tmp_path / "none.ply"), "--model", str(trained)]) == 2
    assert main(["export", str(trained), "--out", str(tmp_path / "points.onnx")]) == 2
    told_why = capsys.readouterr().err
    assert "ONNX" in told_why
    assert "Traceback" not in told_why


def test_official_checkpoints_are_opened_and_converted_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = scramble(PointUNet((1, 1), (8, 16), (1,), (8,), num_classes=13, act="relu")).eval()
    official = KEYS.to_official(model.state_dict())
    torch.save({"state_dict": official}, tmp_path / "model_best.pth")
    with pytest.warns(UserWarning, match="cannot tell act"):
        loaded = open_model(tmp_path / "model_best.pth")
    assert loaded.facts["classes"][:3] == ["ceiling", "floor", "wall"]
    points = torch.randn(20, 6), torch.randint(0, 5, (20, 3)), torch.tensor([20])
    assert not torch.allclose(loaded.model(*points), model(*points))
    same = load_checkpoint(tmp_path / "model_best.pth", act="relu")
    torch.testing.assert_close(same(*points), model(*points))


@pytest.mark.parametrize("name", ["ffnet_points_scannet", "ffnet_points_scannet200", "ffnet_points_s3dis"])
def test_published_recipes_build_and_take_a_step(name: str) -> None:
    task, recipe = find_task("points"), make_recipe(name, [f"model_args={TINY}"])
    facts = {"classes": ["floor", "wall"], "features": ["color", "normal"], "voxel": 0.02}
    objective = task.objective(recipe, task.build(recipe, facts), facts)
    clouds = CloudSet(["a", "b"], corner)
    kind = {"features": recipe.task.features, "voxel": 0.1, "augment": recipe.augment.parts}
    batch = CloudBatches(clouds, **kind)[Key(0, (), [0, 1], 2)]
    objective(batch)["loss"].backward()
    rates = task.learning_rates(recipe, objective.model)
    assert set(rates.values()) == {0.1, 1.0}
    assert rates["encoder.0.blocks.0.mlp.fc1.weight"] == 0.1
    assert rates["head.weight"] == 1.0


def test_batches_in_parts_are_whole_clouds() -> None:
    samples = [whole_sample(corner(i), ("color", "normal"), 0.2) for i in range(5)]
    batch = collate(samples) | {"index": torch.arange(5)}
    objective = PointsObjective(
        PointUNet((1,), (8,), (), (), num_classes=2), num_classes=2, features=("color", "normal"), voxel=0.2
    )
    parts = objective.parts(batch, 2)
    assert [count for _, count in parts] == [3, 2]
    assert torch.equal(torch.cat([part["feat"] for part, _ in parts]), batch["feat"])
    assert parts[1][0]["offset"].tolist() == [len(samples[3].feat), len(samples[3].feat) + len(samples[4].feat)]
    mixed = collate([replace(sample, mix=True) for sample in samples]) | {"index": torch.arange(5)}
    assert [count for _, count in objective.parts(mixed, 3)] == [2, 2, 1]


def test_a_cloud_of_one_coarse_voxel_can_be_learnt_from() -> None:
    network = PointUNet((1, 1), (8, 8), (1,), (2,), num_classes=2, in_chans=3).train()
    coord = torch.tensor([[0, 0, 0], [0, 0, 1], [1, 0, 0]])
    network(feat=torch.randn(3, 3), grid_coord=coord, offset=torch.tensor([3])).sum().backward()
    assert all(torch.isfinite(one.grad).all() for one in network.parameters() if one.grad is not None)
    assert torch.isfinite(torch.cat([one.flatten().float() for one in network.buffers()])).all()


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match=r"task.features"):
        make_recipe("rooms", ["task.features=['colour']"])
    with pytest.raises(ValueError, match=r"task.views"):
        make_recipe("rooms", ["task.views=often"])
    assert set(VIEWS) == {"quick", "none", "scannet", "s3dis"}
    assert Augment(name="elastic").parts.elastic == (0.2, 0.4, 0.8, 1.6)


def test_one_cycle_is_torchs() -> None:
    total, peak = 200, 0.006
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=peak, total_steps=total, pct_start=0.05, div_factor=10.0, final_div_factor=1000.0
    )
    for step in range(total):
        ours = learning_rate(
            step, total=total, warmup=10, lr=peak, warmup_lr=peak / 10, min_lr=peak / 1e4, schedule="onecycle"
        )
        assert ours == pytest.approx(theirs.get_last_lr()[0], rel=1e-12)
        optimizer.step()
        if step < total - 1:
            theirs.step()
