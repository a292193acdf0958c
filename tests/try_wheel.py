"""Try a wheel as a stranger has it: ``python tests/try_wheel.py dist/tokenmix-0.2.0-py3-none-any.whl``.

An environment is made in a new folder, the wheel is installed there with what it needs, and the commands run in that
folder, where nothing of the source is. ``--packages FOLDER`` takes what it needs from a folder of installed packages
instead of an index, all but tokenmix itself; ``TORCH_INDEX`` names an index with small builds of PyTorch. Exit code 4:
the packages could not be had.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path

NOT_TRIED = 4
PHOTOS = """
import random
from pathlib import Path
from PIL import Image
rng = random.Random(0)
for part, count in (("train", 12), ("val", 4), ("test", 4)):
    for name, shade in (("dark", 40), ("light", 200)):
        folder = Path("photos", part, name)
        folder.mkdir(parents=True)
        for number in range(count):
            levels = bytes(shade + rng.randint(0, 55) for _ in range(3 * 32 * 32))  # no two pictures are alike
            Image.frombytes("RGB", (32, 32), levels).save(folder / f"{number}.png")
"""
WITHOUT_TORCH = """
import sys
for name in ("torch", "torchvision", "timm", "tokenmix"):
    sys.modules[name] = None
from tokenmix_runtime.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


class Stranger:
    """An environment in a folder of its own, in which commands run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        venv.create(folder / "environment", with_pip=True, symlinks=True)
        self.bin = folder / "environment" / ("Scripts" if os.name == "nt" else "bin")
        hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "TOKENMIX_DATA")
        self.environment = {name: value for name, value in os.environ.items() if name not in hidden}

    def run(self, program: str, *words: str) -> str:
        """What a program of the environment prints; a failure ends the trial with its messages."""
        command = [str(self.bin / program), *words]
        done = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{program} {' '.join(words)}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def install(self, wheel: Path, packages: Path | None) -> bool:
        """Whether the wheel and what it needs are there now."""
        pip = [str(self.bin / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        if packages is None:
            index = os.environ.get("TORCH_INDEX")
            first = [[*pip, "--index-url", index, "torch", "torchvision"]] if index else []
            steps = [*first, [*pip, f"tokenmix[compare] @ {wheel.resolve().as_uri()}"]]
        else:
            site = Path(self.run("python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
            for entry in packages.iterdir():
                ours = entry.name.lower().startswith(("tokenmix", "__editable__", "__pycache__"))
                if not ours and not (site / entry.name).exists():
                    (site / entry.name).symlink_to(entry.resolve())
            steps = [[*pip, "--no-deps", str(wheel.resolve())]]
        for step in steps:
            done = subprocess.run(step, cwd=self.folder, env=self.environment, capture_output=True, text=True)
            if done.returncode:
                print(done.stderr[-2000:], file=sys.stderr)
                return False
        return True


def trial(stranger: Stranger) -> None:
    """Demo, report, run-time and page."""
    run, folder = stranger.run, stranger.folder
    facts = json.loads(run("tokenmix", "env", "--json"))
    where = run("python", "-c", "import tokenmix; print(tokenmix.__file__)").strip()
    assert Path(where).is_relative_to(folder), f"it is not the wheel that runs: {where}"
    pages = run("tokenmix", "docs").splitlines()
    assert "Fifteen minutes" in run("tokenmix", "docs", "tutorial")
    print(f"tokenmix {facts['tokenmix']}, torch {facts['packages']['torch']}, {len(pages)} pages of documentation")

    small = ["--mixers", "pool", "identity", "--measure-seconds", "1", "epochs=1"]
    run("tokenmix", "compare", "digits", *small, "--out", "demo")
    results = json.loads((folder / "demo/results.json").read_text(encoding="utf-8"))
    assert set(results["mixers"]) == {"pool", "identity"}
    report = (folder / "demo/report.html").read_text(encoding="utf-8")
    assert "<svg" in report
    assert "pool" in report
    print(f"demo: a report of {len(report) / 1e3:.0f} kB")

    run("python", "-c", PHOTOS)
    run("tokenmix", "data", "check", "photos")
    settings = ["model=mixernet_pico", "model_args.mixers=aff", "image_size=32", "epochs=2", "batch_size=8"]
    run("tokenmix", "train", "basic", *settings, "--data", "photos", "--out", "run")
    assert "<svg" in (folder / "run/report.html").read_text(encoding="utf-8")
    top1 = json.loads(run("tokenmix", "eval", "run", "--data", "photos", "--json"))["top1"]
    run("tokenmix", "export", "run", "--to", "onnx", "--out", "model.onnx")
    picture = "photos/test/dark/0.png"
    asked = run("tokenmix", "predict", picture, "--model", "run", "--json")
    alone = run("python", "-c", WITHOUT_TORCH, "model.onnx", picture, "--json")
    (first,), (second,) = (json.loads(text) for text in (asked, alone))
    assert first["top"][0][0] == second["top"][0][0]
    assert abs(first["top"][0][1] - second["top"][0][1]) < 1e-4
    print(f"run-time: {second['top'][0]} without PyTorch, as with it; {top1:.0f} % in the test")

    run("tokenmix", "web", "model.onnx", "--out", "page")
    page = (folder / "page/index.html").read_text(encoding="utf-8")
    assert "<script" in page
    print(f"page: {sum(1 for path in (folder / 'page').rglob('*') if path.is_file())} files")


def main(words: Sequence[str] | None = None) -> int:
    """Install and try; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--packages", type=Path, metavar="FOLDER")
    args = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as folder:
        stranger = Stranger(Path(folder).resolve())
        if not stranger.install(args.wheel, args.packages):
            return NOT_TRIED
        trial(stranger)
    print("the wheel works")
    return 0


if __name__ == "__main__":
    sys.exit(main())
