"""Images that cannot be read, images that go away, and batches that turn the loss into NaN."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

from faults.jobs import PHOTOS, WORKER, Job, trained_on
from faults.registry import fault
from faults.session import require
from faults.trial import Trial
from tokenmix.sources import load_data

KIND = "Broken images"


def huge(path: Path) -> None:
    """A PNG of a few bytes that claims 100,000 x 100,000 pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header)))


def broken(name: str, sentence: str, make: Callable[[Path], object], file: str = "broken.jpg") -> None:
    """Register: a file in the folder that cannot be read."""

    def run(trial: Trial) -> None:
        make(trial.photos / "green" / file)
        require(f"green/{file}" in trial.finish(), "it does not name the file")

    fault(KIND, sentence, name=name, outcome="named and skipped; bit-identical to the run without it", job=PHOTOS)(run)


def cut(path: Path) -> None:
    """The first half of a good image."""
    whole = path.with_name("0.jpg").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


broken("image-empty", "an empty file", Path.touch)
broken("image-truncated", "the first half of a JPEG", cut)
broken("image-text", "text with the name of an image", lambda path: path.write_text("<html>404</html>"))
broken("image-garbage", "random bytes", lambda path: path.write_bytes(bytes(range(1, 256)) * 8))
broken("image-link", "a link to nowhere", lambda path: path.symlink_to("gone.jpg"))
broken("image-huge", "a PNG that claims 10 gigapixels", huge, "huge.png")


def goes_away(name: str, sentence: str, change: Callable[[Path], object], job: Job = PHOTOS) -> None:
    """Register: an image of a later step is changed while the run trains, and comes back."""

    def run(trial: Trial) -> None:
        number = trial.random.randint(10, 18)
        session = trial.reach("step", number)
        index = trial.random.choice(trial.reference.order[max(trial.reference.order)])
        path = trial.photos / load_data(trial.photos, log=lambda line: None).train.names[index]
        content = path.read_bytes()
        change(path)
        session.go()
        end = session.wait()
        require(end.code == 2 and path.name in end.text, f"ended with {end.code}: {end.text[-1500:]}")
        require("Traceback" not in end.text, f"a traceback instead of a message: {end.text[-1500:]}")
        path.write_bytes(content)
        trial.finish()

    outcome = "stops with code 2 and names the file; with it back bit-identical"
    fault(KIND, sentence, name=name, outcome=outcome, job=job)(run)


goes_away("image-deleted", "one is deleted while the run trains", Path.unlink)
goes_away(
    "image-damaged", "one is overwritten while the run trains", lambda path: path.write_bytes(b"\xff\xd8\xff junk")
)
goes_away("image-deleted-worker", "one is deleted while a worker process loads them", Path.unlink, WORKER)


@fault(
    KIND,
    "the folder is gone when the run is started again",
    job=PHOTOS,
    outcome="stops with code 2 and names it; with it back bit-identical",
)
def folder_gone(trial: Trial) -> None:
    trial.half_way()
    away = trial.photos.rename(trial.folder / "elsewhere")
    end = trial.start().wait()
    require(end.code == 2 and "photos" in end.text, f"ended with {end.code}: {end.text[-1500:]}")
    away.rename(trial.photos)
    trial.finish()


@fault(
    KIND,
    "another image is in the folder when the run is started again",
    job=PHOTOS,
    outcome="refused with code 2: other data; without it bit-identical",
)
def image_added(trial: Trial) -> None:
    trial.half_way()
    added = trial.photos / "red" / "new.jpg"
    added.write_bytes((trial.photos / "red" / "0.jpg").read_bytes())
    end = trial.start().wait()
    require(end.code == 2 and "other data" in end.text, f"ended with {end.code}: {end.text[-1500:]}")
    added.unlink()
    trial.finish()


NAN = "NaN in a batch"


def named(trial: Trial, text: str, step: int) -> None:
    """Require that ``text`` names the first image of the session's training batch ``step``, counted from 1."""
    *_, indices = list(trained_on(trial.notes))[step - 1]
    name = load_data("digits", log=lambda line: None).train.names[indices[0]]
    require(name in text, f"it does not name {name}: {text[-1000:]}")


@fault(NAN, "in one batch", outcome="skipped, its images named; finite weights", times=2)
def nan_once(trial: Trial) -> None:
    step = trial.random.randint(5, 60)
    end = trial.start(nan=[step, step]).wait()
    require(end.code == 0, f"ended with code {end.code}: {end.text[-1500:]}")
    require("skipped a step" in end.text, "the step was not skipped")
    named(trial, end.text, step)
    require("NaN" not in (trial.out / "history.jsonl").read_text(), "NaN in the history")


@fault(
    NAN,
    "in every batch from some step on",
    outcome="stops with code 2, images named; without the cause bit-identical",
)
def nan_forever(trial: Trial) -> None:
    step = 16 * trial.random.randrange(4) + trial.random.randint(2, 6)  # it gives up in the same epoch
    end = trial.start(nan=[step, 10**6]).wait()
    require(end.code == 2 and "not finite" in end.text, f"ended with code {end.code}: {end.text[-1500:]}")
    named(trial, end.text, step)
    trial.finish()
