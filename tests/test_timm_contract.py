"""timm's own model tests on our models, with scrambled weights: the smallest variants, and the slow rest."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import timm

from tests.backbone_cases import MODELS, SMALLEST
from tests.counts import count

HERE = Path(__file__).parent
# What timm 1.0.31 tests on each model. Another version may lack some; whatever it has of these must run.
STANDARD = (
    "test_model_forward",
    "test_model_backward",
    "test_model_default_cfgs",
    "test_model_forward_torchscript",
    "test_model_forward_features",
    "test_model_forward_intermediates_features",
    "test_model_forward_intermediates",
    "test_prune_intermediate_layers_contract",
    "test_model_forward_fx",
    "test_model_backward_fx",
    "test_model_forward_fx_torchscript",
)


def fetch(target: Path) -> None:
    """Download the source archive of the installed timm and unpack only its ``tests`` folder, to ``target``."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "timm"]
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as folder:
        command = [*pip, "--dest", folder, f"timm=={timm.__version__}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        archives = list(Path(folder).glob("timm-*.tar.gz"))
        if done.returncode or not archives:
            last = (done.stderr.strip() or "no archive came").splitlines()[-1]
            pytest.skip(f"timm's tests could not be downloaded from the package index: {last}")
        with tarfile.open(archives[0]) as archive:
            members = [member for member in archive.getmembers() if "/tests/" in member.name]
            archive.extractall(folder, members, filter="data")
        suite = Path(folder) / archives[0].name.removesuffix(".tar.gz")
        (suite / "pytest.ini").write_text("[pytest]\n")  # else pytest looks for settings in the folders above
        try:
            suite.rename(target)
        except OSError:
            if not target.exists():  # and not because another process was faster
                raise


@pytest.fixture(scope="session")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds timm's ``tests``, kept in the environment between runs."""
    target = Path(sys.prefix) / f"timm-tests-{timm.__version__}"
    if not target.exists() and not os.access(sys.prefix, os.W_OK):
        target = tmp_path_factory.getbasetemp().parent / target.name
    if not target.exists():
        fetch(target)
    return target


def run(suite: Path, models: tuple[str, ...], tests: tuple[str, ...], folder: Path) -> dict[str, set[str]]:
    """Run the named tests on the models; returns the ids of those that ran and passed by model. Others fail here."""
    result = folder / "result.xml"
    # Without timm's own time limits, which a busy machine exceeds.
    plugins = ["-p", "timm_plugin", "-p", "no:cacheprovider", "-p", "no:timeout"]
    command = [sys.executable, "-m", "pytest", *plugins, "-q", "-W", "ignore"]
    command += ["--tb=short", f"--junitxml={result}", "tests/test_models.py", "-k", " or ".join(tests)]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)]),
        "TOKENMIX_TIMM_MODELS": ",".join(models),
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
    }
    # In timm's tests this variable leaves out large models.
    environment.pop("GITHUB_ACTIONS", None)
    done = subprocess.run(command, cwd=suite, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-8000:]
    passed: dict[str, set[str]] = {model: set() for model in models}
    for case in ET.parse(result).iter("testcase"):
        assert len(case) == 0, f"{case.get('name')}: {case[0].tag} {case[0].get('message')}"
        match = re.fullmatch(r"(\w+)\[(?:\d+-)?([\w.]+)\]", case.get("name", ""))
        assert match, case.get("name")
        passed[match[2].split(".")[0]].add(match[1])
        count("timm tests", case.get("name", ""))
    return passed


def available(suite: Path, tests: tuple[str, ...]) -> set[str]:
    """Those tests that this version of timm has."""
    source = (suite / "tests" / "test_models.py").read_text()
    return {name for name in tests if f"def {name}(" in source}


def check(suite: Path, models: tuple[str, ...], tests: tuple[str, ...], folder: Path) -> None:
    wanted = available(suite, tests)
    assert wanted == set(tests) or timm.__version__ != "1.0.31"
    # One of timm's names is the beginning of another's, so -k takes more: here all of them are ours and are counted.
    for model, passed in run(suite, models, tuple(sorted(wanted)), folder).items():
        assert passed >= wanted, f"{model}: {sorted(wanted - passed)} did not run"


@pytest.mark.parametrize("model", sorted(SMALLEST.values()))
def test_smallest_variants(model: str, suite: Path, tmp_path: Path) -> None:
    check(suite, (model,), STANDARD, tmp_path)


@pytest.mark.slow
def test_configurations_of_all_models(suite: Path, tmp_path: Path) -> None:
    check(suite, MODELS, ("test_model_default_cfgs",), tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("model", sorted(set(MODELS) - set(SMALLEST.values())))
def test_other_variants(model: str, suite: Path, tmp_path: Path) -> None:
    check(suite, (model,), STANDARD, tmp_path)


def test_the_smallest_variants_are_the_smallest_of_all_families() -> None:
    sizes: dict[str, dict[str, int]] = {}
    for name in MODELS:
        model = timm.create_model(name, device="meta")
        family = timm.models.get_arch_name(name) and timm.models.model_entrypoint(name).__module__.rsplit(".", 1)[-1]
        sizes.setdefault(family, {})[name] = sum(p.numel() for p in model.parameters())
    assert {family: min(models, key=models.__getitem__) for family, models in sizes.items()} == SMALLEST


def test_no_name_is_taken_for_another_kind_of_model(suite: Path) -> None:
    """Some of timm's tests leave out models by patterns of names; ours must match none of them."""
    source = (suite / "tests" / "test_models.py").read_text()
    patterns = re.search(r"NON_STD_FILTERS = \[(.*?)\]", source, re.DOTALL)
    assert patterns
    taken = timm.list_models(re.findall(r"'([^']+)'", patterns[1]))
    assert set(MODELS) & set(taken) == set()


def test_fetching_leaves_timm_itself_out(suite: Path) -> None:
    """A ``timm`` folder beside the tests would hide the installed package from them."""
    assert (suite / "tests" / "test_models.py").exists()
    assert not (suite / "timm").exists()
