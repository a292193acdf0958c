"""The main job: which token mixer for these images and this device? Mixers side by side, from data to shipped model."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import io
import json
import os
import re
import shlex
import shutil
import statistics
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from tokenmix.backbones.reparameterize import reparameterize
from tokenmix.bench import machine
from tokenmix.bench.cost import cost
from tokenmix.bench.match import BUDGETS, Match, base_dims, budget, match_widths
from tokenmix.bench.memory import peak_memory_mb
from tokenmix.bench.speed import latency
from tokenmix.checkpoints import our_models
from tokenmix.data import DataSet, Loader, load_data
from tokenmix.data.transforms import height_width
from tokenmix.evaluate import find_device, predictions
from tokenmix.export.extras import require
from tokenmix.export.onnx import export_onnx
from tokenmix.export.verify import check, verify_onnx
from tokenmix.files import atomic_path, locked, sha256, write_json, write_text
from tokenmix.mixers import MixerSpec, list_mixers, make_mixer, per_stage, split_specs
from tokenmix.names import unknown
from tokenmix.recipes import Recipe, make_recipe, override
from tokenmix.report.comparison import write_comparison
from tokenmix.train.checkpoint import load_run, versions
from tokenmix.train.log import Shown
from tokenmix.train.loop import fit

SCHEMA = "tokenmix.compare/1"
PAPERS = ("aff", "ffnified", "additive", "dsm")
DEFAULT_MIXERS = (*PAPERS, "attention", "pool", "depthwise", "identity")
DEFAULT_SKELETON = "mixernet_pico"
SAMPLES = 24
DECIDED = {
    "data": "the data are the first argument",
    "model": "name the skeleton with --skeleton (skeleton=)",
    "model_args": "name the mixers with --mixers (mixers=); --match chooses the widths",
}

Spec = MixerSpec | Sequence[MixerSpec]  # for all stages, or one per stage


@dataclasses.dataclass(frozen=True)
class Request:
    """Everything that decides the numbers of a comparison; what it was asked with is kept in ``compare.json``."""

    data: str
    mixers: tuple[str, ...]
    skeleton: str
    recipe: Recipe
    seeds: int
    match: str | None


def compare(
    data: str | os.PathLike[str] = "digits",
    mixers: Sequence[Spec] | str = DEFAULT_MIXERS,
    *,
    out: str | Path,
    skeleton: str = DEFAULT_SKELETON,
    recipe: str | None = None,
    settings: Sequence[str] = (),
    seeds: int = 1,
    match: str | None = None,
    batch_sizes: Sequence[int] = (1, 32),
    compile: bool = False,
    measure_seconds: float = 60.0,
    device: str = "cpu",
    workers: int = 0,
    download: bool = False,
    fresh: bool = False,
    log: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Train each mixer in the same skeleton under one budget, judge it on held-out images, export and measure it.

    Everything lands in ``out``: ``results.json`` (which is also returned), ``report.html``, ``command.txt``, and a
    folder per mixer with ``best.safetensors`` and ``model.onnx``. A second call continues where the first one ended.

    Args:
        data: ``"digits"``, an image folder, a torchvision data set's name, or ``hf:owner/name``.
        mixers: Mixer specs, each for all stages or, ``"aff,aff,pool,pool"``, one per stage. A text lists several with
            commas between; in it, ``"[aff,aff,pool,pool]"`` is one mixer.
        out: The folder for the results.
        skeleton: A model's name whose builder takes ``mixers`` and ``dims``.
        recipe: A recipe's name or file; the default is ``digits`` for the digits and ``basic`` otherwise.
        settings: Overrides of the recipe, ``"epochs=3"``.
        seeds: How many times each mixer is trained; the accuracy is then a mean with a spread.
        match: ``"params"`` or ``"macs"`` changes the widths of the others to the first mixer's budget.
        batch_sizes: Of the latency measurement.
        compile: Measure `torch.compile` too; its first compilation takes a minute per mixer.
        measure_seconds: Time for the latency measurement of all mixers together.
        device: Where to train and measure.
        workers: Processes that load images; 0 loads in this one.
        download: Allow torchvision's and Hugging Face's data sets to be downloaded.
        fresh: Throw away what ``out`` holds of an earlier comparison.
        log: Takes progress lines.

    Raises:
        ValueError: For an unknown name, or if ``out`` holds another comparison or another process is at work in it.
        ImportError: If an optional package is missing; the message has the install command.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        require(package, "compare")
    data = os.fspath(data)
    specs = _specs(mixers)
    if match is not None and match not in BUDGETS:
        raise ValueError(unknown("budget to match", match, BUDGETS))
    if seeds < 1:
        raise ValueError(f"seeds must be 1 or more, got {seeds}")
    if not batch_sizes or min(batch_sizes) < 1 or measure_seconds <= 0:
        raise ValueError("batch sizes and the seconds to measure must be positive")
    find_device(device)
    own = _own_dims(skeleton)
    base = make_recipe(recipe or (data if data == "digits" else "basic"))
    for key in (setting.partition("=")[0].split(".")[0].strip() for setting in settings):
        if key in DECIDED:
            raise ValueError(f"the recipe key {key!r} cannot be set here: {DECIDED[key]}")
    base = dataclasses.replace(override(base, settings), model=skeleton, model_args={}, data=data)
    if base.preprocess != "data" or base.crop_pct is not None:
        raise ValueError("compare prepares images as the data set says: set preprocess=data and crop_pct=None")
    request = Request(data, tuple(specs), skeleton, base, seeds, match)
    folder = Path(out)
    with locked(folder):
        _check_owner(folder, request, fresh)
        images = load_data(data, seed=base.seed, download=download, log=log)
        size = height_width(base.image_size or images.image_size)
        dims = _dims(request, own, specs, size, len(images.classes), log)
        _claim(folder, request, fresh)
        trained: dict[str, _Trained] = {}
        for number, (name, spec) in enumerate(specs.items(), 1):
            log(f"[{number}/{len(specs)}] {name}")
            trained[name] = _train(folder, request, name, spec, dims[name], images, size, device, workers, log)
        _measure(folder, skeleton, trained, images, size, batch_sizes, compile, measure_seconds, device, log)
        pictures = _add_samples(trained, images)
        results = {
            "schema": SCHEMA,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": _command(
                request,
                out=str(out),
                recipe=recipe,
                settings=settings,
                batch_sizes=batch_sizes,
                compile=compile,
                measure_seconds=measure_seconds,
                device=device,
                workers=workers,
            ),
            **_facts(request, images, size),
            "threads": torch.get_num_threads(),
            "batch_sizes": list(batch_sizes),
            "runtimes": list(next(iter(trained.values())).entry["latency_ms"]),
            "mixers": {name: one.entry for name, one in trained.items()},
        }
        results = json.loads(json.dumps(results))  # what is returned is what the file holds
        write_json(folder / "results.json", results)
        write_text(folder / "command.txt", results["command"] + "\n")
        write_comparison(results, folder / "report.html", pictures)
    return results


def spec_name(spec: Spec) -> str:
    """A spec as text: itself, or where a class or function comes from; those of the stages with commas between."""
    if isinstance(spec, str):
        return spec
    if isinstance(spec, Sequence):
        return ",".join(map(spec_name, spec))
    if isinstance(spec, functools.partial):
        return f"{spec_name(spec.func)}({', '.join(f'{name}={value!r}' for name, value in spec.keywords.items())})"
    module = getattr(spec, "__module__", None)
    return f"{module}:{getattr(spec, '__qualname__', type(spec).__name__)}"


def _listed(text: str) -> list[str]:
    """The mixers that a text lists; one that comes twice can only mean stages, and brackets always do."""
    specs = split_specs(text)
    return specs if len(set(specs)) == len(specs) else [text]


def _specs(mixers: Sequence[Spec] | str) -> dict[str, Spec]:
    """Specs by name, each built once at a small width so that a mistake is found before any training."""
    listed = [
        re.sub(r"\s*\[(.*)\]\s*", r"\1", spec) if isinstance(spec, str) else spec
        for spec in (_listed(mixers) if isinstance(mixers, str) else mixers)
    ]
    if not listed:
        raise ValueError(f"name at least one mixer; known: {', '.join(list_mixers())}")
    names = [spec_name(spec) for spec in listed]
    for name, spec in zip(names, listed, strict=True):
        if names.count(name) > 1:
            raise ValueError(f"mixer {name!r} is named {names.count(name)} times; each needs a name of its own")
        for stage in set(per_stage(spec, 4)):
            make_mixer(stage, 32, device="meta")
    return dict(zip(names, listed, strict=True))


def _command(request: Request, *, out: str, settings: Sequence[str], **options: Any) -> str:
    """The command line that repeats this comparison: what differs from its defaults."""
    mixers = request.mixers
    if len(mixers) == 1 and len(split_specs(mixers[0])) > 1:
        mixers = (f"[{mixers[0]}]",)  # else it would be a list of mixers
    words = ["tokenmix", "compare", request.data, "--mixers", *mixers, "--out", out]
    defaults = {name: parameter.default for name, parameter in inspect.signature(compare).parameters.items()}
    options |= {"skeleton": request.skeleton, "seeds": request.seeds, "match": request.match}
    for name, value in options.items():
        if value == defaults[name]:
            continue
        flag = f"--{name.replace('_', '-')}"
        values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        words += [flag] if value is True else [flag, *(str(v) for v in values)]
    return shlex.join([*words, *(word for setting in settings for word in ("--set", setting))])


def _identity(request: Request) -> dict[str, Any]:
    """What must not change in a folder: all but the mixers, which may join what is there."""
    wanted = json.loads(json.dumps(dataclasses.asdict(request)))
    wanted.pop("mixers")
    return wanted


def _check_owner(folder: Path, request: Request, fresh: bool) -> None:
    """Make sure that ``folder`` belongs to this comparison, so that nothing in it is taken for what it is not."""
    stamp = folder / "compare.json"
    if fresh or not stamp.is_file():
        return
    found, wanted = json.loads(stamp.read_text(encoding="utf-8")), _identity(request)
    differing = [key for key in wanted if found.get(key) != wanted[key]]
    if "recipe" in differing:
        differing.remove("recipe")
        differing += [f"recipe.{k}" for k, v in wanted["recipe"].items() if found.get("recipe", {}).get(k) != v]
    if differing:
        raise ValueError(
            f"{folder} holds another comparison (it differs in {', '.join(differing)}): "
            "choose another folder with --out, or start it again with --fresh"
        )


def _claim(folder: Path, request: Request, fresh: bool) -> None:
    """Write into ``folder`` which comparison it belongs to, once nothing but training can go wrong."""
    if fresh:
        for entry in folder.glob("*/seed-*"):
            shutil.rmtree(entry)
    write_json(folder / "compare.json", _identity(request))


def _own_dims(skeleton: str) -> tuple[int, ...]:
    """The widths of a skeleton's stages.

    Raises:
        ValueError: It is unknown, or takes no mixers.
    """
    known = our_models()
    if not timm.is_model(skeleton):
        raise ValueError(unknown("skeleton", skeleton, known))
    try:
        return base_dims(skeleton)
    except TypeError:
        raise ValueError(f"{skeleton} takes no mixers, so it is no skeleton; these are: {', '.join(known)}") from None


def _facts(request: Request, images: DataSet, size: tuple[int, int]) -> dict[str, Any]:
    """What was compared, on what, by what."""
    base = request.recipe
    return {
        "skeleton": request.skeleton,
        "match": request.match,
        "seeds": list(range(base.seed, base.seed + request.seeds)),
        "data": {
            "name": images.name,
            "classes": images.classes,
            "train": len(images.train),
            "val": len(images.val),
            "test": len(images.test),
            "image_size": size[0] if size[0] == size[1] else size,
            "skipped": [dataclasses.asdict(skipped) for skipped in images.skipped],
        },
        "recipe": dataclasses.asdict(base),
        "machine": machine.describe(),
        "versions": {**machine.versions(), **versions()},
    }


def _dims(
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


def slug(name: str) -> str:
    """A folder's name for a mixer: readable, and different for different specs."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")
    return plain if plain == name else f"{plain[:40]}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


@dataclasses.dataclass
class _Trained:
    """A mixer's best run."""

    spec: Spec
    model: nn.Module
    told: dict[str, Tensor]
    entry: dict[str, Any]


def _train(
    folder: Path,
    request: Request,
    name: str,
    spec: Spec,
    dims: tuple[int, ...],
    images: DataSet,
    size: tuple[int, int],
    device: str,
    workers: int,
    log: Callable[[str], None],
) -> _Trained:
    """Train one mixer with every seed and judge it on the test images; the weights of the best seed are kept."""
    place = folder / slug(name)
    loader = _test_loader(images, size, 64)
    runs = []
    for seed in range(request.recipe.seed, request.recipe.seed + request.seeds):
        recipe = dataclasses.replace(request.recipe, seed=seed, model_args={"mixers": name, "dims": list(dims)})
        # A recipe is text; a mixer that is an object goes beside it.
        named = dataclasses.replace(recipe, model_args={"dims": list(dims)})
        make = None if isinstance(spec, str) else functools.partial(_build, named, len(images.classes), spec)
        result = fit(
            recipe,
            images,
            place / f"seed-{seed}",
            model=make,
            device=device,
            workers=workers,
            log=log,
            label=f"seed {seed}" if request.seeds > 1 else "",
        )
        model, _ = load_run(result.best_weights, model=make() if make else None)
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
        "dims": list(dims),
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
    return _Trained(spec, model, told, entry)


def _build(recipe: Recipe, num_classes: int, spec: Spec) -> nn.Module:
    rates: dict[str, Any] = {"drop_rate": recipe.drop_rate, "drop_path_rate": recipe.drop_path_rate}
    return timm.create_model(recipe.model, num_classes=num_classes, mixers=spec, **rates, **recipe.model_args)


def _test_loader(images: DataSet, size: tuple[int, int], batch_size: int) -> Loader:
    return Loader(images.test, batch_size=batch_size, image_size=size, mean=images.mean, std=images.std, train=False)


def _confusion(told: Mapping[str, Tensor], classes: int) -> list[list[int]]:
    """Counts: a row per true class, a column per predicted one."""
    flat = told["labels"] * classes + told["probabilities"].argmax(1)
    return torch.bincount(flat, minlength=classes * classes).reshape(classes, classes).tolist()


def _export(folder: Path, trained: _Trained, images: DataSet, size: tuple[int, int], real: Tensor) -> None:
    """Write ``model.onnx`` and check it on real images, unless that was done for these very weights."""
    entry, path = trained.entry, folder / trained.entry["files"]["onnx"]
    stamp = path.with_name("export.json")
    done = json.loads(stamp.read_text(encoding="utf-8")) if stamp.is_file() and path.is_file() else {}
    if done.get("weights_sha256") != entry["weights_sha256"] or done.get("onnx_sha256") != sha256(path):
        export_onnx(
            trained.model,
            path,
            image_size=size,
            labels=images.classes,
            mean=images.mean,
            std=images.std,
            crop_pct=images.crop_pct,
            interpolation="bicubic",
            crop_mode="center",
        )
        try:
            found = verify_onnx(path, trained.model, real)
            check(found, name=str(path))
        except ValueError:
            path.unlink()  # a file that computes something else must not be shipped
            raise
        done = {"weights_sha256": entry["weights_sha256"], "onnx_sha256": sha256(path), **found}
        write_json(stamp, done)
    entry["onnx_max_error"], entry["onnx_top1_agreement"] = done["max_error"], done["top1_agreement"]


def _measure(
    folder: Path,
    skeleton: str,
    trained: Mapping[str, _Trained],
    images: DataSet,
    size: tuple[int, int],
    batch_sizes: Sequence[int],
    compile: bool,
    seconds: float,
    device: str,
    log: Callable[[str], None],
) -> None:
    """Export, then time all mixers in one interleaved measurement, then each one's memory in a process of its own."""
    real = next(iter(_test_loader(images, size, max(64, *batch_sizes)).batches(0)))["image"]
    for name, one in trained.items():
        _export(folder, one, images, size, real[:64])
        log(f"  {name}: ONNX Runtime differs by at most {one.entry['onnx_max_error']:.1e} on real images")
    log(f"measuring latency, all mixers interleaved, for {seconds:.0f} s")
    timings = latency(
        {name: reparameterize(one.model.eval()) for name, one in trained.items()},
        {name: folder / one.entry["files"]["onnx"] for name, one in trained.items()},
        image_size=size,
        batch_sizes=batch_sizes,
        runtimes=("pytorch", "onnxruntime", "compile") if compile else ("pytorch", "onnxruntime"),
        images=real,
        device=device,
        seconds=seconds,
    )
    for name, one in trained.items():
        one.entry.update(timings[name])
    log("measuring peak memory, each mixer in a process of its own")

    def memory(name: str) -> float | None:
        args = {"mixers": name, "dims": trained[name].entry["dims"], "num_classes": len(images.classes)}
        try:
            return peak_memory_mb(skeleton, image_size=size, model_args=args, device=device)
        except ValueError as error:  # a mixer that only this process knows
            log(f"  {name}: {error}")
            return None

    with ThreadPoolExecutor(2) as pool:
        for name, peak in zip(trained, pool.map(memory, trained), strict=True):
            trained[name].entry["peak_memory_mb"] = peak


def _add_samples(trained: Mapping[str, _Trained], images: DataSet) -> dict[str, bytes]:
    """Give every mixer's entry its answers on the same test images, and return those as PNG by name.

    First come the images that most mixers get wrong, then some that all get right, evenly spread.
    """
    labels = next(iter(trained.values())).told["labels"]
    wrong = sum((one.told["probabilities"].argmax(1) != labels).int() for one in trained.values())
    assert isinstance(wrong, Tensor)
    hard = [i for i in wrong.argsort(descending=True, stable=True).tolist() if wrong[i] > 0][:SAMPLES]
    easy = [i for i in range(len(labels)) if wrong[i] == 0]
    room = max(SAMPLES // 3, SAMPLES - len(hard))
    shown = hard + easy[:: max(1, len(easy) // room)][:room]
    for one in trained.values():
        probabilities = one.told["probabilities"]
        one.entry["samples"] = [
            {
                "name": images.test.names[i],
                "truth": int(labels[i]),
                "prediction": int(probabilities[i].argmax()),
                "confidence": float(probabilities[i].max()),
            }
            for i in shown
        ]
    return {images.test.names[i]: _png(images, i) for i in shown}


def _png(images: DataSet, index: int) -> bytes:
    picture = images.test.load(index)
    picture.thumbnail((160, 160))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
