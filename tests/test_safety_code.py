"""Files from strangers: what they name is neither imported, run, opened nor built, whatever way it comes in."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from PIL import Image

import tokenmix.safety
from tokenmix.bench.memory import peak_memory_mb
from tokenmix.bench.models import open_models
from tokenmix.checkpoints import CheckpointError, convert, load_checkpoint, open_model
from tokenmix.cli import main
from tokenmix.jobs.job import Job, needs_trust, perform
from tokenmix.jobs.slurm import Slurm
from tokenmix.planning.budget import Budget
from tokenmix.planning.plan import plan_source
from tokenmix.recipes import Recipe, make_recipe, with_values
from tokenmix.safety import trusting
from tokenmix.train.checkpoint import load_run
from tokenmix.weight_files import weights_bytes
from tokenmix_runtime.manifest import ModelError, read_manifest
from tokenmix_runtime.untrusted import parse_json, read_json, regular_file

MARKER = "never_imported"
SPEC = f"{MARKER}:Mixer(option=1)"


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module in the current directory that leaves a file when it is imported."""
    (tmp_path / "cwd").mkdir()
    path = tmp_path / "canary"
    (tmp_path / "cwd" / f"{MARKER}.py").write_text(
        f"from pathlib import Path\nfrom torch import nn\nPath({str(path)!r}).touch()\n\n\n"
        "class Mixer(nn.Identity):\n    def __init__(self, dim, *, option=0):\n        super().__init__()\n"
    )
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setattr(tokenmix.safety, "_named", set())
    yield path
    sys.modules.pop(MARKER, None)


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return timm.create_model("mixernet_pico", mixers="identity", num_classes=3).state_dict()


def stored(path: Path, weights: dict[str, torch.Tensor], changes: dict[str, Any] | None = None, **args: Any) -> Path:
    """A weight file of ours."""
    path.parent.mkdir(exist_ok=True, parents=True)
    info: dict[str, Any] = {"model": "mixernet_pico", "model_args": {"mixers": "identity", **args}}
    info |= {"classes": ["a", "b", "c"], **(changes or {})}
    path.write_bytes(weights_bytes(weights, info))
    return path


def timm_folder(folder: Path, weights: dict[str, torch.Tensor], **content: Any) -> str:
    """A model in timm's own format."""
    folder.mkdir(exist_ok=True)
    config = {"architecture": "mixernet_pico", "num_classes": 3, "pretrained_cfg": {"num_classes": 3}, **content}
    (folder / "config.json").write_text(json.dumps(config))
    safetensors.torch.save_file(weights, folder / "model.safetensors")
    return f"local-dir:{folder}"


def recipe_file(path: Path, **changes: Any) -> str:
    values = json.loads(make_recipe("digits", ["model_args.mixers=identity"]).to_json())
    path.write_text(json.dumps(values | changes))
    return str(path)


WAYS: dict[str, Callable[[str, str, str, Path], Any]] = {
    "load_checkpoint": lambda file, folder, hub, out: load_checkpoint(file),
    "load_checkpoint of a run": lambda file, folder, hub, out: load_checkpoint(folder),
    "load_run": lambda file, folder, hub, out: load_run(folder),
    "open_model": lambda file, folder, hub, out: open_model(file),
    "open_model of a folder of timm's": lambda file, folder, hub, out: open_model(hub),
    "convert": lambda file, folder, hub, out: convert(file, out / "new.safetensors"),
    "bench": lambda file, folder, hub, out: open_models([file]),
    "memory": lambda file, folder, hub, out: peak_memory_mb(file, image_size=32),
    "timm": lambda file, folder, hub, out: timm.create_model(hub),
    "timm with its weights": lambda file, folder, hub, out: timm.create_model(hub, pretrained=True),
    "a recipe": lambda file, folder, hub, out: make_recipe(recipe_file(out / "r.json", model_args={"mixers": SPEC})),
    "a recipe in a run": lambda file, folder, hub, out: make_recipe(
        str(Path(recipe_file(Path(folder) / "recipe.json", model_args={"mixers": [SPEC]})).parent)
    ),
    "a teacher": lambda file, folder, hub, out: make_recipe(recipe_file(out / "r.json", teacher=file)),
    "a teacher's weights": lambda file, folder, hub, out: make_recipe(
        recipe_file(out / "r.json", teacher="resnet18", teacher_weights=file)
    ),
    "weights": lambda file, folder, hub, out: make_recipe(recipe_file(out / "r.json", weights=folder)),
    "a model elsewhere": lambda file, folder, hub, out: make_recipe(recipe_file(out / "r.json", model=hub)),
    "a stream": lambda file, folder, hub, out: make_recipe(recipe_file(out / "r.json", data="pipe:touch ../canary")),
    "an address": lambda file, folder, hub, out: make_recipe(recipe_file(out / "r.json", data="http://a.b/c.tar")),
    "a folder": lambda file, folder, hub, out: make_recipe(recipe_file(out / "r.json", data=folder)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("spec", [SPEC, f"identity,identity,identity,{SPEC}", f"{MARKER}:Mixer"])
def test_what_only_a_file_names_is_never_imported(way: str, spec: str, canary: Path, tmp_path: Path, weights) -> None:
    if way == "memory" and spec != SPEC:
        pytest.skip("once is enough: it starts a process")
    file = stored(tmp_path / "w.safetensors", weights, mixers=spec)
    folder = stored(tmp_path / "run" / "best.safetensors", weights, mixers=spec).parent
    hub = timm_folder(tmp_path / "hub", weights, model_args={"mixers": spec})
    with pytest.raises(ValueError, match=r"--trust|not taken from a file"):
        WAYS[way](str(file), str(folder), hub, tmp_path)
    assert not canary.exists()
    assert MARKER not in sys.modules


@pytest.mark.parametrize("command", ["predict", "eval", "export", "convert", "train"])
def test_the_commands_refuse_in_one_line(command: str, canary: Path, tmp_path: Path, weights, capsys) -> None:
    file = str(stored(tmp_path / "w.safetensors", weights, mixers="os:system"))
    words = {
        "predict": ["--model", file, file],
        "eval": [file, "--data", "digits"],
        "export": [file, "--out", str(tmp_path / "out")],
        "convert": [file, str(tmp_path / "new.safetensors")],
        "train": [recipe_file(tmp_path / "r.json", model_args={"mixers": SPEC}), "--out", str(tmp_path / "out")],
    }[command]
    assert main([command, *words]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert ("r.json" if command == "train" else "w.safetensors") in told
    assert "--trust" in told
    assert (SPEC.partition("(")[0] if command == "train" else "os:system") in told
    assert not canary.exists()


def test_the_person_may(canary: Path, tmp_path: Path, weights) -> None:
    """Typed, passed in a call, or trusted."""
    file = stored(tmp_path / "w.safetensors", weights, mixers=SPEC)
    hub = timm_folder(tmp_path / "hub", weights, model_args={"mixers": SPEC})
    assert timm.create_model("mixernet_pico", mixers=SPEC) is not None
    assert canary.exists()
    load_checkpoint(file)  # what was named once in this process is known
    tokenmix.safety._named.clear()
    with pytest.raises(CheckpointError, match="Python code"):
        load_checkpoint(file)
    load_checkpoint(file, trust=True)
    tokenmix.safety._named.clear()
    load_checkpoint(file, mixers=SPEC)
    tokenmix.safety._named.clear()
    with trusting():
        timm.create_model(hub)
    tokenmix.safety._named.clear()
    timm.create_model(hub, mixers=torch.nn.Identity)
    path = recipe_file(tmp_path / "r.json", model_args={"mixers": SPEC}, weights="runs/x", data=str(tmp_path))
    typed = [f"model_args.mixers={SPEC}", "weights=runs/x", f"data={tmp_path}"]
    assert make_recipe(path, typed) == make_recipe(path, trust=True)
    with pytest.raises(ValueError, match=r"'run\.data'"):
        make_recipe(path, typed[:2])


def test_a_mixer_typed_over_that_of_a_hub_is_the_persons(canary: Path, tmp_path: Path, weights) -> None:
    hub = timm_folder(tmp_path / "hub", weights, model_args={"mixers": "identity"})
    if tokenmix.backbones.arguments._TOLD:
        timm.create_model(hub, mixers=SPEC)
        assert canary.exists()
    else:
        with pytest.raises(ValueError, match="Python code"):
            timm.create_model(hub, mixers=SPEC)


def test_a_hub_without_code_works(tmp_path: Path, weights) -> None:
    model = timm.create_model(
        timm_folder(tmp_path / "hub", weights, model_args={"mixers": "identity"}), pretrained=True
    )
    assert torch.equal(model.state_dict()["head.fc.weight"], weights["head.fc.weight"])


def test_a_job_carries_no_trust_in_its_file(canary: Path, tmp_path: Path) -> None:
    settings = ["epochs=1", f"model_args.mixers={SPEC}"]
    job = Job(tmp_path / "job", make_recipe("digits", settings), 0, threads=1)
    plain = Job(tmp_path / "plain", make_recipe("digits", ["epochs=1"]), 0, threads=1)
    job.write()
    assert needs_trust(job)
    assert not needs_trust(plain)
    assert " job --trust " in Slurm().script([job], tmp_path)
    assert "--trust" not in Slurm().script([plain], tmp_path)
    with pytest.raises(ValueError, match=r"job\.json"):
        perform(job.folder)
    assert not canary.exists()
    content = json.loads(job.file.read_text())
    for key, value in {"trust": True, "make": "os:system", "label": "x"}.items():
        job.file.write_text(json.dumps(content | {key: value}))
        with pytest.raises(ValueError, match="must hold"):
            perform(job.folder)


FOREIGN = {
    "pretrained": True,
    "pretrained_cfg": {"url": "http://localhost:9/x"},
    "pretrained_cfg_overlay": {"file": "/etc/passwd"},
    "checkpoint_path": "/etc/passwd",
    "cache_dir": "/tmp",
    "features_only": True,
    "scriptable": True,
    "device": "cuda",
    "dtype": "float16",
    "out_indices": [0],
    "kwargs_filter": ["mixers"],
    "unheard_of": 1,
}


@pytest.mark.parametrize("key", FOREIGN)
@pytest.mark.parametrize("model", ["mixernet_pico", "resnet18"])
def test_only_a_models_own_arguments_are_taken_from_files(key: str, model: str, tmp_path: Path, weights) -> None:
    file = stored(tmp_path / "w.safetensors", weights, {"model": model, "model_args": {key: FOREIGN[key]}})
    recipe = recipe_file(tmp_path / "r.json", model=model, model_args={key: FOREIGN[key]})
    for read, name in ((lambda: open_model(file), "w.safetensors"), (lambda: make_recipe(recipe), "r.json")):
        with pytest.raises(ValueError, match=key) as told:
            read()
        assert name in str(told.value)


@pytest.mark.parametrize("model", ["hf-hub:nobody/nothing", "local-dir:/tmp", "hf_hub:nobody/nothing", "http://a/b", 3])
def test_a_file_names_no_model_elsewhere(model: Any, tmp_path: Path, weights) -> None:
    with pytest.raises(CheckpointError, match=r"w\.safetensors"):
        load_checkpoint(stored(tmp_path / "w.safetensors", weights, {"model": model}))


ARGUMENTS: list[dict[str, Any]] = [
    {"num_classes": 10**12},
    {"depths": [10**7] * 4},
    {"depths": [999] * 4},
    {"dims": [10**9] * 4},
    {"dims": [16_000] * 4},
    {"in_chans": 10**9},
    {"mlp_ratio": 1e300},
    {"mixers": ["identity"] * 10_000},
    {"mixers": ",".join(["identity"] * 10_000)},
    {"mixers": f"ffnified(key_size={10**9})"},
    {"mixers": "ffnified(key_size=15999)"},
    {"mixers": "ffnified(key_size=" + "[" * 500 + ")"},
    {"mixers": "ffnified(key_size=\0)"},
    {"mixers": {"a": 1}},
    {"mixers": 3},
    {"depths": "many"},
    {"dims": []},
    {"global_pool": "../../x"},
    {"layer_scale": "x" * 10_000},
]


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=lambda value: str(value)[:40])
def test_sizes_beyond_any_model_are_refused_before_memory_is_taken(arguments, tmp_path: Path, weights) -> None:
    file = stored(tmp_path / "w.safetensors", weights, **arguments)
    with pytest.raises((ValueError, TypeError)) as told:
        load_checkpoint(file)
    assert "w.safetensors" in str(told.value)
    assert len(str(told.value)) < 700
    hub = timm_folder(tmp_path / "hub", weights, model_args={"mixers": "identity", **arguments})
    with pytest.raises((ValueError, TypeError, IndexError)):
        timm.create_model(hub)


@pytest.mark.parametrize(
    "changes",
    [
        {"image_size": [100_000, 100_000]},
        {"image_size": [10**12, 1]},
        {"image_size": "large"},
        {"image_size": [8]},
        {"crop_pct": 1e-9},
        {"crop_pct": "a"},
        {"crop_pct": -1.0},
        {"std": [0.0, 0.0, 0.0]},
        {"std": [1e-300] * 3},
        {"mean": [1e300] * 3},
        {"mean": ["a", "b", "c"]},
        {"mean": 3},
        {"classes": 3},
        {"classes": [1, 2, 3]},
        {"levels": [10**9]},
        {"levels": "a"},
        {"task_args": 3},
        {"head": "nothing"},
        {"model": None},
        {"model_args": None},
        {"model_args": [1]},
    ],
    ids=str,
)
def test_metadata_of_other_kinds_and_sizes_are_one_error(changes, tmp_path: Path, weights) -> None:
    with pytest.raises(CheckpointError, match=r"w\.safetensors"):
        open_model(stored(tmp_path / "w.safetensors", weights, changes))


@pytest.mark.parametrize(
    "text", ["{", "[]", "[" * 100_000, '{"a":' * 5000 + "1" + "}" * 5000, '{"a": NaN}', '{"a": 1e999}', "9" * 9999]
)
def test_json_that_is_none_or_too_deep(text: str, tmp_path: Path, weights) -> None:
    file = tmp_path / "w.safetensors"
    safetensors.torch.save_file(weights, file, {"tokenmix": text})
    with pytest.raises(CheckpointError, match="metadata"):
        open_model(file)
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(ValueError, match=r"r\.json"):
        make_recipe(str(tmp_path / "r.json"))
    with pytest.raises(ModelError, match="damaged"):
        read_manifest(tmp_path / "m.onnx", {"schema": '"tokenmix.model/2"', "task": text if text != "[]" else "["})
    with pytest.raises(ValueError, match="the recipe"):
        Recipe.from_json(text)


def manifest(**changes: Any) -> dict[str, str]:
    before = {"mean": [0.5] * 3, "std": [0.5] * 3, "crop_pct": 1.0, "crop_mode": "center", "interpolation": "bicubic"}
    content: dict[str, Any] = {
        "schema": "tokenmix.model/2",
        "task": "classification",
        "model": "m",
        "labels": ["a"],
        "input": {"name": "x", "shape": [None, 3, None, None], "dtype": "float32"},
        "preprocess": {**before, "image_size": [32, 32], "inside": []},
        "postprocess": {"kind": "softmax", "inside": False, "multiple": 1},
    }
    for key, value in changes.items():
        part = next(content[name] for name in ("preprocess", "postprocess", "input") if key in content[name])
        part[key] = value
    return {key: json.dumps(value) for key, value in content.items()}


@pytest.mark.parametrize(
    "changes",
    [
        {"crop_pct": 1e-9},
        {"crop_pct": float("nan")},
        {"std": [0, 0, 0]},
        {"std": [float("nan")] * 3},
        {"std": [float("inf")] * 3},
        {"std": [1e-30] * 3},
        {"mean": [float("-inf")] * 3},
        {"mean": ["a"] * 3},
        {"image_size": [100_000, 100_000]},
        {"image_size": [10**15, 1]},
        {"multiple": 10**15},
        {"multiple": float("inf")},
    ],
    ids=str,
)
def test_manifests_have_bounds(changes, tmp_path: Path) -> None:
    assert read_manifest(tmp_path / "m.onnx", manifest()).image_size == (32, 32)
    with pytest.raises(ModelError, match=r"m\.onnx"):
        read_manifest(tmp_path / "m.onnx", manifest(**changes))


@pytest.mark.parametrize(
    "setting",
    [
        *("epochs=1e23", "image_size=100000", "image_size=8192,8193", "batch_size=10000000000", "steps=1e30"),
        *("accumulate=2147483648000", "multi_scale=100000,", "crop_pct=1e-9", "seed=99999999999999999999", "lr=1e300"),
        *("milestones=1e400,", f"batch_size={'9' * 400}", f"lr={'9' * 400}", "freeze_epochs=10000000000"),
    ],
)
def test_numbers_beyond_reason_in_recipes(setting: str) -> None:
    with pytest.raises(ValueError, match=setting.partition("=")[0]) as told:
        make_recipe("digits", [setting])
    assert len(str(told.value)) < 300


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    places = {"w.safetensors": open_model, "w.pth": load_checkpoint, "r.json": lambda path: make_recipe(str(path))}
    for target in (fifo, Path("/dev/zero")):
        for name, read in places.items():
            (tmp_path / name).symlink_to(target)
            with pytest.raises(ValueError, match=r"is a (fifo|device), not a file"):
                read(tmp_path / name)
            (tmp_path / name).unlink()
        (tmp_path / "m.json").symlink_to(target)
        with pytest.raises(ModelError, match=r"is a (fifo|device), not a file"):
            read_manifest(tmp_path / "m.onnx", manifest())
        (tmp_path / "m.json").unlink()
        (tmp_path / "config.json").symlink_to(target)
        with pytest.raises(CheckpointError, match="not a file"):
            open_model(f"local-dir:{tmp_path}")
        (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match="is a folder"):
        regular_file(tmp_path)


def test_json_has_a_largest_size(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    with file.open("wb") as sparse:
        sparse.truncate(1 << 32)
    with pytest.raises(ValueError, match="bytes, and at most"):
        read_json(file)
    assert parse_json('{"a": [1, 2.5, null]}') == {"a": [1, 2.5, None]}


@pytest.mark.parametrize("part", ["mixers", "decoder_mixers"])
def test_a_recipe_for_a_tasks_own_network_names_no_code(canary, tmp_path, capsys, part) -> None:
    """Neither in the argument that all such networks have, nor in those of a part of one."""
    values = make_recipe("rooms").to_values()
    values["model"]["args"] = {part: SPEC}
    file = tmp_path / "r.json"
    file.write_text(json.dumps(values))
    ways = [["train", str(file)]]
    if part != "mixers":  # which a comparison takes from the person alone
        ways.append(["compare", "rooms", "--recipe", str(file), "--mixers", "pool"])
    for words in ways:
        assert main([*words, "--out", str(tmp_path / "out")]) == 2
        assert "names Python code" in capsys.readouterr().err
        assert not canary.exists()


def test_a_plan_in_a_strangers_folder_names_no_code(canary, tmp_path, capsys) -> None:
    """A run takes up the plan of its folder, a comparison its recipe, if they are for the same question."""
    photos = tmp_path / "photos"
    for number in range(12):
        path = photos / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (20 * number, 0, 0)).save(path)
    recipe = with_values(make_recipe("basic"), data=str(photos), model="mixernet_pico", model_args={"mixers": SPEC})
    for words, name, source in (
        (["train"], "plan.json", plan_source(str(photos), [], Budget())),
        (["compare"], "compare.json", f"ours: planned for the comparison on {photos}; see `tokenmix docs finetune`"),
    ):
        folder = tmp_path / words[0]
        folder.mkdir()
        values = replace(recipe, source=source).to_values()
        (folder / name).write_text(json.dumps(values if words[0] == "train" else {"recipe": values}))
        assert main([*words, "--data", str(photos), "--out", str(folder)]) == 2
        assert "names Python code" in capsys.readouterr().err
        assert not canary.exists()
