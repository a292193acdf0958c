"""What a release says of itself agrees; slowly, its wheel is built and tried from an empty environment."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.try_wheel import NOT_TRIED
from tokenmix.version import __version__

ROOT = Path(__file__).resolve().parents[1]


def test_version_changelog_and_citation_agree():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest, date = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)$", changelog, re.MULTILINE)[0]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert newest == __version__ == citation["version"]
    assert citation["date-released"] == date
    assert len(citation["references"]) == 4
    assert f"tokenmix-{__version__}-py3-none-any.whl" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_hosted_workflow_calls_the_commands_that_everybody_has():
    text = (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")
    steps = [step.get("run", "") for job in yaml.safe_load(text)["jobs"].values() for step in job["steps"]]
    called = [run.split()[1] for run in steps if run.startswith("make ")]
    assert called == ["test", "demo", "examples", "exporters", "pages"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = dict(re.findall(r"^([\w-]+):.*\n((?:\t.*\n)+)", makefile, re.MULTILINE))
    assert set(called) <= set(targets)
    for module in ("docs", "tutorial", "pages_looks"):
        assert f"tests/test_{module}.py" in targets["pages"]
    for test in re.findall(r"tests/\S+", targets["exporters-here"]):
        assert (ROOT / test).is_file()
    assert any("chromium-driver" in run for run in steps)
    assert "Not yet run on a hosted machine" in text


@pytest.mark.parametrize("name", ["bug", "slow", "wish"])
def test_issue_templates_ask_for_the_environment(name):
    template = yaml.safe_load((ROOT / f".github/ISSUE_TEMPLATE/{name}.yml").read_text(encoding="utf-8"))
    assert any("`tokenmix env`" in field["attributes"].get("label", "") for field in template["body"])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_wheel_works_where_nothing_else_is(tmp_path):
    """With the packages that are installed here: an index is asked by `make dist` alone."""
    pytest.importorskip("build", reason="pip install 'tokenmix[release]'")
    pytest.importorskip("onnxscript", reason="pip install 'tokenmix[onnx]'")
    built = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    if built.returncode and "No matching distribution" in built.stdout + built.stderr:
        pytest.skip("setuptools cannot be had: no index")
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    packages = Path(pytest.__file__).parents[1]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, str(ROOT / "tests/try_wheel.py"), str(wheel), "--packages", str(packages)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    if done.returncode == NOT_TRIED:
        pytest.skip("what the wheel needs could not be had")
    assert done.returncode == 0, done.stderr
    assert "the wheel works" in done.stdout
