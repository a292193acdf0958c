"""FFNet for points: the official function and keys, and mixers that are on a plane what they are on a map."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests import goldens
from tests.counts import COUNTS
from tests.scramble import scramble
from tokenmix.mixers import AdditiveAttention, Pooling, SeparableAttention, SoftmaxAttention, ffnified_attention
from tokenmix.mixers.depthwise import Depthwise
from tokenmix.ops.sparse import Voxels
from tokenmix.tasks.points.fixed import FixedCloud
from tokenmix.tasks.points.mixers import VOXEL_MIXERS, z_order
from tokenmix.tasks.points.model import PointUNet, ffnet_points, ffnet_points_small
from tokenmix.tasks.points.official import KEYS, checkpoint_filter_fn, recognise

FOLDER = Path(__file__).parent / "golden" / "points"
TINY = {"depths": (1, 1), "dims": (8, 16), "decoder_depths": (1,), "decoder_dims": (8,), "num_classes": 5}
# The official float32 run was this far from its float64 one, relative to the largest value; 20 times that is allowed.
FLOAT32_TOLERANCE = 20 * 1e-6


def golden_cloud(golden: dict) -> dict[str, Tensor]:
    """The cells and features that the expected outputs belong to: thin wavy sheets."""
    counts, extent, channels = (golden["input_points"][key] for key in ("counts", "extent", "channels"))
    draw = np.random.Generator(np.random.PCG64(golden["input_seed"]))
    cells = []
    for count in counts:
        picked = draw.permutation(extent * extent)[:count]
        x, y = picked // extent, picked % extent
        z = np.floor(extent / 2 + extent / 4 * np.sin(x / 3.0) * np.cos(y / 4.0))
        cells.append(np.stack([x, y, z.astype(np.int64)], axis=1))
    grid = np.concatenate(cells)
    feat = draw.standard_normal((len(grid), channels)).astype(np.float32)
    return {
        "feat": torch.from_numpy(feat),
        "grid_coord": torch.from_numpy(grid),
        "offset": torch.from_numpy(np.cumsum(counts)),
    }


def cloud(*counts: int, channels: int = 6, seed: int = 0, extent: int = 12) -> dict[str, Tensor]:
    """Clouds of so many points, some of them in one voxel."""
    draw = torch.Generator().manual_seed(seed)
    total = sum(counts)
    return {
        "feat": torch.randn(total, channels, generator=draw),
        "grid_coord": torch.randint(0, extent, (total, 3), generator=draw),
        "offset": torch.tensor(counts).cumsum(0),
    }


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.json")))
def test_an_official_checkpoint_loads_strictly_and_gives_the_official_numbers(name):
    golden = json.loads((FOLDER / f"{name}.json").read_text())
    official = goldens.state_dict(golden)
    found = recognise({key: tuple(tensor.shape) for key, tensor in official.items()})
    assert found is not None
    assert found.variant == "ffnet_points"
    options = golden["options"]
    assert found.model_args["depths"] == tuple(options["enc_depths"])
    act = "gelu" if options.get("use_gelu", True) else "relu"
    model = ffnet_points(**found.model_args, act=act)
    model.load_state_dict(checkpoint_filter_fn(official, model), strict=True)
    assert sum(parameter.numel() for parameter in model.parameters()) == golden["params"]
    back = KEYS.to_official(model.state_dict())
    assert back.keys() == official.keys()
    assert all(torch.equal(back[key], official[key]) for key in official)
    points = golden_cloud(golden)
    with torch.no_grad():
        ours = model.eval()(**points)
        goldens.assert_matches(ours, golden["output"], torch.float32, tolerance=FLOAT32_TOLERANCE)
        ours = model.double()(**{**points, "feat": points["feat"].double()})
        goldens.assert_matches(ours, golden["output"], torch.float64)
    COUNTS["goldens"].add(name)


def test_official_checkpoints_of_other_sizes_are_recognised():
    model = PointUNet(
        **TINY,
        mixers="ffnified(key_size=5, value_size=5)",
        decoder_mixers="ffnified(key_size=3, value_size=3)",
        mlp_kernels=(5, 3),
        mlp_ratio=2,
        in_chans=4,
        stem_kernel=3,
    )
    official = {f"module.{key}": tensor for key, tensor in KEYS.to_official(scramble(model).state_dict()).items()}
    plain = {key.removeprefix("module."): tuple(tensor.shape) for key, tensor in official.items()}
    found = recognise(plain)
    assert found is not None
    again = ffnet_points(**found.model_args)
    again.load_state_dict(checkpoint_filter_fn({"state_dict": official, "epoch": 3}, again), strict=True)
    points = cloud(30, channels=4)
    torch.testing.assert_close(again.eval()(**points), model.eval()(**points))
    relu = ffnet_points(**found.model_args, act="relu").eval()
    relu.load_state_dict(again.state_dict())
    assert not torch.allclose(relu(**points), again(**points))
    assert recognise({"stem.0.weight": (3, 3)}) is None


@pytest.mark.parametrize("mixer", VOXEL_MIXERS)
def test_any_mixer_in_the_network(mixer):
    torch.manual_seed(0)
    model = scramble(PointUNet(**TINY, mixers=[mixer, "ffnified"])).double()
    points = cloud(40, 25)
    points["feat"] = points["feat"].double()
    out = model.train()(**points)
    assert out.shape == (65, 5)
    out.square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert all(bool(parameter.grad.isfinite().all()) for parameter in model.parameters())
    model.eval()
    both = model(**points)
    for part in (slice(0, 40), slice(40, 65)):  # no cloud sees what it is batched with
        size = part.stop - part.start
        alone = model(points["feat"][part], points["grid_coord"][part], torch.tensor([size]))
        torch.testing.assert_close(both[part], alone, rtol=0, atol=1e-10)
    order = torch.randperm(40)
    shuffled = model(points["feat"][order], points["grid_coord"][order], torch.tensor([40]))
    torch.testing.assert_close(shuffled, both[:40][order], rtol=0, atol=1e-10)


def test_points_in_one_voxel_are_one():
    model = scramble(PointUNet(**TINY)).eval().double()
    feat = torch.randn(3, 6, dtype=torch.float64)
    cells = torch.tensor([[0, 0, 0], [0, 0, 0], [1, 0, 0]])
    out = model(feat, cells, torch.tensor([3]))
    merged = model(torch.stack((feat[:2].mean(0), feat[2])), cells[1:], torch.tensor([2]))
    torch.testing.assert_close(out, merged[[0, 0, 1]])


def plane(side: int, dim: int) -> tuple[Tensor, Tensor, Voxels]:
    """A map (1, C, side, side), its pixels as rows in the voxels' order, and voxels that fill a plane."""
    x = torch.randn(1, dim, side, side, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    i, j = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    voxels, _ = Voxels.of(torch.stack((i.ravel(), j.ravel(), 0 * i.ravel()), 1), 0 * i.ravel(), 1)
    return x, x[0].flatten(1).T, voxels


@torch.no_grad()
def lay(kernel: Tensor, flat: Tensor) -> None:
    """Put a map's depthwise kernel (C, 1, k, k) into the middle of a voxel's, (C, k, k, k)."""
    kernel[..., kernel.shape[3] // 2] = flat[:, 0]


def counterparts(dim: int) -> dict[str, tuple[nn.Module, nn.Module]]:
    """Mixers on maps and on voxels with the same weights."""
    made = {
        "pool": Pooling(dim),
        "depthwise": Depthwise(dim),
        "separable": SeparableAttention(dim),
        "additive": AdditiveAttention(dim),
        "attention": SoftmaxAttention(dim, head_dim=4, qkv_bias=True),
        "ffnified": ffnified_attention(dim, key_size=3, value_size=3),
    }
    options = {"attention": {"head_dim": 4}, "ffnified": {"conv": "depthwise"}, "depthwise": {"size": 7}}
    pairs = {}
    for name, flat in made.items():
        sparse = VOXEL_MIXERS[name].build(dim, **options.get(name, {})).double().eval()
        flat = scramble(flat.double()).eval()
        theirs = flat.state_dict()
        with torch.no_grad():
            for key, tensor in sparse.state_dict().items():
                if key.endswith("running_mean") or (name == "ffnified" and "norm" in key):
                    continue
                source = theirs.get(key)
                if name == "additive" and key == "voxel_score":
                    tensor.copy_(theirs["pixel_score.weight"].view(2, dim))
                elif name == "additive" and key == "channel_score":
                    tensor.copy_(theirs["channel_score.weight"].view(2, dim, dim))
                elif source is not None and tensor.ndim == 4:
                    lay(tensor.zero_(), source)
                elif source is not None:
                    tensor.copy_(source.view_as(tensor))
        pairs[name] = (flat, sparse)
    flat, sparse = pairs["additive"]
    sparse.norm.load_state_dict(flat.norm.state_dict())
    sparse.norm.eps = flat.norm.eps
    flat, sparse = pairs["ffnified"]
    with torch.no_grad():  # the map's norm follows the query, the voxels' the convolutions
        norm = flat.query.norm
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        sparse.query.weight.copy_(flat.query.conv.weight[:, :, 0, 0] * scale[:, None])
        sparse.query.bias.copy_(norm.bias - norm.running_mean * scale)
        for ours, theirs in ((sparse.key, flat.key.op), (sparse.value, flat.value.op)):
            lay(ours.weight.zero_(), theirs.weight)
            ours.bias.copy_(theirs.bias)
        for inner in (sparse.key_norm, sparse.value_norm):
            inner.eps = 1e-30  # torch 2.11 refuses 0
    flat, sparse = pairs["depthwise"]
    lay(sparse.conv.weight.data.zero_(), next(p for p in flat.parameters() if p.ndim == 4))
    for parameter in flat.parameters():
        if parameter.ndim == 1:
            sparse.conv.bias.data.copy_(parameter.data)
    return pairs


@pytest.mark.parametrize("name", ["pool", "depthwise", "separable", "additive", "attention", "ffnified"])
def test_on_a_full_plane_a_mixer_is_what_it_is_on_a_map(name):
    flat, sparse = counterparts(8)[name]
    x, rows, voxels = plane(9, 8)
    expected = flat(x)[0].flatten(1).T
    torch.testing.assert_close(sparse(rows, voxels), expected, rtol=1e-9, atol=1e-9)


def test_a_mixer_of_ones_own_and_names_that_are_none(tmp_path, monkeypatch):
    class Mine(nn.Module):
        def __init__(self, dim: int) -> None:
            super().__init__()
            self.fc = nn.Linear(dim, dim)

        def forward(self, x: Tensor, voxels: Voxels) -> Tensor:
            return self.fc(x)

    assert PointUNet(**TINY, mixers=Mine)(**cloud(20)).shape == (20, 5)
    with pytest.raises(ValueError, match=r"unknown mixer 'aff'.*Known: additive, attention"):
        PointUNet(**TINY, mixers="aff")
    with pytest.raises(ValueError, match="2 stages"):
        PointUNet(**TINY, mixers="pool,pool,pool")
    with pytest.raises(ValueError, match="one fewer"):
        PointUNet(**{**TINY, "decoder_dims": (8, 8)})
    with pytest.raises(ValueError, match="odd"):
        PointUNet(**TINY, mixers="ffnified(key_size=2)")


def test_inputs_that_do_not_fit_are_errors():
    model = PointUNet(**TINY)
    points = cloud(20)
    with pytest.raises(ValueError, match="6 features"):
        model(points["feat"][:, :3], points["grid_coord"], points["offset"])
    with pytest.raises(ValueError, match="offset must grow up to the number of points"):
        model(points["feat"], points["grid_coord"], torch.tensor([19]))
    with pytest.raises(ValueError, match="offset must grow"):
        model(points["feat"], points["grid_coord"], torch.tensor([25, 20]))


def test_the_order_of_the_curve_is_mortons():
    voxels, _ = Voxels.of(torch.tensor([[0, 0, 1], [0, 1, 0], [1, 0, 0], [0, 0, 0]]), torch.zeros(4).long(), 1)
    assert z_order(voxels).tolist() == [0, 1, 2, 4]


def test_the_small_one_is_small():
    assert sum(parameter.numel() for parameter in ffnet_points_small(num_classes=8).parameters()) < 5e6


@pytest.mark.slow
def test_the_network_of_a_fixed_cloud_is_exported():
    model = scramble(PointUNet(**TINY)).eval()
    points = cloud(30, 20)
    fixed = FixedCloud(model, points["grid_coord"], points["offset"]).eval()
    with torch.no_grad():
        program = torch.export.export(fixed, (points["feat"],))
        torch.testing.assert_close(program.module()(points["feat"]), model(**points))
        assert torch.equal(fixed(points["feat"]), model(**points))


def test_recomputing_changes_no_gradient():
    points = cloud(30, 20)
    grads = []
    for recomputes in (False, True):
        torch.manual_seed(0)
        model = scramble(PointUNet(**TINY, drop_path_rate=0.3)).train()
        model.set_grad_checkpointing(recomputes)
        torch.manual_seed(1)
        model(**points).square().sum().backward()
        grads.append([parameter.grad for parameter in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


@pytest.mark.parametrize(
    "sizes", [{"depths": (10**9, 1)}, {"dims": (8, 10**6)}, {"depths": ("a", 1)}, {"mlp_kernels": (99, 3)}]
)
def test_sizes_without_measure_are_told(sizes):
    with pytest.raises(ValueError, match="must be whole numbers from 1 to"):
        PointUNet(**{**TINY, **sizes})
