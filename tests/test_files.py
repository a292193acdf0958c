"""Files that appear whole or not at all, and folders that one process has to itself."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tokenmix.files import atomic_path, locked, write_text

HOLD = "import sys; from tokenmix.files import locked\nwith locked(sys.argv[1]): print('held', flush=True); input()"


def test_a_failed_write_leaves_the_file_as_it_was(tmp_path):
    write_text(tmp_path / "a" / "x.txt", "old")

    def write() -> None:
        with atomic_path(tmp_path / "a" / "x.txt") as temporary:
            temporary.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        write()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["x.txt"]
    assert (tmp_path / "a" / "x.txt").read_text() == "old"


def test_a_folder_is_locked_until_its_process_ends_however_it_ends(tmp_path):
    pytest.importorskip("fcntl")
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match="another process is at work"), locked(tmp_path / "run"):
            pass
        other.kill()
    with locked(tmp_path / "run"):
        pass


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(ValueError, match="run is a file"), locked(tmp_path / "run"):
        pass
