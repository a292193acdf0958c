"""Choosing a mixer: by name, by name with options, by import path, by object; and what a mistake says."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor, nn

from tokenmix.mixers import MIXERS, MixerInfo, make_mixer, per_stage

HERE = "tests.test_mixer_names"


class Shift(nn.Module):
    """(B, C, H, W) -> (B, C, H, W): a user's own mixer, rolled along the width."""

    def __init__(self, dim: int, *, amount: int = 1, device=None, dtype=None):
        super().__init__()
        self.amount = amount
        self.weight = nn.Parameter(torch.ones(dim, 1, 1, device=device, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x.roll(self.amount, -1)


def shift_by_two(dim: int, *, device=None, dtype=None) -> nn.Module:
    """A user's mixer as a function."""
    return Shift(dim, amount=2, device=device, dtype=dtype)


NOT_CALLABLE = 3


@pytest.mark.parametrize("name", sorted(MIXERS))
def test_by_name(name: str) -> None:
    mixer = make_mixer(name, 8, dtype=torch.float64)
    assert isinstance(mixer, nn.Module)
    assert all(p.dtype == torch.float64 for p in mixer.parameters())


def test_the_table_is_complete() -> None:
    names = {"aff", "ffnified", "additive", "dsm"}
    names |= {"attention", "separable", "swift", "pool", "global_filter", "depthwise", "identity"}
    names |= {"window", "relu_linear", "selective_scan", "afno", "dynamic_filter", "large_kernel", "focal"}
    names |= {"gated_conv", "star", "inception", "partial", "shift", "random"}
    assert names <= set(MIXERS)
    for name, info in MIXERS.items():
        assert isinstance(info, MixerInfo)
        for field in ("paper", "query", "key", "act", "value", "complexity"):
            assert isinstance(getattr(info, field), str), (name, field)
            assert getattr(info, field), (name, field)


def test_by_name_with_options() -> None:
    plain, options = make_mixer("aff", 8), make_mixer("aff(groups=2)", 8)
    assert {tuple(p.shape) for p in plain.parameters()} != {tuple(p.shape) for p in options.parameters()}
    spaced = make_mixer(" aff( groups = 2 ) ", 8)
    assert [p.shape for p in spaced.parameters()] == [p.shape for p in options.parameters()]
    assert type(make_mixer("aff()", 8)) is type(plain)


@pytest.mark.parametrize(
    ("spec", "amount"),
    [
        (f"{HERE}:Shift", 1),
        (f"{HERE}:Shift(amount=4)", 4),
        (f"{HERE}:Shift(amount=-4)", -4),
        (f"{HERE}:shift_by_two", 2),
        (Shift, 1),
        (shift_by_two, 2),
        (functools.partial(Shift, amount=7), 7),
        (lambda dim, device=None, dtype=None: Shift(dim, amount=5, device=device, dtype=dtype), 5),
    ],
    ids=["path", "path with option", "negative", "function path", "class", "function", "partial", "lambda"],
)
def test_a_users_own_mixer(spec, amount: int) -> None:
    mixer = make_mixer(spec, 6, dtype=torch.float64, device="meta")
    assert isinstance(mixer, Shift)
    assert mixer.amount == amount
    assert mixer.weight.shape == (6, 1, 1)
    assert mixer.weight.dtype == torch.float64
    assert mixer.weight.is_meta


@pytest.mark.parametrize(("wrong", "right"), [("afff", "aff"), ("atention", "attention"), ("Pool", "pool")])
def test_an_unknown_name_gets_a_suggestion(wrong: str, right: str) -> None:
    with pytest.raises(ValueError, match=f"unknown mixer '{wrong}'; did you mean '{right}'"):
        make_mixer(wrong, 8)
    with pytest.raises(ValueError, match=f"unknown mixer '{wrong}'; did you mean '{right}'"):
        make_mixer(f"{wrong}(option=1)", 8)


@pytest.mark.parametrize("name", sorted(MIXERS))
def test_an_unknown_option_is_named(name: str) -> None:
    with pytest.raises((TypeError, ValueError), match="no_such_option"):
        make_mixer(f"{name}(no_such_option=3)", 8)


@pytest.mark.parametrize(
    "spec",
    [
        "aff(groups=__import__('os'))",
        "aff(groups=open('x'))",
        "aff(groups=2**40)",
        "aff(groups=groups)",
        "aff(groups=(lambda: 4)())",
        "aff(**{'groups': 4})",
        "aff(4)",
        "aff(*[4])",
        "aff[4]",
        "aff + pool",
        "aff.mro",
        "aff(groups=4",
        "aff(groups=)",
        "aff()()",
        "__import__('os')",
        "",
        "  ",
        "3",
        "'aff'",
        "aff; pool",
        "aff\npool",
        ":Shift",
        f"{HERE}:",
        f"{HERE}:Shift:Shift",
        f"{HERE}:Shift(amount=__import__('os'))",
    ],
)
def test_only_literals_are_read(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args, **kwargs):
        raise AssertionError("evaluated")

    monkeypatch.setattr("builtins.eval", never)
    monkeypatch.setattr("builtins.open", never)
    with pytest.raises((ValueError, TypeError)):
        make_mixer(spec, 8)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("tests.no_such_file:Shift", "no_such_file"),
        ("no_such_package.file:Shift", "no_such_package"),
        (f"{HERE}:Shfit", "Shfit"),
        (f"{HERE}:NOT_CALLABLE", "NOT_CALLABLE"),
        (f"{HERE}:Shift(amont=3)", "amont"),
    ],
)
def test_a_wrong_import_path_says_what_is_missing(spec: str, says: str) -> None:
    with pytest.raises((ValueError, TypeError), match=says):
        make_mixer(spec, 8)


@pytest.mark.parametrize("spec", [None, 3, ["aff"], {"aff": 1}, b"aff"])
def test_something_else_is_refused(spec) -> None:
    with pytest.raises((TypeError, ValueError)):
        make_mixer(spec, 8)


def test_a_given_group_count_must_divide() -> None:
    with pytest.raises(ValueError, match=r"5.*8|8.*5"):
        make_mixer("aff(groups=5)", 8)


def test_per_stage_repeats_one() -> None:
    assert per_stage("aff", 4) == ["aff"] * 4
    assert per_stage(Shift, 3) == [Shift] * 3
    assert per_stage(["pool"], 4) == ["pool"] * 4


def test_per_stage_splits_at_its_own_commas_only() -> None:
    stages = per_stage("aff(groups=4, threshold=0.5),pool,dsm,attention", 4)
    assert len(stages) == 4
    first = make_mixer(stages[0], 8)
    expected = make_mixer("aff(groups=4, threshold=0.5)", 8)
    assert [p.shape for p in first.parameters()] == [p.shape for p in expected.parameters()]
    assert [type(make_mixer(s, 8)) for s in stages[1:]] == [
        type(make_mixer(n, 8)) for n in ("pool", "dsm", "attention")
    ]
    mine = per_stage(f"{HERE}:Shift(amount=3), pool", 2)
    assert make_mixer(mine[0], 8).amount == 3
    assert type(make_mixer(mine[1], 8)) is type(make_mixer("pool", 8))


def test_per_stage_takes_lists() -> None:
    stages = ["aff(groups=2)", Shift, "pool", "pool"]
    assert per_stage(stages, 4) == stages
    assert per_stage(tuple(stages), 4) == stages


@pytest.mark.parametrize("spec", ["aff,pool", "aff,pool,pool,pool,pool", ["aff", "pool"], ["aff"] * 5, []])
def test_per_stage_wrong_counts(spec) -> None:
    with pytest.raises(ValueError, match="4"):
        per_stage(spec, 4)
