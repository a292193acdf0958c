"""Checkpoint files as the official projects write them, of golden weights or of their shapes alone."""

from __future__ import annotations

import argparse
import collections
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests import goldens
from tokenmix.backbones import casvit
from tokenmix.checkpoints import load_checkpoint

AFFNET_ARGS: dict[str, Any] = {"norm": "group", "act": "silu", "threshold": 0.01}


def open_args(name: str) -> dict[str, Any]:
    """What the keys of a golden file cannot tell, from its official options; for a backbone the ones released."""
    options = goldens.load(name)["options"]
    if not name.startswith("affnet"):
        return {}
    args = dict(AFFNET_ARGS)
    if "ssdlite" in name or "deeplabv3" in name:
        args["head_act"] = options["model.activation.name"]
    if "deeplabv3" in name:
        args["output_stride"] = options["model.segmentation.output_stride"]
        args["rates"] = options["model.segmentation.deeplabv3.aspp_rates"]
    return args


@cache
def official(name: str) -> dict[str, Tensor]:
    """The official state dict of a golden file; shared, so leave it unchanged."""
    return goldens.state_dict(goldens.load(name))


def shifted(state_dict: dict[str, Tensor], by: float = 1.0) -> dict[str, Tensor]:
    """Other weights under the same keys."""
    return {key: tensor + by if tensor.is_floating_point() else tensor for key, tensor in state_dict.items()}


def prefixed(state_dict: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}{key}": tensor for key, tensor in state_dict.items()}


def extras() -> dict[str, Any]:
    """What the three projects' training loops save beside the weights."""
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([parameter], lr=1e-3)
    parameter.sum().backward()
    optimizer.step()
    history = collections.defaultdict(list, {"loss": [1.0, 0.5]})
    return {
        "optimizer": optimizer.state_dict(),
        "epoch": 299,
        "version": 2,
        "arch": "ffnet_1",
        "amp_scaler": {"scale": 65536.0, "growth_factor": 2.0, "_growth_tracker": 7},
        "scaler": {},
        "metric": np.float64(81.3),
        "best_metric": np.float32(73.02),
        "counts": [np.int64(3), np.bool_(True), np.uint8(9), np.str_("ab")],
        "lr_scheduler": {
            "milestones": collections.Counter([30, 60, 60]),
            "order": collections.OrderedDict(a=1),
            "history": history,
            "totals": collections.defaultdict(int, {"steps": 4}),
            "window": collections.deque([1.0, 2.0], maxlen=5),
        },
        "args": argparse.Namespace(
            lr=1e-3, opt_betas=None, aa="rand-m9", sizes=[224, (1, 2)], nested=argparse.Namespace(on=True), seen={1, 2}
        ),
        "kinds": (
            frozenset({"a"}),
            torch.float16,
            torch.Size([1, 3]),
            np.dtype("float32"),
            b"bytes",
            1 + 2j,
            bytearray(2),
        ),
        "meta": {
            "CLASSES": ("wall", "sky"),
            "PALETTE": [[0, 0, 0]],
            "config": "model = dict()",
            "mmseg_version": "0.30.0",
        },
    }


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Whether two state dicts have the same keys and equal tensors of the same types."""
    return one.keys() == other.keys() and all(
        torch.equal(tensor, other[key]) and tensor.dtype == other[key].dtype for key, tensor in one.items()
    )


def translated(name: str) -> dict[str, Tensor]:
    """The weights of a CAS-ViT's golden file under our keys."""
    state_dict = load_checkpoint(official(name)).state_dict()
    assert same(casvit.KEYS.to_official(state_dict), official(name))
    return state_dict
