"""Files that must not load: code in a pickle is refused and never run, broken or foreign files give one clear error."""

from __future__ import annotations

import builtins
import collections
import functools
import os
import pickle
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import timm
import torch

from tests.checkpoint_files import official, shifted
from tokenmix.backbones import casvit
from tokenmix.checkpoints import CheckpointError, load_checkpoint, open_model

XS = "casvit_xs"


class Reduce:
    """An object whose pickle calls a function when it is read."""

    def __init__(self, function, *args) -> None:
        self.call = (function, args)

    def __reduce__(self):
        return self.call


class Custom:
    """A class that a file may not bring along."""


def attacks(canary: Path) -> dict[str, object]:
    touch = f"touch '{canary}'"
    code = f"open({str(canary)!r}, 'w')"
    return {
        "os.system": Reduce(os.system, touch),
        "builtins.eval": Reduce(eval, code),
        "builtins.exec": Reduce(exec, code),
        "builtins.open": Reduce(open, str(canary), "w"),
        "builtins.getattr": Reduce(getattr, {}, "keys"),
        "subprocess.Popen": Reduce(subprocess.Popen, touch),
        "functools.partial": functools.partial(os.system, touch),
        "the function itself": os.system,
        "builtins.print": builtins.print,
        "pickle.loads": Reduce(pickle.loads, pickle.dumps(Reduce(os.system, touch))),
        "torch.load": Reduce(torch.load, str(canary)),
        "a class of its own": Custom(),
        "an array": np.zeros(2),
        "a scalar of objects": np.zeros(1, [("a", object)])[0],
        "a default factory": collections.defaultdict(Custom),
        "a defaultdict that calls": collections.defaultdict(os.getcwd),
    }


@pytest.mark.parametrize("name", attacks(Path("canary")))
@pytest.mark.parametrize("place", ["args", "whole file", "in a list", "state_dict"])
def test_code_in_a_pickle_is_refused_and_never_run(name: str, place: str, tmp_path) -> None:
    canary = tmp_path / "canary"
    bad = attacks(canary)[name]
    good = official("affnet_et")
    content = {
        "args": {"state_dict": good, "args": bad},
        "whole file": bad,
        "in a list": {"model": good, "optimizer": {"x": [1, (bad,)]}},
        "state_dict": {"state_dict": {**good, "extra": bad}},
    }[place]
    for new in (True, False):
        torch.save(content, tmp_path / "bad.pth", _use_new_zipfile_serialization=new)
        with pytest.raises(CheckpointError) as told:
            load_checkpoint(tmp_path / "bad.pth")
        assert "bad.pth: refused, because" in str(told.value)
        assert "save the state dict alone" in str(told.value)
        assert str(told.value).count("\n") == 0
    assert not canary.exists()


def test_the_refusal_names_what_it_refuses(tmp_path) -> None:
    for bad, name in (
        (Reduce(os.system, "true"), r"\w+\.system"),
        (Reduce(eval, "1"), "eval"),
        (Custom(), r"[\w.]+Custom"),
    ):
        torch.save({"state_dict": {}, "args": bad}, tmp_path / "bad.pth")
        with pytest.raises(CheckpointError, match=f"loading it would need {name}; only"):
            load_checkpoint(tmp_path / "bad.pth")


def test_a_bare_pickle_is_refused_too(tmp_path) -> None:
    canary = tmp_path / "canary"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / "bad.pkl").write_bytes(pickle.dumps(Reduce(os.system, f"touch '{canary}'"), protocol))
        with pytest.raises(CheckpointError, match=r"bad\.pkl: "):
            load_checkpoint(tmp_path / "bad.pkl")
    assert not canary.exists()


def test_the_allow_list_is_in_force_only_while_a_file_is_read(tmp_path) -> None:
    before = torch.serialization.get_safe_globals()
    torch.save({"model": official("affnet_et"), "metric": np.float64(1)}, tmp_path / "a.pth")
    load_checkpoint(tmp_path / "a.pth", norm="group", act="silu", threshold=0.01)
    timm.create_model("affnet_et")
    assert set(torch.serialization.get_safe_globals()) == set(before)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "a.pth", weights_only=True)


def test_broken_files_give_one_error_that_names_the_file(tmp_path) -> None:
    whole, plain = tmp_path / "whole.pth", tmp_path / "plain.safetensors"
    torch.save({"state_dict": official(XS)}, whole)
    safetensors.torch.save_file(dict(official(XS)), plain)
    old = tmp_path / "old.pth"
    torch.save({"state_dict": official(XS)}, old, _use_new_zipfile_serialization=False)
    files: dict[str, tuple[bytes, str]] = {
        "empty.pth": (b"", "the file is empty; copy or download it again"),
        "page.pth": (b"\n<!DOCTYPE html><html><body>Sign in</body></html>", "a web page, not a checkpoint; open the"),
        "text.pth": (b"not a checkpoint at all", "not a whole PyTorch checkpoint; copy or download it again"),
        "noise.pth": (np.random.default_rng(0).bytes(5000), "not a whole PyTorch checkpoint"),
        "empty.safetensors": (b"", "no safetensors file or is damaged"),
        "page.safetensors": (b"<html></html>", "no safetensors file or is damaged"),
        "torch.safetensors": (whole.read_bytes(), "no safetensors file or is damaged"),
    }
    for source in (whole, old, plain):
        data = source.read_bytes()
        reason = "damaged" if source is plain else "not a whole PyTorch checkpoint; copy or download it again"
        for part in (1, 9, 100, len(data) // 2, len(data) - 1):
            files[f"cut{part}{source.name}"] = (data[:part], reason)
    for name, (data, reason) in files.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(CheckpointError) as told:
            load_checkpoint(tmp_path / name)
        assert str(told.value).startswith(str(tmp_path / name)), name
        assert reason in str(told.value), name
    with zipfile.ZipFile(tmp_path / "other.pth", "w") as archive:
        archive.writestr("readme.txt", "no pickle here")
    with pytest.raises(CheckpointError, match=r"other\.pth: not a whole PyTorch checkpoint"):
        load_checkpoint(tmp_path / "other.pth")


def test_a_scripted_model_is_no_checkpoint(tmp_path) -> None:
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "scripted.pt")
    with pytest.raises(CheckpointError, match=r"scripted\.pt: not a whole PyTorch checkpoint"):
        load_checkpoint(tmp_path / "scripted.pt")


def test_missing_paths_and_folders(tmp_path) -> None:
    for load in (load_checkpoint, open_model):
        with pytest.raises(CheckpointError, match="no such file"):
            load(tmp_path / "nothing.pth")
        with pytest.raises(
            CheckpointError, match=r"there are no weights best\.safetensors in this folder; name a file"
        ):
            load(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read(tmp_path) -> None:
    path = tmp_path / "locked.pth"
    torch.save({}, path)
    path.chmod(0)
    with pytest.raises(CheckpointError, match=r"locked\.pth: cannot be read: Permission denied"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (torch.zeros(3), "holds a Tensor, not a dict of weights"),
        ([1, 2], "holds a list, not a dict of weights"),
        (None, "holds a NoneType, not a dict"),
        ({}, r"not one of the published affnet, casvit, ffnet variants \(first keys: none\)"),
        ({"format": "tokenmix.checkpoint/1", "task": {}}, "holds the state of a training run; name the run's folder"),
        ({"epoch": 3, "state_dict": None}, r"first keys: none"),
        ({"state_dict": {"conv1.weight": torch.zeros(1)}}, r"first keys: conv1\.weight\); for the weights of another"),
    ],
)
def test_other_contents(content: object, reason: str, tmp_path) -> None:
    torch.save(content, tmp_path / "file.pth")
    with pytest.raises(CheckpointError, match=rf"file\.pth: .*{reason}"):
        load_checkpoint(tmp_path / "file.pth")


def test_foreign_architectures_and_variants() -> None:
    for model in ("resnet18", "dsm_ti", "mixernet_pico"):
        with pytest.raises(
            CheckpointError, match=r"given state dict: the architecture is not one of.*timm\.create_model"
        ):
            load_checkpoint(timm.create_model(model, num_classes=2).state_dict())
    wider = casvit.KEYS.to_official(casvit.casvit((2, 2, 4, 2), (56, 56, 112, 220), num_classes=2).state_dict())
    with pytest.raises(CheckpointError, match="not one of the published"):
        load_checkpoint(wider)


def test_a_state_dict_with_parts_missing_or_changed() -> None:
    weights = shifted(official(XS))
    for key in list(weights)[40:43]:
        del weights[key]
    weights["extra.weight"] = torch.zeros(1)
    weights["head.bias"] = torch.zeros(9)
    with pytest.raises(
        CheckpointError, match=r"looks like casvit_xs.*3 missing .*1 unexpected \(extra.weight\); 1 of ano"
    ):
        load_checkpoint(weights)
    weights["network.6.0.attn.oper_q.0.block.0.weight"] = torch.zeros(1, 2)
    with pytest.raises(
        CheckpointError, match="looks like casvit_xs, but does not fit it: Tensors must have same number"
    ):
        load_checkpoint(weights)
