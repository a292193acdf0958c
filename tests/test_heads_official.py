"""The dense models that official projects publish: the same outputs, and checkpoints that go there and back."""

from __future__ import annotations

import copy
import warnings
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import goldens
from tests.checkpoint_files import AFFNET_ARGS, official, open_args, same, shifted
from tests.counts import count
from tests.official_models import macs, shapes_of
from tokenmix import load_checkpoint, reparameterize
from tokenmix.checkpoints import CheckpointError, convert, open_model
from tokenmix.heads import Raw, ssd_boxes
from tokenmix.heads.official import DENSE
from tokenmix.heads.ssdlite import RATIOS, SSDLite

SEGMENTERS = goldens.names("affnet", "segmentation")
DETECTORS = goldens.names("affnet", "detection")
FFNET = "ffnet_seg_ade20k"
FAST = ("affnet_et_deeplabv3_aux", "affnet_et_deeplabv3_reluhead", "affnet_et_ssdlite")
NAMES = [*SEGMENTERS, *DETECTORS, FFNET]
every_golden = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in NAMES]
)


def test_no_golden_is_left_out() -> None:
    assert len(SEGMENTERS) == 8
    assert len(DETECTORS) == 5
    assert {name for task in ("segmentation", "detection") for name in goldens.names(task=task)} == set(NAMES)


@cache
def model(name: str) -> Any:
    """The model that the public way makes of a golden's checkpoint, float32; shared, so leave it so."""
    return load_checkpoint(official(name), **open_args(name))


@torch.no_grad()
def outputs(model: Any, name: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """All that a golden file has expected values for."""
    x = goldens.inputs(goldens.load(name)).to(dtype)
    if not isinstance(model, SSDLite):
        return {"output": model.raw(x) if name == FFNET else model(x)}
    maps = model.features(x)
    scores, locations = model.predict(maps)
    anchors = ssd_boxes.anchors([(y.shape[2], y.shape[3]) for y in maps], RATIOS)[None].to(dtype)
    strides = (16, 32, 64, 128, 256, -1)
    return {
        "scores": scores,
        "locations": locations,
        "anchors": anchors,
        "boxes": ssd_boxes.decode(locations, anchors[0]),
        **{f"feature_os_{stride}": y for stride, y in zip(strides, maps, strict=True)},
    }


def assert_outputs(model: Any, name: str, dtype: torch.dtype) -> None:
    golden, found = goldens.load(name), outputs(model, name, dtype)
    expected = golden.get("outputs") or {"output": golden["output"]}
    assert found.keys() == expected.keys()
    for key, tensor in found.items():
        # Anchors are float32 in the official code: 1e-7 is their rounding, not a difference of ours.
        goldens.assert_matches(tensor, expected[key], dtype, tolerance=1e-7 if key == "anchors" else None)
    for i, image in enumerate(golden.get("detections", ())):
        one = model.detect(found["scores"][i], found["boxes"][i])
        assert len(one["labels"]) == image["count"]
        shown = len(image["first_labels"])
        assert one["labels"][:shown].tolist() == image["first_labels"]
        for key in ("scores", "boxes"):
            stored = torch.tensor(image[f"first_{key}"], dtype=dtype).view_as(one[key][:shown])
            # They are stored with 7 digits; float32 runs differ more.
            assert float((one[key][:shown] - stored).abs().max()) < (1e-6 if dtype == torch.float64 else 1e-5)


@every_golden
def test_computes_what_the_official_code_computes(name: str) -> None:
    assert_outputs(copy.deepcopy(model(name)).double(), name, torch.float64)
    count("goldens", name)


@every_golden
def test_computes_it_in_float32(name: str) -> None:
    assert_outputs(model(name), name, torch.float32)


@pytest.mark.parametrize("name", NAMES)
def test_counts_are_the_official_ones(name: str) -> None:
    golden = goldens.load(name)
    weights = {key: torch.empty(shape, device="meta") for key, shape in golden["manifest"].items()}
    found = load_checkpoint(weights, device="meta", **open_args(name))
    assert sum(parameter.numel() for parameter in found.parameters()) == golden["params"]
    assert macs(Raw(found), golden) == golden["macs"]


@pytest.mark.parametrize("name", NAMES)
def test_keys_go_there_and_back(name: str) -> None:
    """Shapes of every golden; the smallest's tensors too."""
    golden = goldens.load(name)
    family = next(family for family in DENSE.values() if family.recognise(golden["manifest"]))
    weights = {key: torch.empty(shape, device="meta") for key, shape in golden["manifest"].items()}
    back = family.KEYS.to_official(load_checkpoint(weights, device="meta", **open_args(name)).state_dict())
    assert shapes_of(back) == {key: tuple(shape) for key, shape in golden["manifest"].items()}
    if name in FAST:
        assert same(family.KEYS.to_official(model(name).state_dict()), official(name))


@pytest.mark.slow
def test_fused_ffnet_seg_is_the_official_fused_one() -> None:
    golden = goldens.load(FFNET)
    fused = reparameterize(copy.deepcopy(model(FFNET)).double())
    assert sum(parameter.numel() for parameter in fused.parameters()) == golden["fused"]["params"]
    assert macs(Raw(fused), golden) == golden["fused"]["macs"]
    assert_outputs(fused, FFNET, torch.float64)


def test_the_options_that_keys_do_not_tell() -> None:
    with pytest.warns(UserWarning, match="cannot tell norm, act, threshold, output_stride, rates, head_act; the def"):
        load_checkpoint(official("affnet_et_deeplabv3_aux"))
    with pytest.warns(UserWarning, match="cannot tell head_act; the default"):
        load_checkpoint(official("affnet_et_ssdlite"), **AFFNET_ARGS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        weights = {key: torch.empty(shape, device="meta") for key, shape in goldens.load(FFNET)["manifest"].items()}
        load_checkpoint(weights, device="meta")


@pytest.mark.parametrize("name", FAST[1:])
def test_files_there_and_back(name: str, tmp_path) -> None:
    """The averaged weights of a training checkpoint, as a file of ours, which needs no options, and as theirs again."""
    args = open_args(name)
    torch.save({"model": shifted(official(name)), "ema_state_dict": official(name), "epoch": 3}, tmp_path / "last.pth")
    ours = convert(tmp_path / "last.pth", tmp_path / "ours.safetensors", **args)
    assert same(ours.state_dict(), model(name).state_dict())
    again = load_checkpoint(tmp_path / "ours.safetensors")
    x = goldens.inputs(goldens.load(name))[:1, :, :64, :96]
    with torch.no_grad():
        # Logits, or the first and second of a detector's raw outputs.
        assert all(torch.equal(one, other) for one, other in zip(again.raw(x), model(name).raw(x), strict=True))
    convert(tmp_path / "ours.safetensors", tmp_path / "theirs.pth", to="official")
    assert same(torch.load(tmp_path / "theirs.pth", weights_only=True)["state_dict"], official(name))
    torch.save(again.state_dict(), tmp_path / "own.pth")
    assert same(load_checkpoint(tmp_path / "own.pth", **args).state_dict(), again.state_dict())
    opened = open_model(tmp_path / "ours.safetensors")
    assert opened.task == ("detection" if opened.head == "ssdlite" else "segmentation")
    assert opened.crop_mode == ("squash" if opened.head == "ssdlite" else "fit")
    with pytest.raises(CheckpointError, match=r"holds a model for \w+ \(head \w+\), and what is needed here is for cl"):
        open_model(tmp_path / "ours.safetensors", tasks=("classification",))


@pytest.mark.parametrize("name", FAST[1:])
def test_other_classes_and_channels(name: str) -> None:
    found = load_checkpoint(official(name), num_classes=5, in_chans=1, **open_args(name))
    reference = model(name).state_dict()
    new = {key for key, tensor in found.state_dict().items() if not torch.equal(tensor, reference[key])}
    fresh = {f"{layer}.{leaf}" for layer in found.classifiers for leaf in ("weight", "bias")}
    assert new - {"backbone.stem.conv.weight"} == fresh
    assert torch.allclose(found.backbone.stem.conv.weight, reference["backbone.stem.conv.weight"].sum(1, keepdim=True))
    same_size = load_checkpoint(official(name), num_classes=model(name).num_classes, **open_args(name))
    assert same(same_size.state_dict(), reference)


def test_mistakes_are_named() -> None:
    weights = dict(official("affnet_et_deeplabv3_aux"))
    del weights["seg_head.aspp.aspp_layer.convs.2.block.conv.weight"]
    with pytest.raises(CheckpointError, match=r"1 missing \(decoder.aspp.branches.2.conv.weight\)"):
        load_checkpoint(weights, **open_args("affnet_et_deeplabv3_aux"))
    with pytest.raises(ValueError, match="unknown head_act 'rellu'; did you mean 'relu'"):
        load_checkpoint(official("affnet_et_ssdlite"), **{**AFFNET_ARGS, "head_act": "rellu"})
    with pytest.raises(TypeError, match="head_depth"):
        load_checkpoint(official("affnet_et_ssdlite"), **AFFNET_ARGS, head_act="silu", head_depth=3)
