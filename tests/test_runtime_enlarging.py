"""Pictures enlarged by an exported file without PyTorch: equal to PyTorch's, at once and in windows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

from tests.runtime_files import constant_file, manifest
from tests.scramble import scramble
from tests.test_runtime_alone import alone
from tokenmix.export import export
from tokenmix.exported import open_exported
from tokenmix.tasks.super_resolution.model import Upscaler, create_upscaler
from tokenmix.weight_files import weights_bytes
from tokenmix_runtime import Enlarged, ImageError, ModelError, Predictor
from tokenmix_runtime import enlarging as module
from tokenmix_runtime.__main__ import main
from tokenmix_runtime.enlarging import enlarge, window_side, windows

ARGS = {"dim": 8, "depth": 1}
RADIUS = 5  # 3 x 3 of stem, head and channel mixer, two in the token mixer


def saved(folder: Path, *, dynamic: bool, side: int = 24, **more: str) -> tuple[Upscaler, Path]:
    """A network, and its exported file."""
    args = {**ARGS, **more}
    model = scramble(create_upscaler("ffnet_sr_tiny", **args)).eval()
    info = {"model": "ffnet_sr_tiny", "model_args": args, "task": "super_resolution", "image_size": [side, side]}
    (folder / "model.safetensors").write_bytes(weights_bytes(model.state_dict(), info))
    export(folder / "model.safetensors", out=folder / "sr.onnx", dynamic_size=dynamic)
    return model, folder / "sr.onnx"


@pytest.fixture(scope="module")
def open_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Upscaler, Path]:
    return saved(tmp_path_factory.mktemp("open"), dynamic=True)


@pytest.fixture(scope="module")
def fixed_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Upscaler, Path]:
    return saved(tmp_path_factory.mktemp("fixed"), dynamic=False)


def photograph(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@torch.no_grad()
def wanted(model: Upscaler, picture: Image.Image) -> np.ndarray:
    """(s H, s W, 3) in 0..255, float64, neither clamped nor rounded."""
    x = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)[None].float() / 255
    return 255 * model(x)[0].permute(1, 2, 0).double().numpy()


def assert_same(answer: Enlarged, values: np.ndarray) -> None:
    found = np.asarray(answer.picture)
    assert (found.dtype, found.shape) == (np.uint8, values.shape)
    assert np.abs(found - values.clip(0, 255)).max() < 0.5 + 255e-5  # rounded, from within 1e-5


@given(length=st.integers(1, 90), side=st.integers(1, 60), radius=st.integers(0, 20))
@settings(max_examples=200, deadline=None)
def test_windows_cover_every_pixel_once(length: int, side: int, radius: int) -> None:
    side = max(side, 2 * radius + 1)
    found = windows(length, side, radius)
    assert [pixel for one in found for pixel in range(one.first, one.last)] == list(range(length))
    for one in found:
        assert one.end - one.begin == min(side, length)
        assert one.begin == 0 or one.first - one.begin >= radius
        assert one.end == length or one.end - one.last >= radius


def test_pictures_of_any_size_are_pytorchs(open_file: tuple[Upscaler, Path], tmp_path: Path) -> None:
    model, path = open_file
    predict = Predictor(path, task="super_resolution", threads=1)
    assert predict.manifest.postprocess["radius"] == RADIUS
    pictures = [photograph(31, 17), photograph(3, 1, 1), photograph(24, 24, 2)]
    for picture, answer in zip(pictures, predict(pictures), strict=True):
        assert isinstance(answer, Enlarged)
        assert answer.picture.size == (2 * picture.width, 2 * picture.height)
        assert_same(answer, wanted(model, picture))
    pictures[0].save(tmp_path / "photo.png")
    assert_same(predict(tmp_path / "photo.png"), wanted(model, pictures[0]))


def test_large_pictures_go_through_in_windows(
    open_file: tuple[Upscaler, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, path = open_file
    monkeypatch.setattr(module, "SIDE", 16)
    assert window_side((70, 45), (None, None), RADIUS) == (26, 26)
    assert_same(Predictor(path)(photograph(45, 70)), wanted(model, photograph(45, 70)))


@pytest.mark.parametrize("size", [(24, 24), (25, 60), (71, 24), (50, 50)])
def test_files_of_one_size_take_larger_pictures_too(fixed_file: tuple[Upscaler, Path], size: tuple[int, int]) -> None:
    model, path = fixed_file
    assert_same(Predictor(path)(photograph(*size)), wanted(model, photograph(*size)))


@torch.no_grad()
def test_seams_cannot_be_seen(open_file: tuple[Upscaler, Path]) -> None:
    """Of a network in PyTorch, whose numbers are kept instead of rounded: within 1e-5."""
    model, _ = open_file
    parts: list[np.ndarray] = []

    def run(x: np.ndarray) -> np.ndarray:
        parts.append(model(torch.from_numpy(x)).numpy())
        return parts[-1]

    picture = np.random.default_rng(0).random((3, 40, 30), dtype=np.float32)
    whole = model(torch.from_numpy(picture)[None]).numpy()
    enlarge(run, picture, 2, (18, 20), RADIUS)
    rows, columns = windows(40, 18, RADIUS), windows(30, 20, RADIUS)
    assert len(parts) == len(rows) * len(columns) > 4
    places = [(row, column) for row in rows for column in columns]
    for part, (row, column) in zip(parts, places, strict=True):
        kept = part[:, :, 2 * (row.first - row.begin) : 2 * (row.last - row.begin)]
        kept = kept[..., 2 * (column.first - column.begin) : 2 * (column.last - column.begin)]
        same = whole[:, :, 2 * row.first : 2 * row.last, 2 * column.first : 2 * column.last]
        assert np.abs(kept - same).max() < 1e-5


def test_what_a_file_cannot_take_is_said(fixed_file: tuple[Upscaler, Path], tmp_path: Path) -> None:
    _, path = fixed_file
    with pytest.raises(ImageError, match=r"takes 24 x 24 pixels, and the picture has 30 x 20 pixels: .*--dynamic"):
        Predictor(path)(photograph(30, 20))
    with pytest.raises(ImageError, match="--dynamic batch size"):
        window_side((50, 50), (24, 24), 12)
    with pytest.raises(ImageError, match=r"sees the whole picture .*tokenmix upscale"):
        window_side((4000, 4000), (None, None), None)
    assert window_side((40, 50), (None, None), None) == (40, 50)
    content = manifest(
        "super_resolution",
        {"kind": "enlarged", "scale": 2},
        [1, 3, 8, 8],
        preprocess={"crop_mode": "none", "mean": [0.0] * 3, "std": [1.0] * 3},
    )
    outputs = {"enlarged": np.zeros((1, 3, 24, 24), np.float32)}
    with pytest.raises(ModelError, match=r"not those of its manifest: a window becomes \(1, 3, 24, 24\)"):
        Predictor(constant_file(tmp_path / "three.onnx", outputs, content))(photograph(8, 8))
    for wrong in ({"scale": 0}, {"radius": -1}, {"scale": True}):
        edited = {**content, "postprocess": {**content["postprocess"], **wrong}}
        with pytest.raises(ModelError, match="postprocess"):
            Predictor(constant_file(tmp_path / "wrong.onnx", outputs, edited))


def test_networks_that_see_everything_get_everything(tmp_path: Path) -> None:
    model, path = saved(tmp_path, dynamic=False, mixers="aff")
    predict = Predictor(path)
    assert_same(predict(photograph(24, 24)), wanted(model, photograph(24, 24)))
    with pytest.raises(ImageError, match="--dynamic batch size"):
        predict(photograph(30, 30))


def test_the_command_writes_pictures(open_file: tuple[Upscaler, Path], tmp_path: Path, capsys) -> None:
    model, path = open_file
    names = [tmp_path / "one" / "photo.png", tmp_path / "two" / "photo.png"]
    for number, name in enumerate(names):
        name.parent.mkdir()
        photograph(12, 10, number).save(name)
    out = tmp_path / "out"
    assert main([str(path), *map(str, names), "--out", str(out)]) == 0
    assert capsys.readouterr().out.splitlines()[:2] == [f"{names[0]} -> {out}/photo-x2.png", "  24 x 20 pixels"]
    assert sorted(one.name for one in out.iterdir()) == ["photo-x2-2.png", "photo-x2.png"]
    written = np.asarray(Image.open(out / "photo-x2-2.png"))
    assert np.abs(written - wanted(model, photograph(12, 10, 1)).clip(0, 255)).max() < 0.5 + 255e-5
    assert main([str(path), str(names[0]), "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == [{"image": str(names[0]), "size": [20, 24], "written": f"{out}/photo-x2.png"}]


def test_no_picture_that_is_still_to_come_is_written_over(open_file: tuple[Upscaler, Path], tmp_path: Path) -> None:
    _, path = open_file
    (tmp_path / "linked").symlink_to(tmp_path)
    names = [tmp_path / "linked" / "a.png", tmp_path / "linked" / "a-x2.png"]
    for number, name in enumerate(names):
        photograph(12, 10, number).save(name)
    before = names[1].read_bytes()
    assert main([str(path), *map(str, names), "--out", str(tmp_path)]) == 0
    assert names[1].read_bytes() == before
    assert {one.name for one in tmp_path.glob("*.png")} == {"a.png", "a-x2.png", "a-x2-2.png", "a-x2-x2.png"}


def test_other_commands_name_the_one_that_enlarges(open_file: tuple[Upscaler, Path]) -> None:
    with pytest.raises(ValueError, match=r"enlarges pictures: python -m tokenmix_runtime .*sr\.onnx PICTURE"):
        open_exported(open_file[1])


def test_other_models_write_none(tmp_path: Path, capsys) -> None:
    content = manifest("classification", {"kind": "softmax"}, [1, 3, 8, 8])
    path = constant_file(tmp_path / "model.onnx", {"logits": np.zeros((1, 3), np.float32)}, content)
    assert main([str(path), "photo.png", "--out", str(tmp_path)]) == 2
    assert "--out is for models that enlarge pictures" in capsys.readouterr().err


def test_it_needs_no_torch(open_file: tuple[Upscaler, Path], tmp_path: Path) -> None:
    model, path = open_file
    photograph(12, 10).save(tmp_path / "photo.png")
    code = "from tokenmix_runtime import Predictor\nPredictor(sys.argv[1])(sys.argv[2]).save(sys.argv[3])"
    done = alone(code, str(path), str(tmp_path / "photo.png"), str(tmp_path / "large.png"))
    assert done.stderr == ""
    found = np.asarray(Image.open(tmp_path / "large.png"))
    assert np.abs(found - wanted(model, photograph(12, 10)).clip(0, 255)).max() < 0.5 + 255e-5
