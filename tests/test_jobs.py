"""Jobs as files, and what is refused before any of them leaves this process."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.train_toys import toy_data, toy_model, toy_recipe
from tokenmix.cli import main
from tokenmix.files import Busy
from tokenmix.jobs import Job, Local, Ray, Slurm, make_runner, options
from tokenmix.jobs.job import Queued, attempt, claim, pack, unpack
from tokenmix.jobs.shared import Token
from tokenmix.train import Diverged, FitResult


def _job(folder: Path, **changes) -> Job:
    return Job(folder, toy_recipe(), 0, threads=1, data=toy_data, make=toy_model, **changes)


def test_a_job_is_its_file(tmp_path):
    job = Job(tmp_path, toy_recipe(lr=3e-4, image_size=(8, 16)), 7, device="cuda", workers=2, download=True, threads=3)
    job.write()
    assert Job.read(tmp_path) == job
    assert main(["job", str(tmp_path / "no")]) == 2
    with pytest.raises(ValueError, match="holds no job"):
        Job.read(tmp_path / "no")


def test_a_folder_of_another_run_is_refused_before_any_is_claimed(tmp_path):
    jobs = [_job(tmp_path / "new"), _job(tmp_path / "old")]
    claim(jobs[1:])
    with pytest.raises(ValueError, match=r"another recipe: optimizer.lr .*--fresh"):
        claim([replace(job, recipe=toy_recipe(lr=1e-4)) for job in jobs])
    with pytest.raises(ValueError, match="seed of the split"):
        claim([replace(job, data_seed=1) for job in jobs])
    assert not (tmp_path / "new").exists()


def test_local_jobs_continue_and_a_failure_is_an_outcome(tmp_path):
    lines: list[str] = []
    good, bad = _job(tmp_path / "good"), replace(_job(tmp_path / "bad"), recipe=toy_recipe(lr=1e30, max_bad_steps=1))
    failed, found = Local().run([bad, good], tmp_path, lines.append)
    assert isinstance(failed, Diverged)
    assert isinstance(found, FitResult)
    (again,) = Local().run([good], tmp_path, lines.append)
    assert again == found  # its seconds too: it was not trained again


def test_outcomes_travel_as_json(tmp_path):
    job = _job(tmp_path)
    result = FitResult({"epoch": 1}, [{"epoch": 1}], 2.0, tmp_path / "best.safetensors")
    assert unpack(pack(result), job) == result
    mistake = unpack(pack(Diverged("lower lr")), job)
    assert (type(mistake), str(mistake)) == (ValueError, "lower lr")
    try:
        raise ZeroDivisionError("of all things")
    except ZeroDivisionError as error:
        bug = unpack(pack(error), job)
    assert isinstance(bug, RuntimeError)
    assert "raise ZeroDivisionError" in str(bug)


@pytest.mark.parametrize("runner", [Slurm(), Ray()])
def test_an_object_cannot_leave_this_process(tmp_path, runner):
    pytest.importorskip("ray")
    with pytest.raises(ValueError, match=r"package\.file:Class"):
        next(runner.run([_job(tmp_path / "run")], tmp_path, print))
    assert list(tmp_path.iterdir()) == []


def test_runners_by_name():
    assert make_runner("slurm", at_once=2) == Slurm(at_once=2)
    assert options(Slurm(at_once=2)) == {"on": "slurm", "at_once": 2}
    assert options(make_runner("local")) == {}
    with pytest.raises(ValueError, match="did you mean 'slurm'"):
        make_runner("slrm")
    with pytest.raises(ValueError, match=r"--at-once means nothing with --on ray"):
        make_runner("ray", at_once=2)


def test_a_token_is_seen_where_the_folder_is(tmp_path):
    token = Token(tmp_path)
    assert token.seen()
    Token(tmp_path)
    assert not token.seen()  # the same path with another text is another folder
    token.file.unlink()
    assert not token.seen()


def test_no_ray_cluster(tmp_path, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(ValueError, match=r"no Ray cluster found at 127\.0\.0\.1:1.*ray start --head"):
        next(Ray().run([replace(_job(tmp_path / "run"), make=None)], tmp_path, print))


def test_the_script_of_slurm_is_written_even_where_there_is_no_slurm(tmp_path, monkeypatch):
    out = tmp_path / "100 %"
    jobs = [replace(_job(out / "a run" / name), make=None) for name in ("one", "two")]
    runner = Slurm(sbatch=("partition=gpu", "gres=gpu:1"), cpus=3, at_once=1)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    with pytest.raises(ValueError, match=r"no sbatch.*job\.sh by hand"):
        runner.run(jobs, out, print)
    text = (out / "jobs" / "job.sh").read_text()
    for line in ("--array=0-1%1", "--requeue", "--cpus-per-task=3", "--partition=gpu", "--gres=gpu:1"):
        assert f"#SBATCH {line}\n" in text
    assert f"#SBATCH '--output={tmp_path}/100 %%/jobs/%A_%a.log'\n" in text
    subprocess.run(["bash", "-n", str(out / "jobs" / "job.sh")], check=True)
    assert Job.read(out / "a run" / "two").threads == 3
    with pytest.raises(ValueError, match="array job decides"):
        Slurm(sbatch=("array=0-5",)).run(jobs, out, print)


def test_a_script_submitted_by_hand_is_not_submitted_again(tmp_path, monkeypatch):
    out = tmp_path / "out"
    job, other = (replace(_job(out / name), make=None) for name in ("run", "other"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    with pytest.raises(ValueError, match="by hand"):
        Slurm().run([job, other], out, print)
    other.outcome_file.write_text('{"mistake": "it failed"}')
    script = (out / "jobs" / "job.sh").read_bytes()
    with pytest.raises(Queued, match=r"job\.sh was to be submitted .* 1 of 2 jobs are unfinished \(run\)") as queued:
        Slurm().run([job, other], out, print)
    assert queued.value.unfinished == [job.folder.resolve()]
    assert (out / "jobs" / "job.sh").read_bytes() == script
    assert other.outcome_file.exists()
    stand_in = tmp_path / "bin" / "squeue"
    stand_in.parent.mkdir()
    stand_in.write_text(f"#!/bin/sh\necho '76 /other/job.sh'\necho '77 {out.resolve() / 'jobs' / 'job.sh'}'\n")
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{stand_in.parent}:/usr/bin:/bin")
    with pytest.raises(Queued, match="array job 77 is not done"):
        Slurm().run([job], out, print)
    stand_in.write_text("#!/bin/sh\n")  # it is in the queue no more
    with pytest.raises(ValueError, match="no sbatch"):
        Slurm().run([job], out, print)


def test_what_another_process_does_is_for_that_one_to_tell(tmp_path):
    job = replace(_job(tmp_path / "run"), make=None)
    code = f"from tokenmix.files import locked\nwith locked({str(job.folder)!r}):\n    print(flush=True)\n    input()\n"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], text=True, **pipes) as other:
        assert other.stdout.readline() == "\n"
        outcome = attempt(job, print)
        other.communicate("\n")
    assert isinstance(outcome, Busy)
    assert not job.outcome_file.exists()
