"""Good files, made once, of which the hostile ones are made: weights, a finished run, an exported model, pictures."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import safetensors.torch
from PIL import Image
from torch import Tensor

import tokenmix
from tokenmix.cli import main
from tokenmix.files import sha256
from tokenmix.weight_files import weights_bytes

MODEL = "mixernet_pico"
CLASSES = ("dark", "light")
QUICK = ("model=mixernet_pico", "image_size=32", "batch_size=8", "epochs=1", "warmup_epochs=0", "augment=none")
TRAIN = ("train", "basic", *QUICK, "--device", "cpu")
DETECT = ("train", "scenes_detect", "epochs=1", "batch_size=4", "--device", "cpu")


@dataclass(frozen=True)
class Stock:
    """Where the good files lie.

    Args:
        photos: A folder of two classes, in ``train``, ``val`` and ``test``.
        run: A finished training run on them.
        onnx: Its exported model, with the manifest beside it.
        state: The weights of a fresh model.
    """

    photos: Path
    run: Path
    onnx: Path
    state: Mapping[str, Tensor]

    def picture(self) -> Path:
        """One of the photographs."""
        return self.photos / "test" / "dark" / "0.png"

    def weights(self, path: Path, **info: Any) -> Path:
        """A weight file of ours whose metadata says this."""
        path.write_bytes(
            weights_bytes(self.state, {"model": MODEL, "model_args": {}, "classes": list(CLASSES), **info})
        )
        return path

    def raw_weights(self, path: Path, metadata: str) -> Path:
        """A weight file whose metadata is this text."""
        path.write_bytes(safetensors.torch.save(dict(self.state), {"tokenmix": metadata}))
        return path

    def copy_of_run(self, folder: Path) -> Path:
        """The run, to be spoilt."""
        return Path(shutil.copytree(self.run, folder / "run"))

    def recipe(self, path: Path, change: Any) -> Path:
        """The run's recipe as ``change`` leaves it."""
        values = json.loads((self.run / "recipe.json").read_text(encoding="utf-8"))
        change(values)
        path.write_text(json.dumps(values), encoding="utf-8")
        return path

    def exported(self, folder: Path, change: Any) -> Path:
        """The exported model with another manifest."""
        manifest = json.loads(self.onnx.with_suffix(".json").read_text(encoding="utf-8"))
        change(manifest)
        model = onnx.load(self.onnx)  # the manifest inside says the same
        for entry in model.metadata_props:
            if entry.key in manifest:
                entry.value = json.dumps(manifest[entry.key])
        file = folder / "model.onnx"
        onnx.save(model, file)
        with contextlib.suppress(TypeError, KeyError, AttributeError):  # what was changed may be just that
            manifest["files"]["onnx"] |= {"bytes": file.stat().st_size, "sha256": sha256(file)}
        (folder / "model.json").write_text(json.dumps(manifest), encoding="utf-8")
        return file


def photographs(folder: Path, size: int = 32) -> Path:
    """Dark and light noise: eight pictures per class to learn from, four to choose by, four to judge by."""
    random = np.random.default_rng(0)
    for part, count in (("train", 8), ("val", 4), ("test", 4)):
        for label, name in enumerate(CLASSES):
            (folder / part / name).mkdir(parents=True)
            for index in range(count):
                pixels = random.integers(90 * label, 150 + 90 * label, (size, size, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / part / name / f"{index}.png")
    return folder


def make_stock(folder: Path) -> Stock:
    """Make the good files; takes some twenty seconds."""
    photos = photographs(folder / "photos")
    run, onnx = folder / "run", folder / "model.onnx"
    commands = (
        (*TRAIN, "--data", str(photos), "--out", str(run)),
        ("export", str(run), "--out", str(onnx)),
    )
    for words in commands:
        assert main(list(words)) == 0, words
    return Stock(photos, run, onnx, tokenmix.create_model(MODEL, num_classes=len(CLASSES)).state_dict())
