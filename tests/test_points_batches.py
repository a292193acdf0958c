"""From clouds to batches, losses and votes: changes that are functions of (seed, epoch, index), sums that add up."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import convolve1d

from tests.scramble import scramble
from tokenmix.tasks.points.augment import Draws, augmented, rotation, smooth_field, voxelised
from tokenmix.tasks.points.batches import collate, training_sample, whole_sample
from tokenmix.tasks.points.cloud import IGNORED, Cloud, floor_centre, make_cloud
from tokenmix.tasks.points.loss import lovasz_softmax, points_loss
from tokenmix.tasks.points.model import PointUNet
from tokenmix.tasks.points.normals import estimate_normals
from tokenmix.tasks.points.options import CLOUD_AUGMENTS, Augment, CloudAugment
from tokenmix.tasks.points.votes import VIEWS, View, fragments, vote

FEATURES = ("color", "normal")


def room(points: int = 300, seed: int = 0) -> Cloud:
    """Points in a box of 2 m with everything that a cloud can have."""
    draw = np.random.default_rng(seed)
    return make_cloud(
        draw.random((points, 3)) * 2 + 5,
        draw.integers(10, 240, (points, 3)),
        draw.normal(size=(points, 3)),
        draw.random(points),
        draw.integers(-1, 3, points),
    )


# ----------------------------------------------------------------------------------------------------------- at random


@pytest.mark.parametrize("name", CLOUD_AUGMENTS)
def test_a_change_is_a_function_of_seed_epoch_and_index(name):
    augment = Augment(name=name, max_voxels=150, mix=0.5).parts

    def sample(seed: int, epoch: int, index: int):
        return training_sample(room(), FEATURES, 0.05, augment, seed=seed, epoch=epoch, index=index)

    first = sample(1, 2, 3)
    np.random.default_rng(5).random(7)
    torch.rand(3)
    again = sample(1, 2, 3)
    for field in ("feat", "grid", "segment"):
        assert np.array_equal(getattr(first, field), getattr(again, field))
    assert first.mix == again.mix
    assert len(first.feat) <= 150
    for other in ((2, 2, 3), (1, 3, 3), (1, 2, 4)):
        assert not np.array_equal(sample(*other).feat[:50], first.feat[:50])


def test_no_change_is_none():
    cloud = room()
    same = augmented(cloud, CloudAugment(), Draws(0, 0, 0))
    np.testing.assert_allclose(same.coord, cloud.coord - floor_centre(cloud.coord), atol=1e-6)
    assert np.array_equal(same.color, cloud.color)
    np.testing.assert_allclose(same.normal, cloud.normal, atol=1e-6)
    picked, grid = voxelised(same, 0.05, CloudAugment(), Draws(0, 0, 0))
    assert len(picked) == len(np.unique(grid, axis=0)) == len(grid)


def test_parts_do_what_they_say():
    cloud = room(4000)
    extent = np.ptp(cloud.coord, axis=0)

    def changed(**parts) -> Cloud:
        return augmented(cloud, CloudAugment(**parts), Draws(0, 0, 0))

    assert len(changed(drop=1.0, drop_ratio=0.25)) == 3000
    scaled = changed(scale=(1.5, 1.5))
    np.testing.assert_allclose(np.ptp(scaled.coord, axis=0), 1.5 * extent, rtol=1e-5)
    turned = changed(turn=1.0, tilt=1.0, flip=1.0)
    distances = [np.linalg.norm(each.coord[:50, None] - each.coord[None, :50], axis=2) for each in (turned, cloud)]
    np.testing.assert_allclose(*distances, atol=1e-5)
    assert cloud.normal is not None
    assert turned.normal is not None
    dots = [each.normal[:50] @ each.normal[:50].T for each in (turned, cloud)]
    np.testing.assert_allclose(*dots, atol=1e-5)
    mirrored = changed(flip=1.0)
    np.testing.assert_allclose(mirrored.coord[:, :2], -(cloud.coord - floor_centre(cloud.coord))[:, :2], atol=1e-5)
    moved = changed(jitter=0.01).coord - changed().coord
    assert moved.std() == pytest.approx(0.01, rel=0.05)
    assert np.abs(moved).max() <= 0.04 + 1e-5
    bent = changed(elastic=(0.2, 0.4)).coord - changed().coord
    assert 0.005 < bent.std() < 0.3
    stretched = changed(contrast=1.0).color
    assert stretched is not None
    assert cloud.color is not None
    assert stretched.min() < cloud.color.min()
    tinted = changed(shift=1.0).color - cloud.color
    assert np.ptp(tinted, axis=0).max() < 1e-3
    assert 0 < np.abs(tinted).max() <= 0.05 * 255
    assert (changed(noise=1.0, noise_std=0.02).color - cloud.color).std() == pytest.approx(0.02 * 255, rel=0.05)
    assert changed().segment.tolist() == cloud.segment.tolist()


def test_crops_are_what_lies_nearest_to_one_point():
    cloud = room(2000)
    augment = CloudAugment(sample_rate=0.3)
    picked, grid = voxelised(cloud, 0.05, augment, Draws(0, 0, 0))
    whole, _ = voxelised(cloud, 0.05, CloudAugment(), Draws(0, 0, 0))
    assert len(picked) == len(grid) == int(0.3 * len(whole))
    inside = {tuple(point) for point in picked.coord.tolist()}
    outside = np.array([point for point in whole.coord.tolist() if tuple(point) not in inside])

    def far(points: np.ndarray, centre: np.ndarray) -> np.ndarray:
        return np.linalg.norm(points - centre, axis=1)

    assert any(far(picked.coord, point).max() <= far(outside, point).min() for point in picked.coord)


def test_the_smooth_field_is_scipys():
    coord = np.random.default_rng(0).random((50, 3)) * [2.0, 1.0, 0.5]
    draws = Draws(0, 0, 0)
    ours = smooth_field(coord, 0.25, draws, "a")
    from scipy.interpolate import RegularGridInterpolator

    low = coord.min(0)
    shape = ((coord.max(0) - low) // 0.25).astype(int) + 3
    field = draws.normals("a", int(shape.prod()), 3).reshape(*shape, 3)
    for _ in range(2):
        for axis in range(3):
            field = convolve1d(field, np.ones(3) / 3, axis=axis, mode="constant")
    axes = [low[i] + 0.25 * (np.arange(shape[i]) - 1) for i in range(3)]
    np.testing.assert_allclose(ours, RegularGridInterpolator(axes, field)(coord), atol=1e-12)


def test_wrong_augmentations_are_told():
    with pytest.raises(ValueError, match="did you mean 'standard'"):
        Augment(name="standart")
    with pytest.raises(ValueError, match=r"'augment.scale' must be"):
        Augment(scale=(2, 1))
    with pytest.raises(ValueError, match=r"'augment.elastic' must be"):
        Augment(elastic=(0.2,))


# ------------------------------------------------------------------------------------------------------------- batches


def test_batches_are_flat_with_offsets():
    none = CloudAugment()
    samples = [training_sample(room(100 + i, i), FEATURES, 0.1, none, seed=0, epoch=0, index=i) for i in range(3)]
    batch = collate(samples)
    sizes = [len(sample.feat) for sample in samples]
    assert batch["offset"].tolist() == np.cumsum(sizes).tolist()
    assert batch["feat"].shape == (sum(sizes), 6)
    assert batch["grid_coord"].dtype == torch.int64
    assert "rows" not in batch
    mixed = collate([dataclasses.replace(sample, mix=True) for sample in samples])
    assert mixed["offset"].tolist() == [sum(sizes[:2]), sum(sizes)]
    assert torch.equal(mixed["feat"], batch["feat"])
    model = scramble(PointUNet((1, 1), (8, 8), (1,), (8,), num_classes=3))
    points_loss(model(mixed["feat"], mixed["grid_coord"], mixed["offset"]), mixed["segment"])["loss"].backward()


def test_in_evaluation_every_point_gets_its_voxels_answer():
    cloud = room(500)
    sample = whole_sample(cloud, FEATURES, 0.2)
    assert sample.rows is not None
    assert sample.truth is not None
    assert sample.truth.tolist() == cloud.segment.tolist()
    cells = np.floor(cloud.coord.astype(np.float64) / 0.2).astype(int)
    assert np.array_equal(sample.grid[sample.rows], cells - cells.min(0))
    batch = collate([sample, sample])
    assert [len(rows) for rows in batch["rows"]] == [500, 500]


# -------------------------------------------------------------------------------------------------------------- losses


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), points=st.integers(1, 60), classes=st.integers(2, 6))
def test_the_lovasz_loss_is_that_of_others(seed, points, classes):
    from segmentation_models_pytorch.losses import LovaszLoss

    draw = torch.Generator().manual_seed(seed)
    logits = torch.randn(points, classes, generator=draw).requires_grad_()
    label = torch.randint(-1, classes, (points,), generator=draw)
    label[0] = 0
    ours = lovasz_softmax(logits, label)
    theirs = LovaszLoss("multiclass", ignore_index=-1)(logits.T[None, :, :, None], label[None, :, None])
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    pair = (torch.autograd.grad(loss, logits)[0] for loss in (ours, theirs))
    torch.testing.assert_close(*pair, atol=1e-5, rtol=1e-5)


def test_of_hard_predictions_the_lovasz_loss_is_one_minus_the_mean_iou():
    label = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, IGNORED])
    guess = torch.tensor([0, 0, 1, 1, 1, 2, 0, 2, 1])
    logits = 1e4 * torch.nn.functional.one_hot(guess, 4).double()
    ious = torch.tensor([2 / 4, 2 / 3, 2 / 3], dtype=torch.float64)
    torch.testing.assert_close(lovasz_softmax(logits, label), 1 - ious.mean())


def test_the_loss_of_points():
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    label = torch.tensor([0, 1, 2, IGNORED, 1, 0])
    parts = points_loss(logits, label)
    expected = torch.nn.functional.cross_entropy(logits, label, ignore_index=IGNORED)
    torch.testing.assert_close(parts["cross_entropy"], expected.detach())
    torch.testing.assert_close(parts["loss"].detach(), parts["cross_entropy"] + parts["lovasz"])
    torch.testing.assert_close(points_loss(logits, label, 0.0)["loss"], expected)
    nothing = points_loss(logits, torch.full((6,), IGNORED))["loss"]
    nothing.backward()
    assert (float(nothing.detach()), float(logits.grad.abs().sum())) == (0.0, 0.0)
    assert points_loss(logits.bfloat16(), label)["loss"].dtype == torch.float32


# --------------------------------------------------------------------------------------------------------------- votes


def test_fragments_cover_every_point_and_have_one_of_each_voxel():
    cloud = room(400)
    seen = np.zeros(400, int)
    grids = []
    for rows, grid in fragments(cloud, 0.3):
        seen[rows] += 1
        grids.append(grid)
        assert len(np.unique(grid, axis=0)) == len(grid)
    assert seen.min() >= 1
    assert all(np.array_equal(grid, grids[0]) for grid in grids)


def test_votes_are_the_mean_of_the_fragments_that_a_point_is_in():
    model = scramble(PointUNet((1, 1), (8, 8), (1,), (8,), num_classes=3)).eval()
    cloud = room(200)
    whole = vote(model, cloud, FEATURES, 0.3)
    total, count = torch.zeros(200, 3, dtype=torch.float64), torch.zeros(200, 1)
    from tokenmix.tasks.points.cloud import features_of

    feat = features_of(cloud, FEATURES)
    for rows, grid in fragments(View().of(cloud), 0.3):
        with torch.no_grad():
            logits = model(torch.from_numpy(feat[rows]), torch.from_numpy(grid), torch.tensor([len(rows)]))
        total[rows] += logits.softmax(1).double()
        count[rows] += 1
    torch.testing.assert_close(whole.double(), total / count, atol=1e-5, rtol=1e-5)
    few = vote(model, cloud, FEATURES, 0.3, VIEWS["s3dis"], most=1)
    assert few.shape == (200, 3)
    torch.testing.assert_close(few.sum(1), torch.ones(200))
    assert (len(VIEWS["scannet"]), len(VIEWS["s3dis"])) == (13, 10)


def test_a_view_is_turned_about_the_middle():
    cloud = room()
    middle = cloud.coord - floor_centre(cloud.coord)
    np.testing.assert_allclose(View(180.0).of(cloud).coord, middle * [-1, -1, 1], atol=1e-5)
    np.testing.assert_allclose(View(flip=True).of(cloud).coord, middle * [-1, -1, 1], atol=1e-5)
    np.testing.assert_allclose(rotation(2, np.pi / 2) @ [1, 0, 0], [0, 1, 0], atol=1e-12)


# ------------------------------------------------------------------------------------------------------------- normals


def test_normals_of_walls_and_floor_point_into_the_room():
    draw = np.random.default_rng(0)
    floor = np.column_stack((draw.random((4000, 2)) * 3, draw.normal(0, 0.001, 4000)))
    wall = np.column_stack((draw.normal(3, 0.001, 4000), draw.random(4000) * 3, draw.random(4000) * 3))
    cloud = estimate_normals(make_cloud(np.concatenate((floor, wall))))
    assert cloud.normal is not None
    away = (cloud.coord[:, 0] < 2.7) | (cloud.coord[:, 2] > 0.3)
    expected = np.repeat([[0, 0, 1.0], [-1, 0, 0]], 4000, axis=0)
    assert ((cloud.normal * expected).sum(1)[away] > 0.98).mean() > 0.99
