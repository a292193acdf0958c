"""Processes that share the weights out (FSDP2) end where those do that hold all of them."""

from __future__ import annotations

import signal

import pytest
import timm
import torch
from safetensors.torch import load_file

from tests.test_train_distributed import ALWAYS, CHANGES, finish, launch, rows, trained
from tests.test_train_options import TINY
from tests.test_train_resume import outcome, same
from tests.train_toys import Exact, checkpoint, toy_data, toy_recipe
from tokenmix.train import fit
from tokenmix.train.checkpoint import Checkpoints
from tokenmix.train.distributed import processes
from tokenmix.train.model import layers_of

SHARED = {"parallel": "fsdp"}
EVERYTHING = TINY | {
    "accumulate": 2, "precision": "float16", "layer_decay": 0.7, "freeze_epochs": 1, "grad_checkpointing": True,
    "multi_scale": (32, 48), "image_size": 48, "drop_path_rate": 0.1, "mixup": 0.2, "augment": "standard",
}  # fmt: skip


def close(one: dict, other: dict) -> None:
    """The same weights and averages to rounding, after the 20 steps."""
    assert one["state"]["steps"] == other["state"]["steps"] == 20
    for part in ("task", "average"):
        for name, value in one[part].items():
            torch.testing.assert_close(other[part][name], value, rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The folder of a run of one process."""
    out = tmp_path_factory.mktemp("alone")
    fit(toy_recipe(**CHANGES), toy_data(val=19), out, model=Exact, progress=False)
    return out


def test_shares_equal_one_process(tmp_path) -> None:
    """Of nine samples one process has five, in three parts, and the other four, in four."""
    changes, alone = CHANGES | {"epochs": 4, "batch_size": 9}, tmp_path / "one"
    fit(toy_recipe(**changes), toy_data(val=19), alone, model=Exact, progress=False)
    trained(tmp_path / "two", 2, options=SHARED, **changes, accumulate=4)
    folder = Checkpoints(tmp_path / "two").newest()
    assert folder.name == "step-00000020-epoch-0004"
    assert {path.name for path in folder.glob("shard-*")} == {
        f"shard-0000{number}-model-00001-of-00001.safetensors" for number in (1, 2)
    }
    close(checkpoint(alone), checkpoint(tmp_path / "two"))
    for a, b in zip(rows(alone), rows(tmp_path / "two"), strict=True):
        assert a["val_loss"] == pytest.approx(b["val_loss"], rel=1e-9)
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-9)
    weights, expected = (load_file(out / "best.safetensors") for out in (tmp_path / "two", alone))
    for name, value in expected.items():
        torch.testing.assert_close(weights[name], value, rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_shared_checkpoint_continues_in_any_number_of_processes(tmp_path, alone, world, parallel) -> None:
    out = tmp_path / "run"
    ends = finish(launch(out, 2, die="0 9", options=ALWAYS | SHARED, **CHANGES))
    assert (ends[0][0], ends[1][0]) == (-signal.SIGKILL, 1)
    said, *_ = trained(out, world, options={"parallel": parallel}, **CHANGES)
    assert "continuing at epoch 2, step 4" in said
    close(checkpoint(alone), checkpoint(out))


@pytest.mark.slow
def test_a_whole_checkpoint_continues_in_shares(tmp_path, alone) -> None:
    out = tmp_path / "run"
    finish(launch(out, 1, die="0 9", options=ALWAYS, **CHANGES))
    assert Checkpoints(out).newest().suffix == ".pt"
    said, *_ = trained(out, 2, options=SHARED, **CHANGES)
    assert "continuing at epoch 2, step 4" in said
    assert Checkpoints(out).newest().is_dir()
    close(checkpoint(alone), checkpoint(out))


@pytest.mark.slow
def test_killed_and_resumed_with_everything_on(tmp_path) -> None:
    options = ALWAYS | SHARED
    trained(tmp_path / "whole", 2, kind="named", options=options, **EVERYTHING)
    for step in (2, 8):
        out = tmp_path / str(step)
        finish(launch(out, 2, die=f"1 {step}", kind="named", options=options, **EVERYTHING))
        assert Checkpoints(out).newest().name.startswith(f"step-{step:08}")
        trained(out, 2, kind="named", options=options, **EVERYTHING)
        assert same(outcome(out), outcome(tmp_path / "whole"))


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["flipped", "truncated", "missing", "rest"])
def test_a_damaged_share_falls_back_to_the_checkpoint_before(tmp_path, alone, damage) -> None:
    out = tmp_path / "run"
    finish(launch(out, 2, die="0 9", options=ALWAYS | SHARED, **CHANGES))
    newest, before = Checkpoints(out).all()
    file = newest / ("rest.pt" if damage == "rest" else "shard-00002-model-00001-of-00001.safetensors")
    content = bytearray(file.read_bytes())
    content[-9] ^= 4
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(content[: len(content) // 2] if damage == "truncated" else content)
    said, *_ = trained(out, 2, options=SHARED, **CHANGES)
    assert f"{newest} is broken" in said
    assert before.name == "step-00000008-epoch-0001"
    assert "continuing at epoch 2, step 3" in said
    close(checkpoint(alone), checkpoint(out))


@pytest.mark.parametrize("name", ["mixernet_pico", "casvit_xs", "vit_tiny_patch16_224", "convnext_atto"])
def test_the_layers_are_the_models_blocks(name) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    names = {id(module): name for name, module in model.named_modules()}
    layers = layers_of(model)
    found = [names[id(layer)] for layer in layers]
    assert len(found) == len(set(found)) > 4
    assert not any(inner.startswith(f"{outer}.") for i, outer in enumerate(found) for inner in found[i:])  # inner first
    assert ("blocks.3" if name.startswith("vit") else "stages.2.blocks.1") in found
    assert layers_of(torch.nn.ReLU()) == []


def test_an_unknown_kind_of_parallel_is_named() -> None:
    with pytest.raises(ValueError, match="did you mean 'fsdp'"), processes("cpu", parallel="fsdb"):
        pass
