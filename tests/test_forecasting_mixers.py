"""The one-dimensional mixers against their naive definitions, outputs and all gradients, and against their siblings."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.mixer_cases import closeness
from tests.mixer_references import batch_norm, branch, rows, slope
from tests.scramble import scramble
from tokenmix.layers import fused
from tokenmix.mixers import MIXERS, make_mixer
from tokenmix.ops.reference import Branch, silu
from tokenmix.tasks import find_task
from tokenmix.tasks.forecasting import reference
from tokenmix.tasks.forecasting.mixers import SERIES_MIXERS, make_series_mixer
from tokenmix.tasks.forecasting.mixers.convolutions import BranchedConv

CASES = (
    *SERIES_MIXERS,
    "aff(groups=3,act='prelu',threshold=0.1)",
    "ffnified(key_size=3,value_size=7,conv='rep')",
    "dsm(gate='sigmoid',nodes=3)",
    "dsm(dynamic=False,local=False)",
    "attention(head_dim=4,qkv_bias=True)",
    "pool(size=5)",
    "global_filter(size=11)",
    "depthwise(kernel_size=3)",
)
# What is the same formula on a map of height 1, parameter for parameter.
FLAT = ("aff", "aff(act='relu')", "attention", "pool", "identity")
every_case = pytest.mark.parametrize("spec", CASES)


def build(spec: str, dim: int = 12, *, training: bool = False) -> nn.Module:
    return scramble(make_series_mixer(spec, dim, dtype=torch.float64)).train(training)


def series(tokens: int, *, batch: int = 3, dim: int = 12, seed: int = 0) -> Tensor:
    return torch.randn(batch, dim, tokens, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def branches(op: nn.Module) -> list[Branch]:
    return [branch(b.conv, b.norm) for b in op.branches] if isinstance(op, BranchedConv) else [branch(op)]


def additive(mixer, x: Tensor, training: bool) -> Tensor:
    c, gates = x.shape[1], []
    for index in range(2):
        side = slice(index * c, index * c + c)
        norm = batch_norm(mixer.norm)
        half = norm._replace(
            weight=norm.weight[side], bias=norm.bias[side], mean=norm.mean[side], variance=norm.variance[side]
        )
        spatial = Branch(mixer.spatial.weight[side], mixer.spatial.bias[side], half)
        gates.append((spatial, mixer.token_score.weight[index : index + 1], mixer.channel_score.weight[side]))
    parts = branch(mixer.qkv), gates[0], gates[1], branch(mixer.dwc), branch(mixer.proj)
    return reference.additive(x, *parts, training=training)


def dsm(mixer, x: Tensor, training: bool) -> Tensor:
    generator = None
    if mixer.generator is not None:
        names = ("norm_z_weight", "norm_z_bias", "norm_g_weight", "norm_g_bias", "w1", "b1", "wg", "w2", "b2")
        generator = dict(zip(names, mixer.generator.weights(), strict=True))
    local = None if mixer.local is None else branch(mixer.local)
    parts = branch(mixer.value), mixer.embedding, branch(mixer.out)
    return reference.dsm(x, *parts, generator=generator, local=local, gate=mixer.gate)


def aff(mixer, x: Tensor, training: bool) -> Tensor:
    acts = [slope(act) if list(act.parameters()) else silu for act in (mixer.act, mixer.act2)]
    weights = mixer.w1, mixer.b1, mixer.w2, mixer.b2
    return reference.aff(x, *weights, act=acts[0], act2=acts[1], threshold=mixer.threshold)


DEFINITIONS: dict[str, Callable[..., Tensor]] = {
    "aff": aff,
    "ffnified": lambda m, x, training: reference.ffnified(
        x, branch(m.query.conv, m.query.norm), branches(m.key), branches(m.value), training=training
    ),
    "additive": additive,
    "dsm": dsm,
    "attention": lambda m, x, training: reference.attention(
        x, *rows(m.qkv, *[x.shape[1]] * 3), branch(m.proj), heads=x.shape[1] // m.head_dim
    ),
    "pool": lambda m, x, training: reference.pool(x, m.pool.kernel_size[0]),
    "global_filter": lambda m, x, training: reference.global_filter(x, m.weight),
    "depthwise": lambda m, x, training: reference.depthwise(x, m.conv.weight, m.conv.bias),
    "identity": lambda m, x, training: x * 1,
}


def compare(spec: str, tokens: int, *, dim: int = 12, training: bool = False) -> None:
    mixer = build(spec, dim, training=training)
    x, upstream = series(tokens, dim=dim).requires_grad_(), series(tokens, dim=dim, seed=1)
    inputs, names = [x, *mixer.parameters()], ["input", *(name for name, _ in mixer.named_parameters())]
    expected = DEFINITIONS[spec.split("(")[0]](mixer, x, training)
    wanted = torch.autograd.grad((expected * upstream).sum(), inputs, allow_unused=True)
    y = mixer(x)
    got = torch.autograd.grad((y * upstream).sum(), inputs)
    assert closeness(y, expected) < 1e-9
    floor = 1e-3 * max(float(g.abs().max()) for g in wanted if g is not None)
    for name, ours, theirs in zip(names, got, wanted, strict=True):
        assert theirs is not None, f"the definition does not use {name}"
        assert float((ours - theirs).abs().max()) <= 1e-9 * max(float(theirs.abs().max()), floor), name


def test_every_name_is_a_sibling_of_the_same_name_with_the_same_options() -> None:
    assert set(SERIES_MIXERS) <= set(MIXERS)
    for name, info in SERIES_MIXERS.items():
        assert info.build.__doc__, name
        assert info.build is not MIXERS[name].build


@every_case
@pytest.mark.parametrize("tokens", [1, 2, 7, 12])
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_outputs_and_all_gradients(spec: str, tokens: int, training: bool) -> None:
    compare(spec, tokens, training=training)


@pytest.mark.parametrize("spec", [spec for spec in CASES if "groups=" not in spec])
@pytest.mark.parametrize("dim", [1, 7])
def test_other_widths(spec: str, dim: int) -> None:
    compare(spec, 5, dim=dim, training=True)


@pytest.mark.parametrize("spec", FLAT)
@pytest.mark.parametrize("tokens", [1, 6, 11])
def test_equals_its_sibling_on_a_map_of_height_one(spec: str, tokens: int) -> None:
    mixer, sibling = build(spec), make_mixer(spec, 12, dtype=torch.float64)
    shapes = {key: value.shape for key, value in sibling.state_dict().items()}
    sibling.load_state_dict({key: value.reshape(shapes[key]) for key, value in mixer.state_dict().items()})
    x = series(tokens)
    assert closeness(mixer(x), sibling(x.unsqueeze(2)).squeeze(2)) < 1e-10


@every_case
def test_batched_is_one_by_one_and_fused_is_the_same(spec: str) -> None:
    mixer, x = build(spec), series(9)
    with torch.no_grad():
        y = mixer(x)
        assert closeness(torch.cat([mixer(x[i : i + 1]) for i in range(3)]), y) < 1e-12
        merged = fused(mixer)
        assert closeness(merged(x), y) < 1e-12
        assert not any(isinstance(module, nn.BatchNorm1d) for module in merged.modules())


@every_case
def test_half_precision_and_autocast(spec: str) -> None:
    mixer, x = make_series_mixer(spec, 12).eval(), series(8).float()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        y = mixer(x)
    assert torch.isfinite(y).all()
    with torch.no_grad():
        assert mixer.bfloat16()(x.bfloat16()).dtype == torch.bfloat16


def test_the_same_words_select_a_mixer() -> None:
    assert make_series_mixer("ffnified(key_size=9)", 4).key.kernel_size == (9,)
    assert isinstance(make_series_mixer("torch.nn:Identity", 4), nn.Identity)
    with pytest.raises(ValueError, match="did you mean 'aff'"):
        make_series_mixer("af", 4)
    with pytest.raises(TypeError, match="no option 'heads'; its options: head_dim, qkv_bias"):
        make_series_mixer("attention(heads=2)", 4)
    task = find_task("forecasting")
    task.check_mixers(["ffnet", "aff,dsm(nodes=3)"])
    with pytest.raises(ValueError, match="unknown mixer 'swift'"):
        task.check_mixers("swift")
    with pytest.raises(ValueError, match="more than any size of a mixer"):
        task.check_mixers("ffnified(key_size=8000001)")


@pytest.mark.parametrize(
    "spec",
    [
        "pool(size=2)", "depthwise(kernel_size=0)", "ffnified(key_size=4)", "ffnified(conv='strip')", "dsm(nodes=0)",
        "dsm(gate='hard')", "aff(groups=5)", "aff(act='no')", "attention(head_dim=0)", "global_filter(size=0)",
    ],
)  # fmt: skip
def test_mistakes_are_named(spec: str) -> None:
    with pytest.raises(ValueError, match=r"must be|does not divide|unknown"):
        make_series_mixer(spec, 12)
