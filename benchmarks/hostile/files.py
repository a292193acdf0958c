"""Files from strangers, each with its expected end."""

from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
from PIL import Image

from hostile.sandbox import CANARY
from hostile.stock import CLASSES, DETECT, MODEL, TRAIN, Stock

# A standard-library function whose first argument may be a number, as a mixer's is, and whose second is a command.
COMMAND = f"pydoc:pipepager(cmd='touch {CANARY}_made')"
MODULE = f"{CANARY}:Mixer(size=1)"
ADDRESS = f"http://{CANARY}.invalid/weights.pth"
DEEP = "[" * 200_000 + "]" * 200_000

Words = Sequence[str] | Callable[[], Any]
Make = Callable[[Path, Stock], Words]


@dataclass(frozen=True)
class Hostile:
    """A file and what must come of it.

    Args:
        name: For ``--cases``.
        kind: Its group in the table.
        sentence: What it is, for the table.
        make: Makes it in a folder; returns the command that is given it.
        codes: The exit codes that are right.
        says: What one of the lines must say, in small letters; all of them.
        outcome: What is then seen, for the table.
    """

    name: str
    kind: str
    sentence: str
    make: Make
    codes: tuple[int, ...]
    says: tuple[str, ...]
    outcome: str


FILES: dict[str, Hostile] = {}
REFUSED = "refused in one line, nothing imported, run or opened"


def hostile(
    kind: str, name: str, sentence: str, *says: str, codes: tuple[int, ...] = (2,), outcome: str = REFUSED
) -> Callable[[Make], Make]:
    """Register a function that makes a file."""

    def register(make: Make) -> Make:
        assert name not in FILES, name
        FILES[name] = Hostile(name, kind, sentence, make, codes, says, outcome)
        return make

    return register


# --------------------------------------------------------------------------------------------------- code in weights

CODE = "Code in a file"


def _weight_commands(file: Path, folder: Path, stock: Stock) -> dict[str, list[str]]:
    """Every command that reads a weight file."""
    return {
        "predict": ["predict", str(stock.picture()), "--model", str(file), "--device", "cpu"],
        "eval": ["eval", str(file), "--data", str(stock.photos), "--device", "cpu"],
        "export": ["export", str(file), "--image-size", "32", "--out", str(folder / "out")],
        "bench": ["bench", str(file), "--quick", "--image-size", "32", "--seconds", "1"],
        "convert": ["convert", str(file), str(folder / "out.safetensors")],
        "train": [*TRAIN, f"weights={file}", "--data", str(stock.photos), "--out", str(folder / "out")],
    }


def _in_weights(command: str, spec: str, what: str) -> None:
    @hostile(CODE, f"{what}-{command}", f"`{command}` of weights whose mixer is {what}", "python code", "--trust")
    def make(folder: Path, stock: Stock) -> Words:
        file = stock.weights(folder / "model.safetensors", model_args={"mixers": spec})
        return _weight_commands(file, folder, stock)[command]


for _command in ("predict", "eval", "export", "bench", "convert", "train"):
    _in_weights(_command, COMMAND, "a-command")
_in_weights("predict", MODULE, "a-module")
_in_weights("predict", f" {CANARY} : Mixer (x=1)", "a-module-with-spaces")
_in_weights("predict", f"aff,{MODULE},aff,aff", "a-module-among-names")


@hostile(CODE, "run-folder", "a run folder whose weights and recipe name a command", "python code", "--trust")
def _(folder: Path, stock: Stock) -> Words:
    run = stock.copy_of_run(folder)
    stock.weights(run / "best.safetensors", model_args={"mixers": COMMAND})
    return ["predict", str(stock.picture()), "--model", str(run), "--device", "cpu"]


def _set_mixers(values: dict[str, Any]) -> None:
    """In a recipe of either schema."""
    if isinstance(values["model"], dict):
        values["model"]["args"] = {"mixers": COMMAND}
    else:
        values["model_args"] = {"mixers": COMMAND}


def _set(short: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """In a recipe of either schema: the entry with that name, wherever it stands."""

    def change(values: dict[str, Any]) -> None:
        holders = [values, *(part for part in values.values() if isinstance(part, dict))]
        named = values.get(short)
        if isinstance(named, dict):
            named["name"] = value
            return
        holder = next((holder for holder in holders if short in holder), values)
        holder[short] = value

    return change


def _recipe(name: str, sentence: str, change: Callable[[dict[str, Any]], None], *says: str) -> None:
    @hostile(CODE, name, sentence, *says)
    def make(folder: Path, stock: Stock) -> Words:
        file = stock.recipe(folder / "recipe.json", change)
        return ["train", str(file), "--data", str(stock.photos), "--out", str(folder / "out"), "--device", "cpu"]


_recipe("recipe-mixers", "a recipe whose mixer is a command", _set_mixers, "mixer", "--trust")
_recipe("recipe-weights-address", "a recipe whose weights are an address", _set("weights", ADDRESS), "weights")
_recipe(
    "recipe-weights-hub",
    "a recipe that starts from weights of a hub",
    _set("model", f"hf-hub:{CANARY}/model"),
    "--trust",
)


def _teacher(values: dict[str, Any]) -> None:
    _set("teacher", f"hf-hub:{CANARY}/model")(values)


_recipe("recipe-teacher", "a recipe whose teacher lies on a hub", _teacher, "teacher")


@hostile(CODE, "recipe-data-pipe", "a recipe whose data set is a command (`pipe:`)", "pipe", "--trust")
def _(folder: Path, stock: Stock) -> Words:
    file = stock.recipe(folder / "recipe.json", _set("data", f"pipe:touch {CANARY}_made"))
    return ["train", str(file), "--out", str(folder / "out"), "--device", "cpu"]


@hostile(CODE, "recipe-data-address", "a recipe whose data set is an address", "--trust")
def _(folder: Path, stock: Stock) -> Words:
    file = stock.recipe(folder / "recipe.json", _set("data", f"http://{CANARY}.invalid/train-{{000..003}}.tar"))
    return ["train", str(file), "--out", str(folder / "out"), "--device", "cpu"]


def _local_dir(folder: Path, stock: Stock, **model_args: Any) -> Path:
    """A model folder in timm's format."""
    place = folder / "hub"
    place.mkdir()
    config = {"architecture": MODEL, "num_classes": 2, "model_args": model_args, "pretrained_cfg": {"num_classes": 2}}
    (place / "config.json").write_text(json.dumps(config), encoding="utf-8")
    stock.weights(place / "model.safetensors")
    return place


@hostile(CODE, "hub-folder-timm", "`timm.create_model` of a folder whose configuration names a command", codes=(1,))
def _(folder: Path, stock: Stock) -> Words:
    place = _local_dir(folder, stock, mixers=COMMAND)

    def call() -> None:
        try:
            timm.create_model(f"local-dir:{place}", pretrained=True)
        except (ValueError, TypeError) as error:
            raise SystemExit(f"refused: {error}") from None

    return call


@hostile(
    CODE, "hub-folder-predict", "`predict` with a model folder in timm's format that names a command", "python code"
)
def _(folder: Path, stock: Stock) -> Words:
    place = _local_dir(folder, stock, mixers=COMMAND)
    return ["predict", str(stock.picture()), "--model", f"local-dir:{place}", "--device", "cpu"]


class _Touch:
    """A pickle of it runs a command."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {CANARY}_made",)


@hostile(CODE, "pickle", "a `.pth` file that is a pickle of a command", "checkpoint")
def _(folder: Path, stock: Stock) -> Words:
    (folder / "model.pth").write_bytes(pickle.dumps({"state_dict": _Touch()}))
    return ["convert", str(folder / "model.pth"), str(folder / "out.safetensors")]


@hostile(CODE, "pickle-in-zip", "a `.pth` archive whose pickle is a command")
def _(folder: Path, stock: Stock) -> Words:
    with zipfile.ZipFile(folder / "model.pth", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(_Touch(), protocol=2))
        archive.writestr("archive/version", "3\n")
    return ["convert", str(folder / "model.pth"), str(folder / "out.safetensors")]


@hostile(CODE, "checkpoint-pickle", "a run folder whose newest checkpoint is a pickle of a command", codes=(0, 2))
def _(folder: Path, stock: Stock) -> Words:
    run = stock.copy_of_run(folder)
    for file in (run / "checkpoints").glob("*"):
        file.write_bytes(pickle.dumps(_Touch()))
    return [*TRAIN, "--data", str(stock.photos), "--out", str(run)]


# -------------------------------------------------------------------------------------------- addresses and paths

PATHS = "Addresses and paths in a file"


def _argument(name: str, value: Any, sentence: str) -> None:
    @hostile(PATHS, f"weights-{name}", sentence, name)
    def make(folder: Path, stock: Stock) -> Words:
        file = stock.weights(folder / "model.safetensors", model_args={name: value})
        return ["predict", str(stock.picture()), "--model", str(file), "--device", "cpu"]


_argument("pretrained", True, "weights that ask for pretrained weights")
_argument("pretrained_cfg", {"url": ADDRESS}, "weights that name an address as configuration")
_argument("pretrained_cfg_overlay", {"file": "/etc/hostname"}, "weights that overlay a local path")
_argument("checkpoint_path", "/etc/hostname", "weights that name a local file as checkpoint")
_argument("device", "meta", "weights that choose a device")
_argument("features_only", True, "weights that change what a model returns")
_argument("cache_dir", f"/tmp/{CANARY}_made", "weights that name a folder for downloads")
_argument("img_size", 10**9, "weights with an argument that the model has not")


@hostile(PATHS, "manifest-other-file", "a manifest whose file is another one, above its folder", codes=(0, 2))
def _(folder: Path, stock: Stock) -> Words:
    def change(manifest: dict[str, Any]) -> None:
        manifest["files"]["onnx"]["file"] = "../../../../etc/hostname"

    file = stock.exported(folder, change)
    return ["web", str(file), "--out", str(folder / "page")]


@hostile(PATHS, "yolo-path-outside", "a YOLO file that names an address and a download script", "data.yaml")
def _(folder: Path, stock: Stock) -> Words:
    (folder / "set").mkdir()
    text = f"path: http://{CANARY}.invalid\ntrain: images\nval: images\nnames: [a]\ndownload: touch {CANARY}_made\n"
    (folder / "set" / "data.yaml").write_text(text)
    return [*DETECT, "--data", str(folder / "set"), "--out", str(folder / "out")]


# ------------------------------------------------------------------------------------------------ beyond all bounds

BOUNDS = "Values beyond reason"
REFUSED_EARLY = "refused in one line before memory is taken"


def _bound(name: str, sentence: str, *says: str, **info: Any) -> None:
    @hostile(BOUNDS, name, sentence, *says, outcome=REFUSED_EARLY)
    def make(folder: Path, stock: Stock) -> Words:
        file = stock.weights(folder / "model.safetensors", **info)
        return ["predict", str(stock.picture()), "--model", str(file), "--device", "cpu"]


_bound("weights-num-classes", "a billion classes", "num_classes", model_args={"num_classes": 10**12})
_bound("weights-depths", "ten million blocks per stage", "depths", model_args={"depths": [10**7] * 4})
_bound("weights-dims", "a billion channels", "dims", model_args={"dims": [10**9] * 4})
_bound("weights-in-chans", "a billion input channels", "in_chans", model_args={"in_chans": 10**9})
_bound("weights-mixers-list", "a list of 10,000 mixers", "mixers", model_args={"mixers": ",".join(["aff"] * 10**4)})
_bound("weights-image-size", "pictures of 100,000 x 100,000 pixels", "image_size", image_size=[100_000, 100_000])
_bound("weights-image-size-negative", "pictures of -1 pixels", "image_size", image_size=[-1, 32])
_bound("weights-crop-pct", "a crop of a billionth", "crop_pct", image_size=[32, 32], crop_pct=1e-9)
_bound("weights-std-zero", "a standard deviation of 0", "std", image_size=[32, 32], std=[0, 0, 0])
_bound("weights-mean-nan", "a mean that is no number", "mean", image_size=[32, 32], mean=[float("nan")] * 3)
_bound("weights-std-infinite", "an infinite standard deviation", "std", image_size=[32, 32], std=[float("inf")] * 3)
_bound("weights-mean-text", "a mean that is text", "mean", image_size=[32, 32], mean="abc")
_bound("weights-model-number", "a model whose name is a number", "model", model=5)
_bound("weights-model-unknown", "a model that does not exist", "model", model="../../etc/passwd")
_bound("weights-classes-number", "classes that are a number", "classes", classes=10**9)


def _metadata(name: str, sentence: str, text: str) -> None:
    @hostile(BOUNDS, name, sentence, outcome=REFUSED_EARLY)
    def make(folder: Path, stock: Stock) -> Words:
        file = stock.raw_weights(folder / "model.safetensors", text)
        return ["predict", str(stock.picture()), "--model", str(file), "--device", "cpu"]


_metadata("weights-metadata-deep", "metadata nested 200,000 deep", DEEP)
_metadata("weights-metadata-list", "metadata that is a list", "[1, 2]")
_metadata("weights-metadata-text", "metadata that is no JSON", "{")
_metadata("weights-metadata-empty", "metadata without any entry", "{}")
_metadata("weights-metadata-number", "metadata with an integer of 100,000 digits", '{"model": ' + "9" * 100_000 + "}")


@hostile(BOUNDS, "weights-header", "a weight file whose header claims 2^60 bytes", "safetensors", outcome=REFUSED_EARLY)
def _(folder: Path, stock: Stock) -> Words:
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{}" * 100)
    return ["convert", str(folder / "model.safetensors"), str(folder / "out.safetensors")]


def _manifest(name: str, sentence: str, change: Callable[[dict[str, Any]], None], *says: str) -> None:
    @hostile(BOUNDS, name, sentence, *says, outcome=REFUSED_EARLY)
    def make(folder: Path, stock: Stock) -> Words:
        file = stock.exported(folder, change)

        def call() -> None:
            from tokenmix_runtime import Predictor

            try:
                Predictor(file)(stock.picture())
            except (ValueError, TypeError) as error:
                print(f"refused: {error}")
                raise SystemExit(2) from None

        return call


_manifest(
    "manifest-std-zero", "a manifest with a deviation of 0", lambda m: m["preprocess"].update(std=[0, 0, 0]), "std"
)
_manifest(
    "manifest-mean-nan", "a manifest with a NaN", lambda m: m["preprocess"].update(mean=[float("nan")] * 3), "mean"
)
_manifest(
    "manifest-size",
    "a manifest for 100,000 px",
    lambda m: m["preprocess"].update(image_size=[100_000] * 2),
    "100000",
)
_manifest("manifest-crop", "a manifest with a tiny crop", lambda m: m["preprocess"].update(crop_pct=1e-9), "crop_pct")


@hostile(BOUNDS, "manifest-deep", "a manifest nested 200,000 deep", outcome=REFUSED_EARLY)
def _(folder: Path, stock: Stock) -> Words:
    file = stock.exported(folder, lambda manifest: None)
    (folder / "model.json").write_text(DEEP)
    return ["web", str(file), "--out", str(folder / "page")]


def _bad_recipe(name: str, sentence: str, change: Callable[[dict[str, Any]], None], *says: str) -> None:
    @hostile(BOUNDS, name, sentence, *says, outcome=REFUSED_EARLY)
    def make(folder: Path, stock: Stock) -> Words:
        file = stock.recipe(folder / "recipe.json", change)
        return ["train", str(file), "--data", str(stock.photos), "--out", str(folder / "out"), "--device", "cpu"]


_bad_recipe("recipe-epochs", "a recipe of 1e23 epochs", _set("epochs", 1e23), "epochs")
_bad_recipe("recipe-image-size", "a recipe for 100,000 px", _set("image_size", [100_000, 100_000]), "image_size")
_bad_recipe("recipe-batch", "a recipe with batches of 1e12", _set("batch_size", 10**12), "batch_size")
_bad_recipe("recipe-lr-nan", "a recipe whose learning rate is no number", _set("lr", float("nan")), "lr")


@hostile(BOUNDS, "recipe-deep", "a recipe nested 200,000 deep", outcome=REFUSED_EARLY)
def _(folder: Path, stock: Stock) -> Words:
    (folder / "recipe.json").write_text(DEEP)
    return ["train", str(folder / "recipe.json"), "--data", str(stock.photos), "--out", str(folder / "out")]


# ------------------------------------------------------------------------------------------------------- annotations

SETS = "Annotations"
LEFT_OUT = "refused or left out, named, within memory"


def _coco(folder: Path, objects: list[dict[str, Any]], size: int = 32, **more: Any) -> Path:
    """A COCO set of four pictures in each part; the objects are those of the first picture."""
    root = folder / "set"
    for part in ("train", "val"):
        (root / part).mkdir(parents=True)
        images, boxes = [], []
        for number in range(1, 5):
            pixels = np.random.default_rng(number).integers(0, 255, (size, size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / part / f"{part}{number}.png")
            images.append({"id": number, "file_name": f"{part}{number}.png", "width": size, "height": size})
            plain = {"id": number, "image_id": number, "category_id": 1, "iscrowd": 0, "area": 100}
            square = [5, 5, 15, 5, 15, 15, 5, 15]
            boxes.append(plain | {"bbox": [5, 5, 10, 10], "segmentation": [square]})
        extra = [
            {
                "id": 100 + place,
                "image_id": 1,
                "category_id": 1,
                "iscrowd": 0,
                "area": 100,
                "bbox": [5, 5, 10, 10],
                **one,
            }
            for place, one in enumerate(objects)
        ]
        content = {"images": images, "annotations": boxes + extra, "categories": [{"id": 1, "name": "thing"}], **more}
        (root / f"{part}.json").write_text(json.dumps(content))
    return root


def _instances(name: str, sentence: str, *objects: dict[str, Any], codes: tuple[int, ...] = (0, 2, 3)) -> None:
    @hostile(SETS, name, sentence, codes=codes, outcome=LEFT_OUT)
    def make(folder: Path, stock: Stock) -> Words:
        root = _coco(folder, list(objects))

        def call() -> None:
            from tokenmix.sources import load_data

            data = load_data(root, task="instances")
            for index in range(len(data.train)):
                data.train.target(index)

        return call


_far = {"segmentation": [[0, 0, 3e8, 0, 3e8, 3e8]]}
_instances("coco-polygon-far", "a polygon that reaches 3e8 pixels", _far, codes=(0, 1, 2, 3))
_instances("coco-polygon-1e300", "a polygon that reaches 1e300", {"segmentation": [[0, 0, 1e300, 0, 1e300, 1e300]]})
_instances("coco-polygon-negative", "a polygon from -4e9", {"segmentation": [[-4e9, -4e9, 10, 0, 10, 10]]})
_instances("coco-polygon-nan", "a polygon with NaN", {"segmentation": [[0, 0, float("nan"), 5, 6, 6]]})
_instances("coco-box-infinite", "a box without end", {"bbox": [0, 0, float("inf"), 5], "segmentation": []})
_instances(
    "coco-rle-claims",
    "a run-length code that claims 1e9 pixels",
    {"segmentation": {"size": [10**5, 10**4], "counts": [10**9]}},
)
_instances(
    "coco-rle-negative",
    "a run-length code with negative runs",
    {"segmentation": {"size": [32, 32], "counts": [-5, 1029]}},
)
_instances(
    "coco-rle-garbage",
    "a packed run-length code of garbage",
    {"segmentation": {"size": [32, 32], "counts": "\x7f" * 50}},
)


def _annotations(name: str, sentence: str, write: Callable[[Path], Any], *says: str) -> None:
    @hostile(SETS, name, sentence, *says, codes=(2, 3), outcome=REFUSED_EARLY)
    def make(folder: Path, stock: Stock) -> Words:
        root = _coco(folder, [])
        write(root)
        return [*DETECT, "--data", str(root), "--out", str(folder / "out")]


_annotations(
    "coco-deep", "a COCO file nested 200,000 deep", lambda root: (root / "train.json").write_text(DEEP), "train.json"
)
_annotations("coco-fifo", "a FIFO in the place of a COCO file", lambda root: _fifo(root / "train.json"), "train.json")
_annotations(
    "coco-zero",
    "a link to `/dev/zero` in the place of a COCO file",
    lambda root: _zero(root / "train.json"),
    "train.json",
)


def _fifo(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def _zero(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


def _yolo(folder: Path, yaml: str, line: str = "0 0.5 0.5 0.4 0.4") -> Path:
    root = folder / "set"
    for part in ("train", "val"):
        (root / "images" / part).mkdir(parents=True)
        (root / "labels" / part).mkdir(parents=True)
        for number in range(4):
            pixels = np.random.default_rng(number).integers(0, 255, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "images" / part / f"{part}{number}.png")
            (root / "labels" / part / f"{part}{number}.txt").write_text(line + "\n")
    (root / "data.yaml").write_text(yaml)
    return root


PLAIN_YAML = "train: images/train\nval: images/val\nnames: [thing]\n"
BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@hostile(SETS, "yolo-aliases", "a `data.yaml` whose aliases multiply to a billion", "data.yaml", outcome=REFUSED_EARLY)
def _(folder: Path, stock: Stock) -> Words:
    root = _yolo(folder, BOMB + PLAIN_YAML.replace("[thing]", "*i"))
    return [*DETECT, "--data", str(root), "--out", str(folder / "out")]


@hostile(SETS, "yolo-object", "a `data.yaml` that asks for a Python object", "data.yaml")
def _(folder: Path, stock: Stock) -> Words:
    root = _yolo(folder, PLAIN_YAML + f"x: !!python/object/apply:os.system ['touch {CANARY}_made']\n")
    return [*DETECT, "--data", str(root), "--out", str(folder / "out")]


@hostile(SETS, "yolo-deep", "a `data.yaml` nested 100,000 deep", "data.yaml", outcome=REFUSED_EARLY)
def _(folder: Path, stock: Stock) -> Words:
    root = _yolo(folder, PLAIN_YAML + "x: " + "[" * 100_000 + "]" * 100_000 + "\n")
    return [*DETECT, "--data", str(root), "--out", str(folder / "out")]


@hostile(SETS, "yolo-numbers", "YOLO labels of 1e300, NaN and class -1", codes=(2, 3), outcome=LEFT_OUT)
def _(folder: Path, stock: Stock) -> Words:
    root = _yolo(folder, PLAIN_YAML, "0 1e300 nan 0.4 0.4\n-1 0.5 0.5 0.1 0.1\n0 inf 0.5 0.1 0.1")
    return [*DETECT, "--data", str(root), "--out", str(folder / "out")]


def _voc(folder: Path, xml: str) -> Path:
    root = folder / "set"
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / part).mkdir(parents=True)
    names = [f"p{number}" for number in range(6)]
    for name in names:
        Image.new("RGB", (32, 32), "red").save(root / "JPEGImages" / f"{name}.jpg")
        (root / "Annotations" / f"{name}.xml").write_text(xml)
    (root / "ImageSets" / "Main" / "train.txt").write_text("\n".join(names[:4]))
    (root / "ImageSets" / "Main" / "val.txt").write_text("\n".join(names[4:]))
    return root


def _xml(name: str, sentence: str, xml: str, says: str = "doctype") -> None:
    @hostile(SETS, name, sentence, says, codes=(2, 3), outcome=REFUSED_EARLY)
    def make(folder: Path, stock: Stock) -> Words:
        return [*DETECT, "--data", str(_voc(folder, xml)), "--out", str(folder / "out")]


_BOX = "<object><name>thing</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>"
_ENTITIES = '<!ENTITY a "xxxxxxxxxx">' + "".join(
    f'<!ENTITY {new} "{f"&{old};" * 10}">' for old, new in zip("abcdefghi", "bcdefghij", strict=True)
)
_xml(
    "voc-entities",
    "an XML whose entities multiply to ten billion",
    f"<!DOCTYPE x [{_ENTITIES}]><annotation>&j;{_BOX}</annotation>",
)
_xml(
    "voc-external",
    "an XML with an external entity",
    f'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/hostname">]><annotation><filename>&e;</filename>{_BOX}</annotation>',
)
_xml(
    "voc-deep",
    "an XML nested 100,000 deep",
    "<annotation>" + "<a>" * 100_000 + "</a>" * 100_000 + "</annotation>",
    "no usable object",
)


# ---------------------------------------------------------------------------------------------------------- pictures

PICTURES = "Pictures"
NAMED = "named and left out; the others are used"


def _png_bomb(path: Path) -> None:
    header = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header)))


def _eps(path: Path) -> None:
    path.write_text(
        "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\n"
        f"(%pipe%touch {CANARY}_made) (w) file\nshowpage\n%%EOF\n"
    )


BAD_PICTURES: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "fifo": ("a FIFO", _fifo),
    "zero": ("a link to `/dev/zero`", _zero),
    "bomb": ("a PNG that claims 10 gigapixels", _png_bomb),
    "eps": ("PostScript", _eps),
    "loop": ("a link to itself", lambda path: path.symlink_to(path.name)),
    "folder": ("a folder", lambda path: path.mkdir()),
    "svg": ("an SVG with a script", lambda path: path.write_text("<svg><script>alert(1)</script></svg>")),
}


def _bad_picture(key: str) -> None:
    sentence, make_file = BAD_PICTURES[key]

    @hostile(
        PICTURES, f"predict-{key}", f"`predict` of {sentence} and a good picture", "0.png", codes=(2,), outcome=NAMED
    )
    def in_predict(folder: Path, stock: Stock) -> Words:
        make_file(folder / "strange.png")
        words = [str(folder / "strange.png"), str(stock.picture())]
        return ["predict", *words, "--model", str(stock.run), "--device", "cpu"]

    @hostile(PICTURES, f"train-{key}", f"{sentence} in a folder to learn from", codes=(0,), outcome=NAMED)
    def in_train(folder: Path, stock: Stock) -> Words:
        from hostile.stock import photographs

        photos = photographs(folder / "photos")
        make_file(photos / "train" / CLASSES[0] / "strange.png")
        return [*TRAIN, "--data", str(photos), "--out", str(folder / "out")]


for _key in BAD_PICTURES:
    _bad_picture(_key)


# ------------------------------------------------------------------------------------------------------------- names

NAMES = "Names that would act"
ESCAPED = "shown escaped, written harmlessly"
ESCAPE = "\x1b[31m\x1b]0;owned\x07"


@hostile(
    NAMES, "class-escape", "a class folder named with a terminal's control codes", codes=(0, 2, 3), outcome=ESCAPED
)
def _(folder: Path, stock: Stock) -> Words:
    from hostile.stock import photographs

    photos = photographs(folder / "photos")
    for part in ("train", "val", "test"):
        (photos / part / CLASSES[0]).rename(photos / part / f"dark{ESCAPE}")
    return ["data", "check", str(photos)]


@hostile(NAMES, "file-escape", "a picture named with control codes", codes=(0, 2), outcome=ESCAPED)
def _(folder: Path, stock: Stock) -> Words:
    path = folder / f"x{ESCAPE}.png"
    path.write_bytes(stock.picture().read_bytes())
    return ["predict", str(path), "--model", str(stock.run), "--device", "cpu"]


@hostile(NAMES, "weights-classes-escape", "weights whose classes are control codes", codes=(0, 2), outcome=ESCAPED)
def _(folder: Path, stock: Stock) -> Words:
    file = stock.weights(folder / "model.safetensors", classes=[f"a{ESCAPE}", "b\nc"], image_size=[32, 32])
    return ["predict", str(stock.picture()), "--model", str(file), "--device", "cpu"]


@hostile(NAMES, "csv-formula", "a class named as a formula, written to a table", codes=(0, 2), outcome=ESCAPED)
def _(folder: Path, stock: Stock) -> Words:
    from hostile.stock import photographs

    photos = photographs(folder / "photos")
    formula = "=HYPERLINK(1)"
    for part in ("train", "val", "test"):
        (photos / part / CLASSES[0]).rename(photos / part / formula)
    file = stock.weights(folder / "model.safetensors", classes=[formula, CLASSES[1]], image_size=[32, 32])
    return ["eval", str(file), "--data", str(photos), "--device", "cpu", "--predictions", str(folder / "answers.csv")]


def judge(case: Hostile, end: Any, folder: Path) -> str:
    """Why a case did not end as it must; ``""`` if it did."""
    if fault := end.fault():
        return fault
    if end.code not in case.codes:
        return f"exit code {end.code}, not {' or '.join(map(str, case.codes))}"
    low = end.text.lower()
    if missing := [word for word in case.says if word.lower() not in low]:
        return f"it does not say {missing[0]!r}"
    if "\x1b" in end.text or "\x07" in end.text:
        return "a control code reached the terminal"
    for table in folder.glob("answers.csv"):
        if any(cell.startswith("=") for line in table.read_text().splitlines() for cell in line.split(",")):
            return "a formula in a table"
    if end.code == 2 and (folder / "out").exists():
        return "it left a folder behind"
    return ""
