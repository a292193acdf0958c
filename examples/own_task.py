"""A task of your own: how far a bar on a picture is turned. ``python examples/own_task.py`` trains and judges it.

All of it is in this file; ``docs/add-a-task.md`` explains the parts.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional as VF

import tokenmix
from tokenmix.data.dataset import PictureData, Pictures
from tokenmix.data.loader import Batch, BatchLoader, Key
from tokenmix.data.prepare import normalise
from tokenmix.data.random_numbers import uniforms
from tokenmix.metrics import Metric
from tokenmix.tasks import Answer, Objective, register_task
from tokenmix.tasks.picture_form import PictureForm
from tokenmix.tasks.picture_task import PictureTask

SIDE, MOST = 32, 60.0  # pixels, degrees


class Bars(Pictures):
    """Pictures with a bar that is turned by an angle between -60 and 60 degrees; ``part`` makes sets differ."""

    def __init__(self, part: int, count: int) -> None:
        super().__init__([f"bar-{part}-{index}" for index in range(count)])
        self.angles = (2 * uniforms(1, part, 0, list(range(count)))[:, 0] - 1) * MOST

    def load(self, index: int) -> Image.Image:
        picture = Image.new("RGB", (SIDE, SIDE), "black")
        ImageDraw.Draw(picture).rectangle((4, 13, SIDE - 5, 18), fill="white")
        return picture.rotate(self.angles[index], Image.Resampling.BILINEAR)


class BarBatches(Dataset):
    """``batches[key]``: ``image`` (B, 3, H, W) normalised and ``angle`` (B,) in units of 60 degrees."""

    def __init__(self, bars: Bars, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        self.bars, self.mean, self.std = bars, mean, std

    def __getitem__(self, key: Key) -> Batch:
        pictures = [VF.pil_to_tensor(self.bars.load(index).resize(key.shape[::-1])) for index in key.indices]
        return {
            "image": normalise(torch.stack(pictures), self.mean, self.std),
            "angle": torch.tensor(self.bars.angles[key.indices] / MOST, dtype=torch.float32),
            "mask": torch.arange(len(key.indices)) < key.real,
            "index": torch.tensor(key.indices),
        }


class AngleError(Metric):
    """``error``: the mean distance from the true angle in degrees; ``loss``: the mean squared one, in squared units."""

    def __init__(self) -> None:
        super().__init__((3,))

    def update(self, prediction: Tensor, batch: Batch) -> None:
        off = (prediction - batch["angle"])[batch["mask"]].double()
        self.add(torch.stack([off.abs().sum(), off.square().sum(), off.new_tensor(len(off))]))

    def compute(self) -> dict[str, float]:
        off, squared, count = self.total().tolist()
        return {"error": MOST * off / count, "loss": squared / count}


class AngleObjective(Objective):
    """The mean squared error of one number per picture."""

    def __init__(self, model: nn.Module, *, num_classes: int = 1) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return {"loss": F.mse_loss(self.predict(batch), batch["angle"])}

    def predict(self, batch: Batch) -> Tensor:
        return self.model(batch["image"])[:, 0].float()

    def metric(self) -> AngleError:
        return AngleError()


class AngleForm(PictureForm):
    """``(N, 3, H, W)`` -> the angle in units of 60 degrees, ``(N, 1)``."""

    outputs = ("angle",)

    def reading(self) -> dict[str, Any]:
        return {"kind": "angle", "multiple": 1, "inside": False}


class AngleTask(PictureTask):
    """How far a bar is turned."""

    name, title, noun, headline, lower_is_better = "angle", "angles of bars", "bars", "error", True
    fact_names = ()
    units: ClassVar[Mapping[str, str]] = {"": "degrees", "loss": ""}
    objective_type = AngleObjective

    def outputs(self, facts: Mapping[str, Any]) -> int:
        return 1

    def open_data(self, spec: str, **options: Any) -> PictureData:
        if spec != "bars":
            raise ValueError(f"{spec}: the only data set of bars is 'bars'")
        return PictureData("bars", Bars(0, 256), Bars(1, 64), Bars(2, 64), options.get("image_size") or SIDE)

    def loaders(
        self, recipe: Any, data: Any, preparation: Mapping[str, Any], **share: Any
    ) -> tuple[BatchLoader, BatchLoader]:
        def load(bars: Bars, train: bool) -> BatchLoader:
            maker = BarBatches(bars, preparation["mean"], preparation["std"])
            options = {"batch_size": recipe.run.batch_size, "shape": recipe.task.image_size, "seed": recipe.run.seed}
            return BatchLoader(bars, maker, train=train, **options, **share)

        return load(data.train, True), load(data.val, False)

    def loader(
        self, loaded: Any, samples: Any, *, image_size: Any = None, batch_size: int, **share: Any
    ) -> BatchLoader:
        maker = BarBatches(samples, loaded.mean, loaded.std)
        return BatchLoader(samples, maker, batch_size=batch_size, shape=loaded.image_size, train=False, **share)

    def other_facts(self, loaded: Any, data: Any) -> str:
        return ""

    def file_form(self, loaded: Any, image_size: Any = None, inside: Sequence[str] = ()) -> AngleForm:
        return AngleForm(self, loaded, image_size, inside)

    def answerer(self, loaded: Any, device: torch.device, **options: Any) -> Callable[[str], Answer]:
        def answer(path: str) -> Answer:
            picture = np.asarray(Image.open(path).convert("RGB").resize(loaded.image_size[::-1]))
            image = normalise(torch.from_numpy(picture.copy()).permute(2, 0, 1), loaded.mean, loaded.std)
            with torch.inference_mode():
                angle = MOST * float(loaded.model(image[None].to(device))[0, 0])
            return Answer({"angle": angle}, [f"{path}: {angle:.1f} degrees"])

        return answer


def main(words: Sequence[str] | None = None) -> float:
    """Train, judge, and return the mean error on the test bars in degrees; guessing their mean is off by 30."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="runs/bars", help="the run's folder (default: %(default)s)")
    parser.add_argument("--epochs", type=float, default=8)
    args = parser.parse_args(words)
    register_task(AngleTask())
    bars = ["task=angle", "batch_size=32", "lr=0.004", "augment=none", "label_smoothing=0"]
    settings = [*bars, "model=mixernet_pico", "model_args.mixers=pool", f"epochs={args.epochs}"]
    tokenmix.train("bars", "basic", out=args.out, settings=settings)
    error = tokenmix.evaluate(args.out, "bars", split="test")["error"]
    print(f"{error:.1f} degrees off on bars that it has not seen")
    return error


if __name__ == "__main__":
    main()
