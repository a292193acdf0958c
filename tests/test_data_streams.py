"""Shards that are streams: fetched once, whole or not at all, kept within a limit, shared by processes."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import filelock
import fsspec
import pytest

from tests.shard_files import write_shards
from tokenmix.data import download_cache as streams
from tokenmix.sources import load_data
from tokenmix.tasks.classification.loader import Loader
from tokenmix.tasks.classification.shards import Shard

ROOT = Path(__file__).resolve().parents[1]


def silent(line: str) -> None:
    pass


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("TOKENMIX_DATA", str(folder))
    monkeypatch.setattr(streams, "_WAITS_S", (0.0, 0.0))
    return folder / "shards" / "tars"


@pytest.fixture
def shards(tmp_path) -> Path:
    """Six shards of ten pictures."""
    write_shards(tmp_path, "train", [10] * 6)
    return tmp_path


@pytest.fixture
def counted(shards, tmp_path):
    """A spec of the shards whose every fetch is written down, and the function that says how many there were."""
    notes = tmp_path / "notes"
    spec = f"pipe:echo x >> {notes}; cat {shards}/train-{{000000..000005}}.tar"
    return spec, lambda: len(notes.read_text().splitlines())


def epoch(images) -> list[int]:
    loader = Loader(images, batch_size=5, image_size=16, mean=(0.5,) * 3, std=(0.5,) * 3, train=True)
    return [index for batch in loader.batches() for index in batch["index"].tolist()]


class Server(ThreadingHTTPServer):
    """Serves a folder; the first ``failing`` answers end too early."""

    failing = 0
    asked = 0

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self):
            self.server.asked += 1
            content = Path(self.translate_path(self.path))
            if not content.is_file():
                self.send_error(404)
                return
            data = content.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.server.failing:
                self.server.failing -= 1
                data = data[: len(data) // 2]
            self.wfile.write(data)

        def log_message(self, *_):
            pass


@pytest.fixture
def server(shards):
    server = Server(("127.0.0.1", 0), partial(Server.Handler, directory=str(shards)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_web(server, shards):
    server.failing = 2
    spec = f"http://127.0.0.1:{server.server_port}/train-{{000000..000005}}.tar?key=secret"
    data = load_data(spec, log=silent)
    assert server.asked == 6 + 2
    assert data.train.names == load_data(shards, log=silent).train.names  # neither the address nor its key
    assert data.name == f"127.0.0.1:{server.server_port}"
    load_data(spec, log=silent)
    assert sorted(epoch(data.train)) != []
    assert server.asked == 6 + 2
    with pytest.raises(ValueError, match=r"cannot fetch http://.*/none.tar, tried 3 times: HTTP Error 404"):
        load_data(f"http://127.0.0.1:{server.server_port}/none.tar", log=silent)
    server.failing = 3
    with pytest.raises(ValueError, match=r"tried 3 times: the connection ended [0-9,]+ bytes early"):
        load_data(f"http://127.0.0.1:{server.server_port}/train-000000.tar?other", log=silent)


def test_what_fsspec_opens(shards, monkeypatch):
    memory = fsspec.filesystem("memory")
    for path in shards.glob("*.tar"):
        memory.pipe_file(f"/set/{path.name}", path.read_bytes())
    data = load_data("memory://set/train-{000000..000005}.tar", log=silent)
    assert data.train.names == load_data(shards, log=silent).train.names
    with pytest.raises(ValueError, match="tried 3 times"):
        load_data("memory://set/none.tar", log=silent)
    with pytest.raises(ValueError, match="Protocol not known"):
        load_data("nothing://set/none.tar", log=silent)
    monkeypatch.setattr(fsspec, "open", lambda source, mode: memory.open(source.replace("hf://datasets", ""), mode))
    hub = load_data("hf://datasets/set/train-{000000..000005}.tar", log=silent)  # not hf:owner/name
    assert hub.train.names == data.train.names


def test_a_command_that_fails(cache, shards):
    path = shards / "train-000000.tar"
    with pytest.raises(ValueError, match="tried 3 times: the command ended with code 7"):
        load_data(f"pipe:cat {path}; exit 7", log=silent)
    with pytest.raises(ValueError, match="tried 3 times: it ends after 5,000 bytes"):
        load_data(f"pipe:head -c 5000 {path} | cat", log=silent)
    with pytest.raises(ValueError, match="tried 3 times: it is compressed"):
        load_data(f"pipe:gzip -c {path}", log=silent)
    assert [*cache.glob("*")] == []
    assert len(load_data(f"pipe:gzip -c {path} | gzip -dc", log=silent).train) == 4


def test_a_full_disk(monkeypatch, counted):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    spec, _ = counted
    monkeypatch.setattr(streams.shutil, "copyfileobj", full)
    with pytest.raises(ValueError, match=r"the disk of .* is full: set TOKENMIX_DATA .* or TOKENMIX_CACHE_GB"):
        load_data(spec, log=silent)


def test_the_oldest_are_removed_and_fetched_again(cache, counted, shards, monkeypatch):
    spec, fetched = counted
    size = (shards / "train-000000.tar").stat().st_size
    monkeypatch.setenv("TOKENMIX_CACHE_GB", str(3.5 * size / 1e9))
    cache.mkdir(parents=True)
    left = cache / ".left.by.a.killed.process.tmp"
    left.write_bytes(bytes(size))
    os.utime(left, (0, 0))
    lines: list[str] = []
    data = load_data(spec, log=lines.append)
    assert any("raise TOKENMIX_CACHE_GB" in line for line in lines)
    assert len(list(cache.iterdir())) == 3
    assert not left.exists()
    before = fetched()
    whole = load_data(shards, log=silent).train
    assert epoch(data.train) == epoch(whole)
    assert fetched() > before
    assert len(list(cache.iterdir())) == 3
    for wrong in ("much", "nan", "-1"):
        monkeypatch.setenv("TOKENMIX_CACHE_GB", wrong)
        with pytest.raises(ValueError, match=f"TOKENMIX_CACHE_GB must be a number .* 0 or more, not '{wrong}'"):
            load_data(spec, log=silent)


def test_a_shard_that_became_another(cache, counted, shards):
    spec, _ = counted
    data = load_data(spec, log=silent)
    for path in cache.iterdir():
        path.unlink()
    write_shards(shards, "train", [9] * 6)
    with pytest.raises(ValueError, match="is another shard than it was before: start again"):
        epoch(data.train)


def test_threads_fetch_a_shard_once(counted):
    spec, fetched = counted
    shard = Shard("x", spec.replace("{000000..000005}", "000003"))
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda _: shard.path(), range(8)))
    assert len(set(paths)) == fetched() == 1


def test_file_systems_without_locks(counted, monkeypatch):
    def fail(self):
        raise NotImplementedError

    monkeypatch.setattr(filelock.FileLock, "acquire", fail)
    spec, fetched = counted
    assert len(load_data(spec, log=silent).train) == 42
    assert fetched() == 6


@pytest.mark.slow
def test_processes_fetch_a_shard_once(counted):
    spec, fetched = counted
    code = f"from tokenmix.sources import load_data; print(len(load_data({spec!r}, log=lambda line: None).train))"
    words = [sys.executable, "-W", "ignore", "-c", code]
    running = [subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate()[0] for process in running] == ["42\n"] * 3
    assert fetched() == 6
