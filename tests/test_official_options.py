"""Options of the official code that no golden file holds, against plain forms written from its keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor

from tests import goldens
from tests.official_models import shapes_of
from tokenmix import load_checkpoint, reparameterize
from tokenmix.backbones import affnet, ffnet
from tokenmix.checkpoints import convert

ACTS: dict[str, Callable[[Tensor], Tensor]] = {
    "swish": F.silu,
    "relu": F.relu,
    "relu6": F.relu6,
    "leaky_relu": lambda x: F.leaky_relu(x, 0.1),
    "hard_swish": lambda x: x * (x + 3).clamp(0, 6) / 6,
    "gelu": F.gelu,
}


class PlainAFFNet:
    """AFFNet-ET of the official code on its own state dict, float64."""

    def __init__(self, state_dict: Mapping[str, Tensor], norm: str, act: str, threshold: float, stride: int) -> None:
        self.tensors = {key: tensor.double() for key, tensor in state_dict.items()}
        self.norm, self.act_name, self.threshold, self.stride = norm, act, threshold, stride

    def get(self, *keys: str) -> list[Tensor]:
        return [self.tensors[key][:, None, None] for key in keys]

    def act(self, x: Tensor, key: str) -> Tensor:
        if self.act_name != "prelu":
            return ACTS[self.act_name](x)
        return torch.where(x > 0, x, x * self.get(key)[0])

    def batch_norm(self, x: Tensor, key: str) -> Tensor:
        mean, var, weight, bias = self.get(
            *(f"{key}.{leaf}" for leaf in ("running_mean", "running_var", "weight", "bias"))
        )
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    def unit(self, x: Tensor, key: str, *, stride: int = 1, dilation: int = 1, act: bool = True) -> Tensor:
        kernel = self.tensors[f"{key}.block.conv.weight"]
        pad = kernel.size(-1) // 2 * dilation
        x = F.conv2d(x, kernel, None, stride, pad, dilation, x.size(1) // kernel.size(1))
        x = self.batch_norm(x, f"{key}.block.norm")
        return self.act(x, f"{key}.block.act.weight") if act else x

    def inverted(self, x: Tensor, key: str, *, stride: int = 1, dilation: int = 1) -> Tensor:
        y = self.unit(x, f"{key}.block.exp_1x1")
        y = self.unit(y, f"{key}.block.conv_3x3", stride=stride, dilation=dilation)
        y = self.unit(y, f"{key}.block.red_1x1", act=False)
        return x + y if stride == 1 and x.size(1) == y.size(1) else y

    def inner_norm(self, x: Tensor, key: str) -> Tensor:
        if self.norm == "batch_norm":
            return self.batch_norm(x, key)
        axes = (1,) if self.norm == "layer_norm" else (1, 2, 3)
        centred = x - x.mean(axes, keepdim=True)
        variance = centred.square().mean(axes, keepdim=True)
        root = variance.sqrt() + 1e-5 if self.norm == "layer_norm" else (variance + 1e-5).sqrt()
        weight, bias = self.get(f"{key}.weight", f"{key}.bias")
        return centred / root * weight + bias

    def filter(self, x: Tensor, key: str) -> Tensor:
        w1, w2, b1, b2 = (self.tensors[f"{key}.{leaf}"] for leaf in ("w1", "w2", "b1", "b2"))
        spectrum = torch.fft.rfft2(x, norm="ortho")
        groups = spectrum.unflatten(1, (8, -1))
        first, second = torch.complex(w1[0], w1[1]), torch.complex(w2[0], w2[1])
        hidden = torch.einsum("bkihw,kio->bkohw", groups, first) + torch.complex(*b1)[:, :, None, None]
        slopes = (f"{key}.act.weight", f"{key}.act2.weight")
        hidden = torch.complex(self.act(hidden.real, slopes[0]), self.act(hidden.imag, slopes[1]))
        mask = torch.einsum("bkihw,kio->bkohw", hidden, second) + torch.complex(*b2)[:, :, None, None]
        mask = torch.complex(F.softshrink(mask.real, self.threshold), F.softshrink(mask.imag, self.threshold))
        return torch.fft.irfft2(mask.flatten(1, 2) * spectrum, s=x.shape[2:], norm="ortho") + x

    def __call__(self, x: Tensor) -> Tensor:
        x = self.inverted(self.unit(x, "conv_1", stride=2), "layer_1.0")
        for i in range(3):
            x = self.inverted(x, f"layer_2.{i}", stride=2 if i == 0 else 1)
        dilation = 1
        for name, depth, total in (("layer_3", 2, 8), ("layer_4", 4, 16), ("layer_5", 3, 32)):
            strided = total <= self.stride
            x = self.inverted(x, f"{name}.0", stride=2 if strided else 1, dilation=dilation)
            dilation *= 1 if strided else 2
            y = x
            for i in range(depth):
                key = f"{name}.1.global_rep.{i}"
                z = self.inner_norm(self.inverted(self.inner_norm(y, f"{key}.norm1"), f"{key}.mlp"), f"{key}.norm2")
                y = y + self.filter(z, f"{key}.filter")
            y = self.unit(self.inner_norm(y, f"{name}.1.global_rep.{depth}"), f"{name}.1.conv_proj", act=False)
            x = self.unit(torch.cat([x, y], 1), f"{name}.1.fusion")
        x = self.unit(x, "conv_1x1_exp").mean((2, 3))
        return x @ self.tensors["classifier.fc.weight"].T + self.tensors["classifier.fc.bias"]


def official(variant: str, family, **args) -> dict[str, Tensor]:
    """A checkpoint of the official project with these arguments: every entry drawn from its name."""
    model = timm.create_model(variant, device="meta", **args)
    return goldens.state_dict({"manifest": shapes_of(family.KEYS.to_official(model.state_dict()))})


def image(height: int, width: int, chans: int = 3) -> Tensor:
    return torch.randn(2, chans, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.filterwarnings("ignore:.*cannot tell")
@pytest.mark.parametrize(
    ("norm", "act", "threshold", "stride", "size"),
    [
        ("layer_norm_2d", "prelu", 0.01, 32, (65, 47)),
        ("layer_norm", "prelu", 0.3, 16, (64, 48)),
        ("layer_norm_2d", "hard_swish", 0.0, 8, (49, 70)),
        ("layer_norm", "gelu", 0.05, 8, (64, 64)),
        ("layer_norm_2d", "relu6", 0.01, 32, (64, 32)),
        ("layer_norm_2d", "leaky_relu", 0.01, 16, (33, 64)),
        ("batch_norm", "relu", 0.01, 16, (48, 64)),
        ("batch_norm", "swish", 0.01, 32, (64, 64)),
    ],
)
@torch.no_grad()
def test_affnet_under_the_official_names(norm: str, act: str, threshold: float, stride: int, size: tuple) -> None:
    checkpoint = official("affnet_et", affnet, norm=norm, act=act, num_classes=11)
    model = load_checkpoint(checkpoint, norm=norm, act=act, threshold=threshold, output_stride=stride).double()
    x = image(*size)
    expected = PlainAFFNet(checkpoint, norm, act, threshold, stride)(x)
    for form in (model, reparameterize(model)):
        assert float((form(x) - expected).abs().max() / expected.abs().max()) < 1e-10


@torch.no_grad()
def test_ffnet_with_squeeze_and_excitation(tmp_path) -> None:
    squeeze = [True, True, False, True]
    checkpoint = official("ffnet_1", ffnet, squeeze=squeeze, num_classes=11)
    model = load_checkpoint(checkpoint).double()
    for i, stage in enumerate(model.stages):
        x = image(5, 6, stage.dim)
        for j, block in enumerate(stage.blocks):
            x = block.mixer(x)
            key = f"stages.{i}.{j + (i > 0)}.token_mixer.1"
            squeezed = squeeze[i] and j % 2 == 0
            assert (f"{key}.fc1.weight" in checkpoint) == squeezed == hasattr(block, "squeeze")
            expected = x
            if squeezed:
                w1, b1, w2, b2 = (
                    checkpoint[f"{key}.{leaf}"].double()
                    for leaf in ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")
                )
                assert len(b1) == max(8, int(stage.dim / 4 + 4) // 8 * 8)
                hidden = F.relu(F.conv2d(x.mean((2, 3), keepdim=True), w1, b1))
                expected = x * torch.sigmoid(F.conv2d(hidden, w2, b2))
                torch.testing.assert_close(block.squeeze(x), expected, rtol=1e-12, atol=1e-12)
            x = block.mlp(expected)
    photo = image(40, 56)
    torch.testing.assert_close(reparameterize(model)(photo), model(photo), rtol=1e-10, atol=1e-10)
    convert(checkpoint, tmp_path / "ours.safetensors")
    convert(tmp_path / "ours.safetensors", tmp_path / "back.pth", to="official")
    back = torch.load(tmp_path / "back.pth")["state_dict"]
    assert back.keys() == checkpoint.keys()
    assert all(torch.equal(back[key], tensor) for key, tensor in checkpoint.items())


def test_squeeze_of_the_strip_architecture_and_mistakes() -> None:
    shapes = shapes_of(official("ffnet_seg", ffnet, squeeze=[False, True, False, False], depths=(1, 2, 1, 1)))
    assert [key for key in shapes if ".token_mixer.1." in key] == [
        f"stages.1.1.token_mixer.1.{layer}.{leaf}" for layer in ("fc1", "fc2") for leaf in ("weight", "bias")
    ]
    with pytest.raises(ValueError, match="one entry for each of the 4 stages"):
        timm.create_model("ffnet_1", squeeze=[True], device="meta")
