"""The equivalent inference model: the same function in float64, a new object, and no batch norm left that could go."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from torch import Tensor, nn

import tokenmix
from tests.backbone_cases import TOYS, distance, images, toy
from tests.mixer_cases import thorough
from tests.scramble import scramble
from tokenmix.blocks import Residual
from tokenmix.layers import ConvNorm, NormConv, RepDepthwise, fold_input_norm, last_conv
from tokenmix.mixers import MIXERS, MetaMixer, make_mixer

each_toy = pytest.mark.parametrize("name", sorted(TOYS))
# A norm stays in front of what is no 1x1 convolution, and where two modules read it.
NO_CONVOLUTION_LAST = ("aff", "pool", "global_filter", "identity", "afno", "inception", "partial", "shift", "random")
NO_POINTWISE_FIRST = (*NO_CONVOLUTION_LAST, "depthwise", "star")
STAYS = {
    "affnet_b": r"stages\.[234]\.blocks\.0\.chain\.\d\.norm[12]",
    "affnet_et": "nothing",
    "casvit_xs": "final",
    "dsm_s": "nothing",
    "ffnet_1": "final",
    "ffnet_3": "final",
    "ffnet_seg": "nothing",
    "mixernet_pico": "final",
}


def double(name: str, **kwargs) -> nn.Module:
    return toy(name, **kwargs).to(torch.float64)


def x64(seed: int = 0) -> Tensor:
    return images(51, 70, dtype=torch.float64, seed=seed)


def structure(model: nn.Module) -> list[tuple[str, type]]:
    return [(name, type(module)) for name, module in model.named_modules()]


def batch_norms(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]


def assert_equivalent(fast: nn.Module, model: nn.Module) -> None:
    assert distance(fast(x64()), model(x64())) < 1e-10
    assert not any(isinstance(module, ConvNorm | NormConv | RepDepthwise) for module in fast.modules())
    assert not any(module.training for module in fast.modules())


@each_toy
def test_same_function_and_nothing_left_to_fold(name: str) -> None:
    model = double(name)
    fast = tokenmix.reparameterize(model)
    assert_equivalent(fast, model)
    assert distance(fast.forward_features(x64()), model.forward_features(x64())) < 1e-10
    levels = zip(*(m.forward_intermediates(x64(), intermediates_only=True) for m in (fast, model)), strict=True)
    assert max(distance(a, b) for a, b in levels) < 1e-10
    assert [norm for norm in batch_norms(fast) if not re.fullmatch(STAYS[name], norm)] == []
    assert batch_norms(fast) == [norm for norm in batch_norms(model) if re.fullmatch(STAYS[name], norm)]


@pytest.mark.parametrize(
    ("mixer", "name"),
    [
        thorough(mixer, name, quick=name == "mixernet_pico")
        for mixer in sorted(MIXERS)
        for name in ("mixernet_pico", "casvit_xs")
    ],
)
def test_every_mixer(mixer: str, name: str) -> None:
    model = double(name, mixers=mixer)
    fast = tokenmix.reparameterize(model)
    assert_equivalent(fast, model)
    stays = r"final|stages\.\d\.blocks\.\d\.mixer\.norm" if mixer in NO_POINTWISE_FIRST else "final"
    assert batch_norms(fast) == [norm for norm in batch_norms(model) if re.fullmatch(stays, norm)]


@each_toy
def test_the_given_model_is_left_alone(name: str) -> None:
    model = double(name)
    before, shape = copy.deepcopy(model.state_dict()), structure(model)
    fast = tokenmix.reparameterize(model, fold_layer_scale=True)
    for parameter in fast.parameters():
        parameter.data.zero_()
    assert structure(model) == shape
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())
    assert all(p.requires_grad for p in model.parameters())


@each_toy
def test_a_second_call_changes_nothing(name: str) -> None:
    once = tokenmix.reparameterize(double(name))
    twice = tokenmix.reparameterize(once)
    assert twice is not once
    assert structure(twice) == structure(once)
    assert list(twice.state_dict()) == list(once.state_dict())
    assert all(torch.equal(twice.state_dict()[key], value) for key, value in once.state_dict().items())


@each_toy
def test_float32(name: str) -> None:
    model, x = toy(name), images(64, 64)
    assert distance(tokenmix.reparameterize(model)(x), model(x)) < 2e-5


def test_training_mode_is_refused() -> None:
    model = toy("mixernet_pico")
    model.stages[1].train()
    with pytest.raises(ValueError, match=r"call model\.eval\(\)"):
        tokenmix.reparameterize(model)


def test_norm_without_statistics_is_refused() -> None:
    model = toy("mixernet_pico")
    model.stem[0].norm = nn.BatchNorm2d(8, track_running_stats=False).eval()
    with pytest.raises(ValueError, match="running statistics"):
        tokenmix.reparameterize(model)


@pytest.mark.parametrize("name", ["dsm_s", "ffnet_3", "ffnet_seg", "mixernet_pico"])
def test_layer_scales_fold_on_request(name: str) -> None:
    model = double(name)
    kept, folded = tokenmix.reparameterize(model), tokenmix.reparameterize(model, fold_layer_scale=True)
    assert any(key.endswith(".scale") for key in kept.state_dict())
    assert not any(key.endswith(".scale") for key in folded.state_dict())
    assert_equivalent(folded, model)
    later = tokenmix.reparameterize(kept, fold_layer_scale=True)
    assert list(later.state_dict()) == list(folded.state_dict())
    assert_equivalent(later, model)


@pytest.mark.parametrize("mixer", [thorough(mixer) for mixer in sorted(MIXERS)])
def test_layer_scale_of_every_mixer(mixer: str) -> None:
    model = double("mixernet_pico", mixers=mixer)
    folded = tokenmix.reparameterize(model, fold_layer_scale=True)
    assert_equivalent(folded, model)
    left = {key.split(".", 4)[4] for key in folded.state_dict() if key.count(".") == 5 and key.endswith(".scale")}
    assert left == ({"mixer.scale"} if mixer in NO_CONVOLUTION_LAST else set())


def test_two_classifiers_become_one() -> None:
    model = double("casvit_xs")
    fast = tokenmix.reparameterize(model)
    assert isinstance(fast.get_classifier(), nn.Linear)
    assert not any("fc_dist" in key for key in fast.state_dict())
    assert distance(fast.get_classifier().weight, sum(fc.weight for fc in model.get_classifier()) / 2) < 1e-15
    fast.reset_classifier(3)
    assert fast(x64()).shape == (2, 3)
    without = double("casvit_xs", num_classes=0)
    assert distance(tokenmix.reparameterize(without)(x64()), without(x64())) < 1e-10


@each_toy
@pytest.mark.parametrize("wrapper", ["list", "getter", "hook"])
def test_inside_timms_feature_wrappers(name: str, wrapper: str) -> None:
    model = double(name, features_only=True, feature_cls=wrapper)
    fast = tokenmix.reparameterize(model)
    assert max(distance(a, b) for a, b in zip(fast(x64()), model(x64()), strict=True)) < 1e-10
    stages = [norm for norm in batch_norms(fast) if "final" not in norm and not re.search(r"norm[12]$", norm)]
    assert stages == []


def test_inside_other_modules() -> None:
    backbone = double("ffnet_3")
    model = nn.ModuleDict({"a": nn.Sequential(backbone, nn.Softmax(1)), "b": nn.DataParallel(backbone)}).eval()
    fast = tokenmix.reparameterize(model)
    assert distance(fast["a"](x64()), model["a"](x64())) < 1e-10
    assert fast["b"].module is fast["a"][0]
    assert batch_norms(fast) == ["a.0.final"]


@each_toy
def test_scripted(name: str) -> None:
    model = double(name)
    fast = tokenmix.reparameterize(model)
    assert distance(torch.jit.script(fast)(x64()), model(x64())) < 1e-10


@pytest.mark.parametrize("name", ["casvit_xs", "ffnet_3", "mixernet_pico"])
def test_exported(name: str) -> None:
    model = double(name, depths=(1, 1, 1, 1))
    program = torch.export.export(tokenmix.reparameterize(model), (x64(),)).module()
    assert distance(program(x64(1)), model(x64(1))) < 1e-10


def test_a_users_mixer_keeps_its_norm() -> None:
    def mixer(dim: int, device=None, dtype=None) -> nn.Module:
        return nn.Sequential(ConvNorm(dim, dim, 3, groups=dim), nn.Conv2d(dim, dim, 1))

    model = double("mixernet_pico", mixers=mixer)
    fast = tokenmix.reparameterize(model, fold_layer_scale=True)
    assert_equivalent(fast, model)
    assert len(batch_norms(fast)) == 1 + sum(len(stage.blocks) for stage in model.stages)
    assert not any(key.endswith(".scale") for key in fast.state_dict())


@pytest.mark.parametrize("mixer", sorted(MIXERS))
def test_protocol_of_the_mixers(mixer: str) -> None:
    """``input_layers`` names what reads the input, and ``output_layer`` what makes the output."""
    made = make_mixer(mixer, 16)
    op = made.fuse() if hasattr(made, "fuse") else made
    norm = scramble(nn.BatchNorm2d(16)).eval()
    x, before = images(7, 5, chans=16), copy.deepcopy(op).eval()
    folds = fold_input_norm(op, norm)
    assert folds is (mixer not in NO_POINTWISE_FIRST)
    assert distance(op.eval()(x), before(norm(x) if folds else x)) < 1e-5
    conv = last_conv(op)
    assert (conv is None) is (mixer in NO_CONVOLUTION_LAST)
    if conv is not None:
        expected = 2 * op(x)
        with torch.no_grad():
            conv.weight *= 2
            if conv.bias is not None:
                conv.bias *= 2
        assert distance(op(x), expected) < 1e-5


def test_a_layer_of_another_kind_keeps_the_norm_in_front() -> None:
    """Adapters wrap a mixer's convolutions, for instance."""
    mixer = make_mixer("attention", 8)
    mixer.qkv = nn.Sequential(mixer.qkv, nn.Identity())
    block = Residual(8, mixer, norm=scramble(nn.BatchNorm2d(8))).eval()
    fused = block.fuse()
    assert isinstance(fused.norm, nn.BatchNorm2d)
    x = images(5, 5, chans=8)
    assert distance(fused(x), block(x)) < 1e-6


def test_a_frame_that_reads_its_input_twice_keeps_its_norm() -> None:
    class Reads(nn.Module):
        def forward(self, q: Tensor, x: Tensor) -> Tensor:
            return q + x

    frame = MetaMixer(nn.Conv2d(4, 4, 1), Reads(), nn.Identity(), Reads()).eval()
    before = copy.deepcopy(frame.state_dict())
    norm = scramble(nn.BatchNorm2d(4)).eval()
    assert fold_input_norm(frame, norm) is False
    assert all(torch.equal(frame.state_dict()[key], value) for key, value in before.items())
    block = Residual(4, frame, norm=norm).eval()
    x = images(5, 5, chans=4)
    assert distance(block.fuse()(x), block(x)) < 1e-6


class Skip(nn.Sequential):
    """A sequence with a way of its own."""

    def forward(self, x: Tensor) -> Tensor:
        between = self[0](x)
        return between + self[1](between)


class Decoder(nn.Module):
    """A module inside is called as our method is, and another's method of that name works in place."""

    def __init__(self) -> None:
        super().__init__()
        self.fuse = nn.Conv2d(4, 4, 1)
        self.other = Foreign()

    def forward(self, x: Tensor) -> Tensor:
        return self.other(self.fuse(x))


class Foreign(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3)

    def fuse(self) -> None:
        """Nothing to do, and nothing to return."""

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


@pytest.mark.parametrize("make", [lambda: Skip(nn.Conv2d(4, 4, 1), nn.GELU()), Decoder])
def test_modules_of_others_keep_their_ways(make) -> None:
    model, x = make().double().eval(), torch.randn(2, 4, 6, 6, dtype=torch.float64)
    torch.testing.assert_close(tokenmix.reparameterize(model)(x), model(x))


def test_another_norm_in_the_place_of_a_batch_norm_stays() -> None:
    model = double("casvit_xs")
    model.stem[0].norm = nn.GroupNorm(2, model.stem[0].conv.out_channels).double().eval()
    assert distance(tokenmix.reparameterize(model)(x64()), model(x64())) < 1e-10


def test_classifiers_of_others_stay_and_those_without_bias_are_averaged() -> None:
    model = double("casvit_xs")
    width = model.head.hidden_size
    for make in (lambda: nn.Sequential(nn.Linear(width, 5)), lambda: nn.Linear(width, 5, bias=False)):
        model.head.fc, model.head.fc_dist = make().double().eval(), make().double().eval()
        assert distance(tokenmix.reparameterize(model)(x64()), model(x64())) < 1e-10


def test_the_first_kernel_must_be_the_largest() -> None:
    with pytest.raises(ValueError, match=r"first of the kernels must be the largest, not \[3, 7\]"):
        RepDepthwise(4, (3, 7))
