"""What scale depends on, measured: ``python benchmarks/scaling.py [--device cuda]``.

Training steps of two sizes of every family, images per second through the loader on one core, checkpoints, and the
bytes that local processes send in a step, beside what ``tokenmix.bench.scale`` says. ``make docs`` turns the result
into the tables of ``docs/scaling.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import tempfile
import time
import unittest.mock
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torch.distributed as dist
import torch.multiprocessing
from PIL import Image
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.utils._python_dispatch import TorchDispatchMode

from tokenmix.bench import scale
from tokenmix.bench.cost import cost
from tokenmix.bench.machine import describe
from tokenmix.bench.sockets import sent_bytes
from tokenmix.bench.speed import interleave
from tokenmix.files import atomic_path, write_json
from tokenmix.recipes import make_recipe, with_values
from tokenmix.sources import load_data
from tokenmix.tasks import find_task
from tokenmix.tasks.classification.images import ArrayImages, ClassData
from tokenmix.train import fit
from tokenmix.train.training_step import TrainingStep

RESULTS = Path(__file__).parent / "results"
MODELS = (
    "affnet_et", "affnet_s", "casvit_xs", "casvit_m", "dsm_ti", "dsm_s", "ffnet_1", "ffnet_3", "mixernet_pico",
    "mixernet_tiny",
)  # fmt: skip
WORLDS = (2, 4)
STEPS = 4  # of which two are counted


def side_px(name: str) -> int:
    """The side of the recipe's images, in pixels."""
    size = make_recipe(name).task.image_size
    return size[0] if size else 224


class Traffic(TorchDispatchMode):
    """Counts the bytes that operators read and write, and the operators; views move nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.operators = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.operators += 1
            for value in (*args, *(out if isinstance(out, tuple | list) else (out,))):
                if isinstance(value, Tensor):
                    self.bytes += value.numel() * value.element_size()
        return out


def counts(name: str) -> dict[str, Any]:
    """What a model's scale depends on: bytes, layers, and per image multiply-accumulates and memory traffic."""
    px, images = side_px(name), 8
    model = timm.create_model(name, device="meta")
    found = cost(model, px)
    buffers = sum(value.numel() * value.element_size() for value in model.buffers())
    half = timm.create_model(name, device="meta", dtype=torch.bfloat16)
    with Traffic() as traffic:
        half(torch.zeros(images, 3, px, px, device="meta", dtype=torch.bfloat16)).sum().backward()
    layers = len(timm.models.group_parameters(model, model.group_matcher()))
    return {
        "model": name,
        "px": px,
        "params": found.params,
        "macs": found.macs + round(found.transform_macs),
        "weights": {str(first): size for first, size in sorted(_weights(model).items())},
        "buffer_bytes": buffers,
        "layers": layers,
        "traffic_bytes": traffic.bytes // images,
        "operators": traffic.operators,
    }


def training(names: tuple[str, ...], device: str, batch: int, seconds: float) -> dict[str, dict[str, float]]:
    """Forward, backward and AdamW, all models interleaved; on a GPU in bfloat16 autocast, on a CPU in its own time."""

    def step(name: str):
        model = timm.create_model(name, num_classes=1000).to(device)
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        images, labels = torch.randn(batch, 3, side_px(name), side_px(name), device=device), torch.arange(batch)

        def run() -> None:
            with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
                loss = nn.functional.cross_entropy(model(images), labels.to(device))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if device == "cuda":
                torch.cuda.synchronize()

        return run

    clock = time.perf_counter if device == "cuda" else time.process_time  # what else the CPU does is not counted
    timings = interleave({name: step(name) for name in names}, max_seconds=seconds, clock=clock)
    return {
        name: {
            "batch": batch,
            "images_per_s": round(batch / timing.median_ms * 1e3, 3),
            "low": round(batch / timing.high_ms * 1e3, 3),
            "high": round(batch / timing.low_ms * 1e3, 3),
        }
        for name, timing in timings.items()
    }


def photographs(folder: Path, count: int = 64) -> float:
    """JPEGs of ImageNet's usual 500 x 375 pixels, cut from two photographs; returns their mean size in bytes."""
    from sklearn.datasets import load_sample_image

    pictures = [Image.fromarray(load_sample_image(name)) for name in ("china.jpg", "flower.jpg")]
    rng = np.random.default_rng(0)
    for number in range(count):
        x, y = int(rng.integers(0, 140)), int(rng.integers(0, 52))
        target = folder / str(number % 2) / f"{number}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        pictures[number % 2].crop((x, y, x + 500, y + 375)).save(target, quality=95)
    return statistics.mean(path.stat().st_size for path in folder.rglob("*.jpg"))


def data_path(rounds: int) -> list[dict[str, Any]]:
    """Images per second of a core's own time, prepared by the loader as the recipes say: medians of ``rounds``."""
    with tempfile.TemporaryDirectory() as folder:
        size = photographs(Path(folder))
        data = load_data(folder, log=lambda line: None)
        rows = []
        for name in ("basic", "affnet_s", "casvit_m", "dsm_s", "ffnet_3"):
            recipe = make_recipe(name)
            recipe = with_values(recipe, batch_size=16, image_size=recipe.task.image_size or 224, multi_scale=())
            loader, _ = find_task(recipe.task.name).loaders(recipe, data, {"mean": data.mean, "std": data.std})
            seconds = []
            for epoch in range(rounds):
                begin = time.process_time()
                images = sum(len(batch["label"]) for batch in loader.batches(epoch))
                seconds.append((time.process_time() - begin) / images)
            rows.append(
                {"recipe": name, "images_per_core_s": round(1 / statistics.median(seconds), 1), "jpeg_bytes": size}
            )
        return rows


def checkpoint(name: str, rounds: int) -> dict[str, float]:
    """Bytes and median seconds of writing, with fsync, all that a run with averaged weights resumes from."""
    model = timm.create_model(name)
    weights = model.state_dict()
    optimizer = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    content = {part: {key: value.clone() for key, value in weights.items()} for part in ("task", "average", "best")}
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "last.pt"
        for _ in range(rounds):
            begin = time.perf_counter()
            with atomic_path(path) as temporary:
                torch.save({**content, "optimizer": optimizer.state_dict()}, temporary)
            seconds.append(time.perf_counter() - begin)
        return {"bytes": path.stat().st_size, "save_s": round(statistics.median(seconds), 4)}


# ------------------------------------------------------------------------------------------------- bytes of a step


def sent_per_step(names: tuple[str, ...], world: int) -> list[dict[str, Any]]:
    """Bytes that a process sends in a training step, the mean over local gloo processes and steps, and as predicted.

    ``ddp`` is the trainer's own step; ``fsdp`` a plain one around FSDP2, sharded block by block and then as a whole. At
    64 px and with two classes, since what is sent depends on the weights alone.

    Args:
        names: The models.
        world: Processes.
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(_process, (world, port, names, folder), world)
        counted = [json.loads((Path(folder) / f"{rank}.json").read_text()) for rank in range(world)]
    for name in names:
        model = timm.create_model(name, num_classes=2, device="meta")
        whole = _weights(model)
        blocks = sum(scale.padded_bytes(_weights(block), world) for block in _blocks(model))
        padded = scale.padded_bytes(whole, world)
        buffers = sum(value.numel() * value.element_size() for value in model.buffers())
        predicted = {
            "ddp": scale.ddp_bytes(sum(whole.values()), buffers, world),
            "fsdp": scale.fsdp_bytes(padded, world, kept_bytes=padded - blocks, scatter_by_all_reduce=True),
        }
        for parallel, sent in predicted.items():
            mean = statistics.mean(row[f"{name} {parallel}"] for row in counted)
            row = {"model": name, "world": world, "parallel": parallel, "counted": round(mean)}
            rows.append({**row, "predicted": round(sent)})
            print(f"{name} {parallel} x {world}: {mean:,.0f} bytes, predicted {sent:,.0f}", flush=True)
    return rows


def _weights(module: nn.Module) -> dict[int, int]:
    """Bytes of the weights by their first dimension."""
    found: dict[int, int] = {}
    for value in module.parameters():
        found[value.shape[0]] = found.get(value.shape[0], 0) + value.numel() * value.element_size()
    return found


def _blocks(model: Any) -> list[nn.Module]:
    return [block for stage in model.stages for block in stage.blocks]


def _process(rank: int, world: int, port: int, names: tuple[str, ...], folder: str) -> None:
    """One of the processes: leaves its bytes per step in ``folder``."""
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": str(world)}
    dist.init_process_group("gloo", rank=rank, world_size=world)
    found = {}
    for name in names:
        for parallel, work in (("ddp", _ddp), ("fsdp", _fsdp)):
            marks = work(name, Path(folder) / name)[1:]  # the first step also sends the order of the buckets
            found[f"{name} {parallel}"] = (marks[-1] - marks[0]) / (len(marks) - 1)
    (Path(folder) / f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


def _mark(marks: list[int]) -> None:
    """Note what was sent until now; the waiting for the others adds some hundred bytes to a step."""
    dist.barrier()
    marks.append(sent_bytes())


def _ddp(name: str, out: Path) -> list[int]:
    world, marks, step = dist.get_world_size(), [], TrainingStep.step
    count = world * STEPS
    pixels = torch.zeros(count, 3, 64, 64, dtype=torch.uint8)
    images = ArrayImages(pixels, [number % 2 for number in range(count)], [str(number) for number in range(count)])

    def counted(self, *inputs):
        _mark(marks)
        return step(self, *inputs)

    settings = [f"model={name}", f"batch_size={world}", "epochs=1", "augment=none", "drop_path_rate=None"]
    with unittest.mock.patch.object(TrainingStep, "step", counted):
        fit(make_recipe("basic", settings), ClassData("zeros", images, images, images, 64, ["a", "b"]), out)
    return marks


def _fsdp(name: str, out: Path) -> list[int]:
    marks: list[int] = []
    model: Any = timm.create_model(name, num_classes=2)
    for block in _blocks(model):
        fully_shard(block)
    fully_shard(model)
    for _ in range(STEPS):
        _mark(marks)
        model(torch.zeros(2, 3, 64, 64)).sum().backward()
        model.zero_grad()
    return marks


def main() -> None:
    """Measure, print and write ``results/scaling-<device>.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--batch", type=int, help="images per step (default: 1, on a GPU 128)")
    parser.add_argument("--seconds", type=float, default=60.0, help="for the training steps (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="of the other measurements (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="the result file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {"machine": describe(), "models": [counts(name) for name in MODELS]}
    found["bytes"] = [row for world in WORLDS for row in sent_per_step(MODELS[::2], world)]
    found["checkpoints"] = {name: checkpoint(name, args.rounds) for name in MODELS}
    found["data"] = data_path(args.rounds)
    print(found["checkpoints"], found["data"], flush=True)
    batch = args.batch or (128 if args.device == "cuda" else 1)
    found["training"] = training(MODELS, args.device, batch, args.seconds)
    print(found["training"], flush=True)
    found["machine"]["load_average_after"] = describe()["load_average"]
    write_json(args.out or RESULTS / f"scaling-{args.device}.json", found)


if __name__ == "__main__":
    main()
