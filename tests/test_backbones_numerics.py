"""Precision, memory layout, randomness in training, and gradient checkpointing, on scrambled weights."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import nn

from tests.backbone_cases import SMALLEST, TOYS, distance, images, toy
from tests.scramble import scramble, settle
from tokenmix.layers import DropPath

each_toy = pytest.mark.parametrize("name", sorted(TOYS))


@each_toy
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(name: str, dtype: torch.dtype) -> None:
    model, x = toy(name), images(64, 64)
    expected = model(x)
    with torch.autocast("cpu", dtype=dtype):
        output = model(x)
    assert output.dtype == dtype
    assert distance(output.float(), expected) < (0.15 if dtype == torch.bfloat16 else 0.03)


@each_toy
def test_autocast_backward(name: str) -> None:
    model, x = toy(name).train(), images(64, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(x).float().square().mean()
    loss.backward()
    assert [key for key, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


@each_toy
def test_real_bfloat16_and_back(name: str) -> None:
    model, x = toy(name), images(64, 64)
    expected = model(x)
    output = model.to(torch.bfloat16)(x.to(torch.bfloat16))
    assert output.dtype == torch.bfloat16
    assert distance(output.float(), expected) < 0.2
    # No cache may keep the other type.
    assert model.to(torch.float64)(x.to(torch.float64)).dtype == torch.float64


@each_toy
def test_float64_computes_in_float64(name: str) -> None:
    """A cast to float32 anywhere inside would cost seven digits."""
    model = toy(name).to(torch.float64)
    x = images(40, 56, dtype=torch.float64)
    direction = images(40, 56, dtype=torch.float64, seed=1)
    steps = [model(x + 1e-9 * scale * direction) for scale in (1.0, 2.0)]
    base = model(x)
    assert distance(steps[1] - base, 2 * (steps[0] - base)) < 1e-3


@each_toy
def test_channels_last_gives_the_same(name: str) -> None:
    model, x = toy(name), images(40, 56)
    expected = model(x)
    output = copy.deepcopy(model).to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    assert distance(output, expected) < 1e-5


@each_toy
def test_checkpointing_gives_the_same_gradients(name: str) -> None:
    gradients = []
    for enable in (False, True):
        model = toy(name).to(torch.float64).train()
        model.set_grad_checkpointing(enable)
        assert all(stage.grad_checkpointing == enable for stage in model.stages)
        model(images(64, 64, dtype=torch.float64)).square().mean().backward()
        gradients.append({key: p.grad for key, p in model.named_parameters()})
    # Batch norms see the batch twice, which changes their running statistics, not the gradients.
    assert max(float((gradients[0][key] - gradients[1][key]).abs().max()) for key in gradients[0]) < 1e-12


@each_toy
def test_checkpointing_keeps_the_memory_format_of_one_image(name: str) -> None:
    """The stride of its batch alone tells channels_last memory there, and a view would lose it."""
    model, strides = toy(name), []
    for stage in model.stages:
        stage.register_forward_hook(lambda module, args, output: strides.append(output.stride()))
    model(images(64, 64)[:1])
    model.set_grad_checkpointing()
    model(images(64, 64)[:1])
    assert strides[: len(model.stages)] == strides[len(model.stages) :]


@each_toy
def test_checkpointing_recomputes_the_blocks(name: str) -> None:
    """Every block runs once in the forward pass and again in the backward pass."""
    model = toy(name)
    calls = []
    for stage in model.stages:
        for block in stage.blocks:
            block.register_forward_pre_hook(lambda *_: calls.append(1))
    model.set_grad_checkpointing()
    loss = model(images(64, 64)).sum()
    assert len(calls) == sum(len(stage.blocks) for stage in model.stages)
    loss.backward()
    assert len(calls) == 2 * sum(len(stage.blocks) for stage in model.stages)


@each_toy
def test_drop_path_and_dropout_act_in_training_only(name: str) -> None:
    x = images(64, 64)
    plain = toy(name)
    dropping, masking = toy(name, drop_path_rate=0.5), toy(name, drop_rate=0.5)
    for model in (dropping, masking):
        assert torch.equal(model(x), plain(x))
        assert torch.equal(model(x), model(x))
        # Only the random part is in training mode: batch norms would hide it.
        for module in model.modules():
            module.training = isinstance(module, DropPath | nn.Dropout)
        torch.manual_seed(0)
        outputs = torch.stack([model(x) for _ in range(8)])
        assert not torch.equal(outputs[0], outputs[1])
    rates = [module.rate for module in dropping.modules() if isinstance(module, DropPath)]
    assert max(rates) == 0.5
    assert rates == sorted(rates)
    assert masking.drop_rate == 0.5


def test_drop_path_keeps_the_mean_and_whole_samples() -> None:
    torch.manual_seed(0)
    x = torch.ones(4000, 2, 1, 1)
    dropped = DropPath(0.25).train()(x)
    assert dropped.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert torch.equal(dropped[:, 0], dropped[:, 1])
    assert float(dropped.mean()) == pytest.approx(1.0, abs=0.05)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", sorted(SMALLEST.values()))
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_on_cuda(name: str, dtype: torch.dtype) -> None:
    """At 224 pixels the last maps are 14 and 7 wide, sizes that CUDA's half-precision FFT refuses."""
    model = settle(scramble(timm.create_model(name)), images(224, 224, seed=1)).eval()
    x = images(224, 224)
    expected = model(x)
    model, x = model.cuda(), x.cuda()
    with torch.autocast("cuda", dtype=dtype):
        output = model(x)
        loss = output.float().square().mean()
    assert distance(output.float().cpu(), expected) < (0.15 if dtype == torch.bfloat16 else 0.03)
    loss.backward()
    assert [key for key, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []
