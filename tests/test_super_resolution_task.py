"""Super-resolution as a task of the house: data, training, judging, commands."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests import browser, goldens
from tokenmix import load_checkpoint
from tokenmix.checkpoints import convert, open_model
from tokenmix.cli import main
from tokenmix.evaluate import judge
from tokenmix.recipes import make_recipe
from tokenmix.sources import load_data
from tokenmix.tasks import find_task
from tokenmix.tasks.super_resolution.evidence import PictureScores
from tokenmix.tasks.super_resolution.metrics import compare_pictures
from tokenmix.tasks.super_resolution.model import Upscaler
from tokenmix.tasks.super_resolution.page import compare_sections
from tokenmix.tasks.super_resolution.photographs import read_photograph
from tokenmix.tasks.super_resolution.resize import Bicubic, resize
from tokenmix.train import fit
from tokenmix.train.training_step import TrainingStep

SET5 = next((one / "shared/data/set5" for one in Path(__file__).parents if (one / "shared/data/set5").is_dir()), None)
SETTINGS = [
    *("model.args.dim=8", "model.args.depth=1", "epochs=2", "batch_size=4", "task.image_size=12", "task.patches=4"),
    "warmup_epochs=0",
]


def quiet(line: str) -> None:
    pass


def photograph(seed: int, side: int = 48) -> np.ndarray:
    """Something with edges and slopes."""
    rows, columns = np.mgrid[:side, : side + 8] / side
    waves = np.sin(9 * rows * (1 + seed) + 5 * columns) + np.sign(np.sin(11 * columns - 4 * rows * seed))
    colours = np.stack([waves, waves * rows, waves * columns], axis=2)
    return np.uint8(np.clip(128 + 50 * colours, 0, 255))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures")
    for number in range(6):
        split = "train" if number < 4 else "val" if number < 5 else "test"
        (path / split).mkdir(exist_ok=True)
        Image.fromarray(photograph(number)).save(path / split / f"{number}.png")
    return path


@pytest.fixture(autouse=True)
def cached(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENMIX_DATA", str(tmp_path_factory.getbasetemp() / "cache"))


def train(folder: Path, out: Path, *settings: str, **options: Any) -> Any:
    data = load_data(folder, task="super_resolution", log=quiet)
    recipe = make_recipe("photographs_upscale", [*SETTINGS, *settings])
    return fit(recipe, data, out, progress=False, log=quiet, **options)


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sr") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOKENMIX_DATA", str(tmp_path_factory.getbasetemp() / "cache"))
        train(folder, out)
    return out


def test_a_run_learns_and_says_what_it_is(trained: Path, folder: Path) -> None:
    rows = [json.loads(line) for line in (trained / "history.jsonl").read_text().splitlines()]
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert {"val_psnr", "val_ssim"} <= rows[0].keys()
    loaded = open_model(trained)
    assert (loaded.task, loaded.name, loaded.model.scale) == ("super_resolution", "ffnet_sr_tiny", 2)
    data = load_data(folder, task="super_resolution", log=quiet)
    judged = judge(loaded, data.val, data.facts)
    best = json.loads((trained / "best.json").read_text())
    assert judged.numbers["psnr"] == pytest.approx(best["val_psnr"], abs=1e-3)
    assert judged.numbers["gain"] == pytest.approx(judged.numbers["psnr"] - judged.numbers["bicubic_psnr"])
    page = (trained / "report.html").read_text()
    assert "Worst pictures" in page
    assert page.count('type="range" class="divider"') == 1  # of the one validation picture
    assert all(page.count(f'alt="{word} of ') == 1 for word in ("Bicubic", "Network", "Truth"))
    assert f"{judged.numbers['psnr']:.2f} dB" in page


@pytest.mark.skipif(browser.missing() is not None, reason=str(browser.missing()))
def test_the_divider_of_a_runs_page_moves_by_keyboard(trained: Path) -> None:
    with browser.chromium() as driver:
        driver.get((trained / "report.html").as_uri())
        shown = "return getComputedStyle(document.querySelector('.slid img + img')).clipPath"
        assert "50%" in driver.execute_script(shown)
        driver.find_element("css selector", ".divider").send_keys("\ue010")  # End
        assert "100%" in driver.execute_script(shown)
        assert driver.get_log("browser") == []


def test_a_killed_run_equals_an_unkilled_one(
    folder: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, calls = TrainingStep.step, []

    def dying(self: TrainingStep, *args: Any) -> Any:
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return step(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingStep, "step", dying)
        with pytest.raises(KeyboardInterrupt):
            train(folder, tmp_path, checkpoint_seconds=0)
    train(folder, tmp_path)
    ours, theirs = (open_model(path).model.state_dict() for path in (tmp_path, trained))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_batches_of_two_processes_are_those_of_one(folder: Path) -> None:
    task, data = find_task("super_resolution"), load_data(folder, task="super_resolution", log=quiet)
    recipe = make_recipe("photographs_upscale", SETTINGS)
    share = {"workers": 0}

    def batches(rank: int, world: int) -> list[dict[str, Any]]:
        train, _ = task.loaders(recipe, data, {"scale": 2}, rank=rank, world=world, **share)
        return list(train.batches(1))

    for one, first, second in zip(batches(0, 1), batches(0, 2), batches(1, 2), strict=True):
        for name in ("image", "target", "index"):
            assert torch.equal(one[name][::2], first[name])
            assert torch.equal(one[name][1::2], second[name])


def test_evaluation_of_several_processes_counts_each_picture_once(folder: Path) -> None:
    task, data = find_task("super_resolution"), load_data(folder, task="super_resolution", log=quiet)
    loaded = open_model("bicubic_x2")
    seen = []
    for rank in range(3):
        loader = task.loader(loaded, data.train, batch_size=1, rank=rank, world=3)
        for batch in loader.batches(0):
            seen += [name for name, counts in zip(batch["name"], batch["mask"].tolist(), strict=True) if counts]
    assert sorted(seen) == sorted(data.train.names)


def test_other_scales_mixers_and_starts(folder: Path, trained: Path, tmp_path: Path) -> None:
    settings = ("model.args.scale=3", "model.args.mixers=aff", "model.args.norm=batch", "epochs=1", "ema_decay=0.9")
    train(folder, tmp_path / "aff", *settings)
    assert open_model(tmp_path / "aff").model.scale == 3
    # Everything but the last layer is taken from a network for another scale.
    train(folder, tmp_path / "third", "model.args.scale=3", "epochs=1", f"weights={trained}", "lr=1e-12", "min_lr=0")
    ours, theirs = (open_model(path).model.state_dict() for path in (tmp_path / "third", trained))
    assert torch.allclose(ours["stem.weight"], theirs["stem.weight"], atol=1e-6)
    assert ours["head.weight"].shape != theirs["head.weight"].shape


def test_official_files_load_and_convert_back(tmp_path: Path) -> None:
    golden = goldens.load("ffnet_sr_light")
    weights = goldens.state_dict(golden)
    model = load_checkpoint({"params": weights})
    assert isinstance(model, Upscaler)
    with torch.no_grad():
        goldens.assert_matches(model(goldens.inputs(golden)), golden["output"], torch.float32)
    torch.save({"params": weights}, tmp_path / "FFNetSR_light_DIV2K_2.pth")
    convert(tmp_path / "FFNetSR_light_DIV2K_2.pth", tmp_path / "ours.safetensors")
    assert open_model(tmp_path / "ours.safetensors").task == "super_resolution"
    convert(tmp_path / "ours.safetensors", tmp_path / "back.pth", to="official")
    back = torch.load(tmp_path / "back.pth", weights_only=True)["state_dict"]
    assert list(back) == list(weights)
    assert all(torch.equal(back[key], tensor) for key, tensor in weights.items())


@pytest.mark.skipif(SET5 is None, reason="Set5 is not here")
def test_the_published_row_of_bicubic_by_one_command(capsys: pytest.CaptureFixture[str]) -> None:
    for scale, decibels, likeness in ((2, 33.66, 0.9299), (3, 30.39, 0.8682), (4, 28.42, 0.8104)):
        words = ["eval", f"bicubic_x{scale}", "--data", str(SET5), "--json"]
        assert main(words) == 0
        told = json.loads(capsys.readouterr().out)
        assert abs(told["psnr"] - decibels) < 0.02
        assert abs(told["ssim"] - likeness) < 0.0005
        assert told["pictures"] == 5


def test_scores_beside_bicubic() -> None:
    high = photograph(1)
    low = resize(high, 1 / 2)
    truth, small = (torch.from_numpy(one).permute(2, 0, 1).double() / 255 for one in (high, low))
    scores = PictureScores(crops=1)
    batch = {
        "image": [small],
        "target": [truth],
        "name": ["a"],
        "index": torch.tensor([3]),
        "mask": torch.tensor([True]),
    }
    scores.update([truth * 0.99], batch)
    (row,) = scores.gather()
    again = torch.from_numpy(resize(low, 2)).permute(2, 0, 1).double() / 255
    assert (row["bicubic_psnr"], row["bicubic_ssim"]) == pytest.approx(compare_pictures(again, truth, 2))
    assert row["gain"] == pytest.approx(row["psnr"] - row["bicubic_psnr"])
    assert (row["index"], row["name"], row["scale"], len(row["crop"])) == (3, "a", 2, 4)
    assert scores.gather() == []


def test_a_page_judges_its_pictures_as_the_recipe_does() -> None:
    recipe = make_recipe("photographs_upscale", ["task.rounded_luma=false", "task.border=5"])
    scores = (
        find_task("super_resolution")
        .evidence(recipe, load_data("photographs", task="super_resolution", log=quiet))
        .scores
    )
    assert (scores.border, scores.rounded) == (5, False)


def test_data_are_split_and_checked(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = load_data(folder, task="super_resolution", log=quiet)
    assert [len(part) for part in (data.train, data.val, data.test)] == [4, 1, 1]
    flat = tmp_path / "flat"
    flat.mkdir()
    for number in range(10):
        Image.fromarray(photograph(number)).save(flat / f"{number}.png")
    parts = [load_data(flat, task="super_resolution", seed=seed, log=quiet) for seed in (0, 0, 1)]
    names = [[part.names for part in (data.train, data.val, data.test)] for data in parts]
    assert names[0] == names[1]
    assert names[0] != names[2]
    assert sorted(name for part in names[0] for name in part) == sorted(f"{number}.png" for number in range(10))
    flat.rename(tmp_path / "Set14")
    (tmp_path / "Set14" / "broken.png").write_text("no picture")
    Image.fromarray(photograph(0)[:19]).save(tmp_path / "Set14" / "small.png")
    assert sorted(one.name for one in load_data(tmp_path / "Set14", task="super_resolution", log=quiet).skipped) == [
        "broken.png",
        "small.png",
    ]
    judged = find_task("super_resolution").open_judged(
        str(tmp_path / "Set14"), open_model("bicubic_x2"), None, log=quiet
    )
    assert len(judged.samples) == 10  # all of a folder from which nothing was learnt
    assert main(["data", "check", str(folder), "--task", "super_resolution"]) in (0, 3)
    assert "train: 4 pictures" in capsys.readouterr().out
    shutil.copytree(folder, tmp_path / "parts")
    (tmp_path / "parts" / "more").mkdir()
    Image.fromarray(photograph(9)).save(tmp_path / "parts" / "more" / "9.png")
    said: list[str] = []
    load_data(tmp_path / "parts", task="super_resolution", log=said.append)
    assert said == [f"{tmp_path / 'parts'}: 1 other pictures are no part of it and not taken: more/9.png"]


def test_upscale_command(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(photograph(len(name))).save(tmp_path / "in" / name)
    out = tmp_path / "out"
    assert main(["upscale", str(tmp_path / "in"), str(out), "--model", str(trained)]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["a-x2.png", "b-x2.png"]
    assert read_photograph(out / "a-x2.png").pixels.shape == (96, 112, 3)
    one = ["upscale", str(tmp_path / "in/a.png"), str(tmp_path / "one.png"), "--model", "bicubic_x3", "--json"]
    capsys.readouterr()
    assert main(one) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert told["size"] == [144, 168]
    assert np.array_equal(read_photograph(tmp_path / "one.png").pixels, resize(photograph(5), 3))
    (tmp_path / "in" / "text.png").write_text("no picture")
    assert main(["upscale", str(tmp_path / "in"), str(out), "--model", "bicubic_x2", "--scale", "1.5"]) == 2
    told = capsys.readouterr()
    assert "text.png: not a picture of a known format" in told.err
    assert (out / "b-x1.5.png").exists()
    for words, reason in (
        ([str(tmp_path / "in/a.png")], "needs pictures and, at the end, a file or folder for them"),
        ([str(tmp_path / "in"), str(tmp_path / "x.png")], "3 pictures cannot go into one file"),
        ([str(tmp_path / "empty"), str(out)], "no pictures in this folder"),
    ):
        assert main(["upscale", *words, "--model", "bicubic_x2"]) == 2
        assert reason in capsys.readouterr().err


def test_predict_command(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(photograph(0)).save(tmp_path / "a.png")
    words = ["predict", str(tmp_path / "a.png"), "--model", str(trained), "--out", str(tmp_path / "out"), "--json"]
    assert main(words) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert told["size"] == [96, 112]
    assert Path(told["picture"]).exists()


def test_recipes_are_the_published_ones() -> None:
    light = make_recipe("ffnet_sr_light")
    assert (light.schedule.steps, light.run.batch_size, light.optimizer.lr) == (500_000, 64, 1e-3)
    assert light.task.image_size == (96, 96)
    assert make_recipe("ffnet_sr").run.data == "DF2K"
    with pytest.raises(ValueError, match="super-resolution have none"):
        make_recipe("ffnet_sr", ["drop_path_rate=0.1"])
    with pytest.raises(ValueError, match="unknown network"):
        make_recipe("ffnet_sr", ["model=ffnet_1"])


def test_bicubic_has_nothing_to_learn(folder: Path, tmp_path: Path) -> None:
    assert isinstance(open_model("bicubic_x4").model, Bicubic)
    with pytest.raises(ValueError, match="no trainable parameter"):
        train(folder, tmp_path, "model.name=bicubic_x2", "model.args={}")


def test_mixers_are_compared_picture_by_picture() -> None:
    def entry(name: str, psnr: float) -> dict[str, Any]:
        rows = [{"picture": "a.png", "psnr": psnr, "ssim": 0.9, "gain": psnr - 30, "bicubic_psnr": 30.0}]
        return {"mixer": name, "per_picture": rows}

    results = {"mixers": {"aff": entry("aff", 31.25), "pool": entry("pool", 31.0)}, "headline": "psnr"}
    (section,) = compare_sections(results)
    assert all(text in section.html for text in ("a.png", "30.00", "31.25", "31.00", "bicubic", "aff", "pool"))
    assert compare_sections({"mixers": {"aff": {}}}) == []
