"""The models under torch.export, torch.compile, TorchScript, copy and pickle."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from tests.backbone_cases import TOYS, distance, images, toy
from tokenmix.backbones.base import Backbone

each_toy = pytest.mark.parametrize("name", sorted(TOYS))
# One of each architecture; tracing costs seconds.
each_architecture = pytest.mark.parametrize(
    "name", ["affnet_et", "casvit_xs", "dsm_s", "ffnet_3", "ffnet_seg", "mixernet_pico"]
)


def shallow(name: str) -> Backbone:
    """One block in each stage."""
    return toy(name, depths=(1,) * len(TOYS[name]["depths"]))


@each_architecture
def test_export_with_free_batch_and_size(name: str) -> None:
    model = shallow(name)
    sizes = {0: Dim("batch", min=1, max=16), 2: Dim("height", min=33, max=512), 3: Dim("width", min=33, max=512)}
    program = torch.export.export(model, (images(64, 96),), dynamic_shapes=(sizes,)).module()
    for height, width, batch in ((64, 96, 2), (51, 70, 3), (97, 64, 1)):
        x = images(height, width, batch=batch)
        assert distance(program(x), model(x)) < 1e-5


@each_architecture
def test_compile_without_graph_breaks(name: str) -> None:
    torch.compiler.reset()
    model, x = shallow(name), images(64, 64)
    with torch.no_grad():
        assert distance(torch.compile(model, fullgraph=True, backend="aot_eager")(x), model(x)) < 1e-5


@pytest.mark.slow
@each_toy
def test_compiled_training_step(name: str) -> None:
    torch.compiler.reset()
    gradients = []
    for compiled in (False, True):
        model = toy(name).to(torch.float64).train()
        run = torch.compile(model, fullgraph=True, backend="aot_eager") if compiled else model
        run(images(64, 64, dtype=torch.float64)).square().mean().backward()
        gradients.append({key: p.grad for key, p in model.named_parameters()})
    # A bias before a norm has no gradient but rounding, so all are measured against the largest.
    largest = max(float(gradient.abs().max()) for gradient in gradients[0].values())
    differences = {key: float((gradients[1][key] - gradients[0][key]).abs().max()) for key in gradients[0]}
    assert max(differences.values()) < 1e-9 * largest


@pytest.mark.slow
# Inductor leaves complex numbers to eager mode and says so.
@pytest.mark.filterwarnings("ignore:Torchinductor does not support code generation for complex")
@each_architecture
def test_inductor(name: str) -> None:
    torch.compiler.reset()
    model, x = shallow(name), images(64, 64)
    with torch.no_grad():
        try:
            output = torch.compile(model, fullgraph=True)(x)
        except torch._inductor.exc.InductorError as error:
            if "compiler" in str(error).lower() or "Python.h" in str(error):
                pytest.skip(f"no working C++ compiler: {str(error).splitlines()[0]}")
            raise
        assert distance(output, model(x)) < 1e-4


class Doubled(nn.Module):
    """A scripted user of a model, to see that the type of what it returns is known."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x) * 2


@each_toy
def test_torchscript(name: str) -> None:
    model, x = toy(name), images(48, 64)
    scripted = torch.jit.script(Doubled(model))
    assert distance(scripted(x), 2 * model(x)) < 1e-5
    buffer = io.BytesIO()
    torch.jit.save(scripted, buffer)
    buffer.seek(0)
    other = images(51, 70)
    assert distance(torch.jit.load(buffer)(other), 2 * model(other)) < 1e-5


@each_toy
def test_torchscript_of_features(name: str) -> None:
    features, x = toy(name, features_only=True), images(48, 64)
    scripted = torch.jit.script(features)
    assert max(distance(a, b) for a, b in zip(scripted(x), features(x), strict=True)) < 1e-5


@each_toy
def test_copies(name: str) -> None:
    model, x = toy(name), images(48, 64)
    expected = model(x)  # any cache is filled before
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(x), expected)
        assert all(a is not b for a, b in zip(other.parameters(), model.parameters(), strict=True))


@each_toy
def test_inference_mode_then_training(name: str) -> None:
    """Nothing that was kept from inference may break the backward pass."""
    model, x = toy(name), images(48, 64)
    with torch.inference_mode():
        model(x)
    model(x).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
