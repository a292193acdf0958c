"""From a real mixer's parameters to the arguments of its naive definition."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from tokenmix.ops import reference, reference_yardsticks
from tokenmix.ops.reference import Branch, Norm


def branch(conv: nn.Conv2d, norm: nn.BatchNorm2d | None = None) -> Branch:
    """The numbers of a convolution and of the batch norm behind it."""
    return Branch(conv.weight, conv.bias, None if norm is None else batch_norm(norm))


def batch_norm(norm: nn.BatchNorm2d) -> Norm:
    # Copies of the statistics: a training step changes them in place.
    return Norm(norm.weight, norm.bias, norm.running_mean.clone(), norm.running_var.clone(), norm.eps)


def rows(conv: nn.Conv2d, *counts: int) -> list[Branch]:
    """The maps that one pointwise convolution holds, by their numbers of outputs."""
    weights = conv.weight.split(counts)
    biases = [None] * len(counts) if conv.bias is None else conv.bias.split(counts)
    return [Branch(w, b) for w, b in zip(weights, biases, strict=True)]


def slope(layer: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda x: reference.relu(x) - layer.weight * reference.relu(-x)


def aff(mixer, x: Tensor, training: bool) -> Tensor:
    learnt = bool(list(mixer.act.parameters()))
    return reference.aff(
        x,
        mixer.w1,
        mixer.b1,
        mixer.w2,
        mixer.b2,
        groups=mixer.w1.shape[1],
        act=slope(mixer.act) if learnt else "silu",
        act2=slope(mixer.act2) if learnt else "silu",
        threshold=0.01,
    )


def ffnified(mixer, x: Tensor, training: bool) -> Tensor:
    def branches(op: nn.Module) -> list[Branch]:
        return [branch(op)] if isinstance(op, nn.Conv2d) else [branch(b.conv, b.norm) for b in op.branches]

    query = branch(mixer.query.conv, mixer.query.norm)
    return reference.ffnified(x, query, branches(mixer.key.op), branches(mixer.value.op), training=training)


def additive(mixer, x: Tensor, training: bool) -> Tensor:
    c = x.shape[1]
    gates = []
    for side in (slice(0, c), slice(c, 2 * c)):  # query, key: one convolution of double width each
        norm = batch_norm(mixer.norm)
        half = Norm(norm.weight[side], norm.bias[side], norm.mean[side], norm.variance[side], norm.eps)
        spatial = Branch(mixer.spatial.weight[side], mixer.spatial.bias[side], half)
        first = side.start // c
        gates.append((spatial, mixer.pixel_score.weight[first : first + 1], mixer.channel_score.weight[side]))
    parts = branch(mixer.qkv), gates[0], gates[1], branch(mixer.dwc), branch(mixer.proj)
    return reference.additive(x, *parts, training=training)


def dsm(mixer, x: Tensor, training: bool) -> Tensor:
    g = mixer.generator
    generator = None
    if g is not None:
        generator = {
            "norm_z_weight": g.band_norm.weight,
            "norm_z_bias": g.band_norm.bias,
            "norm_g_weight": g.mean_norm.weight,
            "norm_g_bias": g.mean_norm.bias,
            "w1": g.fc1.weight,
            "b1": g.fc1.bias,
            "wg": g.fc_mean.weight,
            "w2": g.fc2.weight,
            "b2": g.fc2.bias,
        }
    return reference.dsm(
        x,
        branch(mixer.value),
        mixer.embedding,
        branch(mixer.out),
        generator=generator,
        local=None if mixer.local is None else branch(mixer.local),
        nodes=mixer.nodes,
        gate=mixer.gate,
    )


def attention(mixer, x: Tensor, training: bool) -> Tensor:
    c = x.shape[1]
    return reference.attention(x, *rows(mixer.qkv, c, c, c), branch(mixer.proj), heads=c // mixer.head_dim)


def separable(mixer, x: Tensor, training: bool) -> Tensor:
    c = x.shape[1]
    return reference.separable(x, *rows(mixer.qkv, 1, c, c), branch(mixer.proj))


def swift(mixer, x: Tensor, training: bool) -> Tensor:
    c = x.shape[1]
    query, key = rows(mixer.qk, c, c)
    return reference.swift(x, query, key, mixer.score.weight, branch(mixer.proj), branch(mixer.out))


def pool(mixer, x: Tensor, training: bool) -> Tensor:
    return reference.pool(x)


def global_filter(mixer, x: Tensor, training: bool) -> Tensor:
    return reference.global_filter(x, mixer.weight[0], mixer.weight[1], align_corners=True)


def depthwise(mixer, x: Tensor, training: bool) -> Tensor:
    return reference.depthwise(x, mixer.conv.weight, mixer.conv.bias)


def identity(mixer, x: Tensor, training: bool) -> Tensor:
    return reference.identity(x)


def afno(mixer, x: Tensor, training: bool) -> Tensor:
    return reference_yardsticks.afno(x, mixer.w1, mixer.b1, mixer.w2, mixer.b2, threshold=0.01)


def dynamic_filter(mixer, x: Tensor, training: bool) -> Tensor:
    acts = [(act.scale, act.bias) for act in (mixer.act, mixer.weigh_act)]
    weigh = mixer.weigh1.weight, acts[1], mixer.weigh2.weight
    parts = mixer.expand.weight, acts[0], weigh, mixer.weight, mixer.proj.weight
    return reference_yardsticks.dynamic_filter(x, *parts)


def large_kernel(mixer, x: Tensor, training: bool) -> Tensor:
    convs = mixer.query, mixer.local, mixer.dilated, mixer.attend, mixer.proj
    return reference_yardsticks.large_kernel(x, *(branch(conv) for conv in convs))


def focal(mixer, x: Tensor, training: bool) -> Tensor:
    c = x.shape[1]
    levels = [conv.weight for conv in mixer.levels]
    parts = rows(mixer.qzg, c, c, len(levels) + 1)
    return reference_yardsticks.focal(x, *parts, levels, branch(mixer.modulator), branch(mixer.proj))


def inception(mixer, x: Tensor, training: bool) -> Tensor:
    return reference_yardsticks.inception(x, [branch(conv) for conv in mixer.branches])


def star(mixer, x: Tensor, training: bool) -> Tensor:
    local, gather = (branch(part.conv, part.norm) for part in (mixer.local, mixer.gather))
    first, second, spread = (branch(conv) for conv in (mixer.first, mixer.second, mixer.spread))
    return reference_yardsticks.star(x, local, first, second, gather, spread, training=training)


def random(mixer, x: Tensor, training: bool) -> Tensor:
    return reference_yardsticks.random_mixing(x)


def window(mixer, x: Tensor, training: bool) -> Tensor:
    c, size = x.shape[1], mixer.window
    parts = *rows(mixer.qkv, c, c, c), mixer.offsets, branch(mixer.proj)
    return reference_yardsticks.window(x, *parts, size=size, shift=-mixer.before % size)


def relu_linear(mixer, x: Tensor, training: bool) -> Tensor:
    maps = mixer.qkv.weight, mixer.nearby.weight, mixer.blend.weight, branch(mixer.proj)
    return reference_yardsticks.relu_linear(x, *maps, head_dim=mixer.head_dim)


def selective_scan(mixer, x: Tensor, training: bool) -> Tensor:
    maps = mixer.expand.weight, branch(mixer.depthwise), mixer.select, mixer.step_bias, mixer.log_decay, mixer.skip
    norm = Norm(mixer.norm.weight, mixer.norm.bias, eps=mixer.norm.eps)
    return reference_yardsticks.selective_scan(x, *maps, norm, mixer.proj.weight)


def shift(mixer, x: Tensor, training: bool) -> Tensor:
    return reference_yardsticks.shift(x)


def gated_conv(mixer, x: Tensor, training: bool) -> Tensor:
    parts = *rows(mixer.expand, *mixer.parts), branch(mixer.depthwise), branch(mixer.proj)
    return reference_yardsticks.gated_conv(x, *parts)


def partial(mixer, x: Tensor, training: bool) -> Tensor:
    return reference_yardsticks.partial(x, mixer.conv.weight)


ADAPTERS: dict[str, Callable[[nn.Module, Tensor, bool], Tensor]] = {
    "aff": aff,
    "ffnified": ffnified,
    "additive": additive,
    "dsm": dsm,
    "attention": attention,
    "separable": separable,
    "swift": swift,
    "pool": pool,
    "global_filter": global_filter,
    "depthwise": depthwise,
    "identity": identity,
    "afno": afno,
    "dynamic_filter": dynamic_filter,
    "large_kernel": large_kernel,
    "focal": focal,
    "inception": inception,
    "star": star,
    "random": random,
    "window": window,
    "relu_linear": relu_linear,
    "selective_scan": selective_scan,
    "shift": shift,
    "gated_conv": gated_conv,
    "partial": partial,
}


def reference_of(spec: str, mixer: nn.Module, x: Tensor, *, training: bool = False) -> Tensor:
    """What the naive definition computes with the mixer's own parameters: gradients reach the same leaves."""
    name = spec.split("(")[0]
    assert name in ADAPTERS, f"mixer {name!r} has no naive definition: add one to tokenmix/ops and here"
    return ADAPTERS[name](mixer, x, training)
