"""Training the mixers of a comparison: a job for every mixer and seed, and the best of each judged on test images."""

from __future__ import annotations

import dataclasses
import functools
import shutil
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from tokenmix.bench.cost import cost
from tokenmix.bench.match import Match, budget, match_widths
from tokenmix.comparison.request import Request, Spec
from tokenmix.data import DataSet, Loader
from tokenmix.evaluate import predictions
from tokenmix.files import atomic_path, slug
from tokenmix.jobs import Job
from tokenmix.recipes import Recipe
from tokenmix.train import FitResult, load_run
from tokenmix.train.log import Shown


@dataclasses.dataclass
class Trained:
    """A mixer's best run."""

    spec: Spec
    model: nn.Module
    told: dict[str, Tensor]
    entry: dict[str, Any]


def choose_dims(
    request: Request,
    own: tuple[int, ...],
    specs: Mapping[str, Spec],
    size: tuple[int, int],
    classes: int,
    log: Callable[[str], None],
) -> dict[str, tuple[int, ...]]:
    """Widths per mixer: the skeleton's own, or those that match the first mixer's budget."""
    result = dict.fromkeys(specs, own)
    if request.match is None:
        return result
    first = next(iter(specs))
    target = budget(request.skeleton, specs[first], request.match, image_size=size, num_classes=classes)
    log(f"budget: {target:,} {request.match} of {first} with widths {own}")
    for name in list(specs)[1:]:
        found: Match = match_widths(
            request.skeleton, specs[name], target, request.match, image_size=size, num_classes=classes
        )
        log(f"  {name}: widths {found.dims}, {found.value:,} {request.match} ({found.deviation:+.1%})")
        result[name] = found.dims
    return result


def mixer_jobs(
    folder: Path,
    request: Request,
    name: str,
    spec: Spec,
    dims: tuple[int, ...],
    images: DataSet,
    **options: Any,
) -> list[Job]:
    """A job for every seed of one mixer."""
    jobs = []
    for seed in range(request.recipe.seed, request.recipe.seed + request.seeds):
        recipe = dataclasses.replace(request.recipe, seed=seed, model_args={"mixers": name, "dims": list(dims)})
        # A recipe is text; a mixer that is an object goes beside it.
        named = dataclasses.replace(recipe, model_args={"dims": list(dims)})
        job = Job(
            folder / slug(name) / f"seed-{seed}",
            recipe,
            request.recipe.seed,
            label=f"seed {seed}" if request.seeds > 1 else "",
            images=lambda: images,
            make=None if isinstance(spec, str) else functools.partial(_build, named, len(images.classes), spec),
            **options,
        )
        jobs.append(job)
    return jobs


def judge(
    name: str,
    spec: Spec,
    jobs: Sequence[Job],
    results: Sequence[FitResult],
    images: DataSet,
    size: tuple[int, int],
    log: Callable[[str], None],
) -> Trained:
    """Judge every seed of one mixer on the test images; the weights of the best seed are kept."""
    place, device = jobs[0].folder.parent, jobs[0].device
    loader = test_loader(images, size, 64)
    runs = []
    for job, result in zip(jobs, results, strict=True):
        model, _ = load_run(result.best_weights, model=job.make() if job.make else None)
        told = predictions(model.to(device), Shown(loader, log, f"{name}: testing"), device)
        runs.append((result, model.cpu(), told))
    scores = [100.0 * (told["probabilities"].argmax(1) == told["labels"]).double().mean().item() for *_, told in runs]
    best = max(range(len(runs)), key=lambda i: runs[i][0].best["val_top1"])
    result, model, told = runs[best]
    with atomic_path(place / "best.safetensors") as temporary:
        shutil.copyfile(result.best_weights, temporary)
    counted = cost(model, size)
    entry = {
        "mixer": name,
        "test_top1": sum(scores) / len(scores),
        "test_top1_spread": statistics.stdev(scores) if len(scores) > 1 else None,
        "test_top1_per_seed": scores,
        "val_top1": result.best["val_top1"],
        "dims": jobs[0].recipe.model_args["dims"],
        "params": counted.params,
        "macs": counted.macs,
        "transform_macs": counted.transform_macs,
        "seconds": sum(run[0].seconds for run in runs),
        "weights_sha256": result.best["weights_sha256"],
        "history": result.history,
        "confusion": _confusion(told, len(images.classes)),
        "files": {"weights": f"{place.name}/best.safetensors", "onnx": f"{place.name}/model.onnx"},
    }
    log(f"  {name}: {entry['test_top1']:.2f} % of {len(images.test):,} test images")
    return Trained(spec, model, told, entry)


def _build(recipe: Recipe, num_classes: int, spec: Spec) -> nn.Module:
    rates: dict[str, Any] = {"drop_rate": recipe.drop_rate, "drop_path_rate": recipe.drop_path_rate}
    return timm.create_model(recipe.model, num_classes=num_classes, mixers=spec, **rates, **recipe.model_args)


def test_loader(images: DataSet, size: tuple[int, int], batch_size: int) -> Loader:
    """Of the test images, in order."""
    return Loader(images.test, batch_size=batch_size, image_size=size, mean=images.mean, std=images.std, train=False)


def _confusion(told: Mapping[str, Tensor], classes: int) -> list[list[int]]:
    """Counts: a row per true class, a column per predicted one."""
    flat = told["labels"] * classes + told["probabilities"].argmax(1)
    return torch.bincount(flat, minlength=classes * classes).reshape(classes, classes).tolist()
