"""The networks as the papers' code runs them: what every speed of ours is compared with.

`reference_form` takes a model of ours and gives the same function, with the same weights, in the form in which the
official projects evaluate it: AFFNet's filter by einsum on complex views, CAS-ViT's query and key gates as two
branches, FFNet's kernels and every batch norm apart. Written from the published equations and architectures, see
``docs/mixers.md``; the tests hold its outputs against ours in float64.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenmix.mixers.additive import AdditiveAttention
from tokenmix.mixers.frequency import FrequencyFilter


class ReferenceFilter(nn.Module):
    """``(B, C, H, W) -> (B, C, H, W)``: AFFNet's filter; four products per complex map, each an einsum."""

    def __init__(self, source: FrequencyFilter) -> None:
        super().__init__()
        self.w1, self.b1, self.w2, self.b2 = source.w1, source.b1, source.w2, source.b2
        self.act, self.act2, self.threshold, self.groups = source.act, source.act2, source.threshold, source.groups

    def forward(self, x: Tensor) -> Tensor:
        wide = x if x.dtype == torch.float64 else x.float()
        with torch.autocast(x.device.type, enabled=False):  # there are no complex numbers of half precision
            return self._filter(wide, *(p.to(wide.dtype) for p in (self.w1, self.b1, self.w2, self.b2))).to(x.dtype)

    def _filter(self, x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
        spectrum = torch.fft.rfft2(x, dim=(2, 3), norm="ortho")
        blocks = spectrum.unflatten(1, (self.groups, -1))  # (B, G, b, H, W//2+1)
        real = self.act(self._part(blocks.real, w1[0]) - self._part(blocks.imag, w1[1]) + _row(b1[0]))
        imag = self.act2(self._part(blocks.imag, w1[0]) + self._part(blocks.real, w1[1]) + _row(b1[1]))
        mask_real = self._part(real, w2[0]) - self._part(imag, w2[1]) + _row(b2[0])
        mask_imag = self._part(imag, w2[0]) + self._part(real, w2[1]) + _row(b2[1])
        mask = F.softshrink(torch.stack([mask_real, mask_imag], -1), self.threshold)
        filtered = torch.view_as_complex(mask.contiguous()).flatten(1, 2) * spectrum
        return torch.fft.irfft2(filtered, s=x.shape[-2:], dim=(2, 3), norm="ortho")

    @staticmethod
    def _part(blocks: Tensor, weight: Tensor) -> Tensor:
        return torch.einsum("bkihw,kio->bkohw", blocks, weight)


def _row(bias: Tensor) -> Tensor:
    return bias[:, :, None, None]


class _Gate(nn.Module):
    """Query's or key's gate of CAS-ViT: one score per pixel, then one per channel."""

    def __init__(self, source: AdditiveAttention, first: bool) -> None:
        super().__init__()
        dim = source.dim
        rows = slice(0, dim) if first else slice(dim, 2 * dim)
        row = slice(0, 1) if first else slice(1, 2)
        self.spatial = _conv(source.spatial, rows, groups=dim)
        assert isinstance(source.norm, nn.BatchNorm2d), "the reference form comes from the model as it was trained"
        self.norm = _norm(source.norm, rows)
        self.act = nn.ReLU()
        self.pixel = _conv(source.pixel_score, row)
        self.channel = _conv(source.channel_score, rows)

    def forward(self, x: Tensor) -> Tensor:
        x = x * torch.sigmoid(self.pixel(self.act(self.norm(self.spatial(x)))))
        return x * torch.sigmoid(self.channel(F.adaptive_avg_pool2d(x, 1)))


class ReferenceAdditive(nn.Module):
    """``(B, C, H, W) -> (B, C, H, W)``: CAS-ViT's mixer with its two branches one after the other."""

    def __init__(self, source: AdditiveAttention) -> None:
        super().__init__()
        self.qkv, self.dwc, self.proj = source.qkv, source.dwc, source.proj
        self.query, self.key = _Gate(source, True), _Gate(source, False)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).chunk(3, 1)
        return self.proj(self.dwc(self.query(query) + self.key(key)) * value)


def _conv(source: nn.Conv2d, rows: slice, groups: int = 1) -> nn.Conv2d:
    """Some output channels of a convolution, which read as many of the input's."""
    weight = source.weight.detach()[rows]
    conv = nn.Conv2d(
        weight.size(1) * groups,
        weight.size(0),
        weight.shape[2:],  # type: ignore[arg-type]
        padding=source.padding,  # type: ignore[arg-type]
        groups=groups,
        bias=source.bias is not None,
        dtype=weight.dtype,
    )
    with torch.no_grad():
        conv.weight.copy_(weight)
        if source.bias is not None and conv.bias is not None:
            conv.bias.copy_(source.bias[rows])
    return conv


def _norm(source: nn.BatchNorm2d, rows: slice) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(source.weight[rows].numel(), source.eps, source.momentum, dtype=source.weight.dtype)
    state = {key: value[rows] if value.ndim else value for key, value in source.state_dict().items()}
    norm.load_state_dict(state)
    return norm.train(source.training)


FORMS = {FrequencyFilter: ReferenceFilter, AdditiveAttention: ReferenceAdditive}


def reference_form(model: nn.Module) -> nn.Module:
    """A copy of a model, as it was trained (not re-parameterised), in the papers' form."""
    model = copy.deepcopy(model)
    if type(model) in FORMS:
        return FORMS[type(model)](model).train(model.training)  # type: ignore[index]
    for module in list(model.modules()):
        for child_name, child in list(module.named_children()):
            if type(child) in FORMS:
                setattr(module, child_name, FORMS[type(child)](child).train(child.training))  # type: ignore[index]
    return model
