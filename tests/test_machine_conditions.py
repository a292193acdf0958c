"""What a machine can be like, and what commands do then: end with one line, or go on, and lose nothing."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn

import pytest
import torch
from PIL import Image
from torch import nn

from tests.dense_toys import write_coco
from tests.test_train_resume import run
from tests.train_toys import checkpoint, toy_data, toy_model, toy_recipe
from tokenmix.bench.batch import best_batch
from tokenmix.cli import main, mixers_command, train_command
from tokenmix.comparison import compare
from tokenmix.files import atomic_path, locked
from tokenmix.pages import run as run_report
from tokenmix.sweeps import sweep
from tokenmix.tasks.classification.loader import Loader
from tokenmix.train.checkpoint import Checkpoints
from tokenmix.web import PageServer
from tokenmix.web import server as web_server
from tokenmix_runtime.__main__ import main as runtime_main
from tokenmix_runtime.console import steady_streams
from tokenmix_runtime.launch import program
from tokenmix_runtime.preprocess import height_width
from tokenmix_runtime.shortage import OutOfMemory, shortage

pytestmark = pytest.mark.filterwarnings("ignore:.*has no published weights:UserWarning")
ROOT = Path(__file__).parents[1]
LACKS = [
    MemoryError(),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("std::bad_alloc"),
    ImportError("libtorch_cpu.so: failed to map segment from shared object"),
    RuntimeError("can't start new thread"),
    BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"),
]


def console(path: Path, encoding: str = "utf-8") -> io.TextIOWrapper:
    """A strict stream into a file, as a console's is."""
    return io.TextIOWrapper(open(path, "wb"), encoding, "strict")


def failing(error: BaseException):
    def raise_it(args) -> None:
        raise error

    return raise_it


# ------------------------------------------------------------------------------------------------ the standard streams


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_a_console_shows_what_it_can(tmp_path, monkeypatch, encoding) -> None:
    """Bars and file names in bytes that are no text: predict answers all the same."""
    picture = os.fsencode(tmp_path) + b"/caf\xe9.png"
    Image.new("RGB", (40, 40), "red").save(tmp_path / "x.png")
    os.rename(tmp_path / "x.png", picture)
    monkeypatch.setattr(sys, "stdout", console(tmp_path / "out", encoding))
    assert main(["predict", os.fsdecode(picture), "--model", "mixernet_pico"]) == 0
    sys.stdout.close()
    lines = (tmp_path / "out").read_bytes().decode(encoding).splitlines()
    assert lines[0].endswith("/caf?.png")
    assert len(lines) == 6
    assert all(line.startswith("  ") and line.endswith("0.1 %") for line in lines[1:])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", console(tmp_path / "bars", encoding))
        with steady_streams(needed=True):
            print("█·–", "\u2603")
        sys.stdout.close()
    told = (tmp_path / "bars").read_bytes().decode(encoding)
    assert told == {"cp1252": "#·– \\u2603\n", "ascii": "#.- \\u2603\n", "utf-8": "█·– ☃\n"}[encoding]


def test_missing_streams_are_no_reason_to_end(monkeypatch, tmp_path) -> None:
    closed = console(tmp_path / "closed")
    closed.close()
    for stream in (None, closed):
        for name in ("stdin", "stdout", "stderr"):
            monkeypatch.setattr(sys, name, stream)
        assert main(["mixers"]) == 0
        assert main(["mixer"]) == 2
        assert main([]) == 2
        assert runtime_main([str(tmp_path / "none.onnx"), "x.png"]) == 2
        assert sys.stdout is stream
        assert sys.stderr is stream


def test_a_run_goes_on_without_a_reader_or_room_for_its_words(tmp_path, monkeypatch, capsys) -> None:
    """The reader of training has gone, or the disk is full that its words go to: it is trained to the end."""
    monkeypatch.setattr(train_command, "run", lambda args: [print("x" * 99) for _ in range(999)] and done.append(1))
    done: list[int] = []
    for number, sink in enumerate((broken_pipe(), open("/dev/full", "wb"))):  # noqa: SIM115
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(sink, "utf-8"))
        assert main(["train", "x"]) == 0
        assert len(done) == number + 1
        sys.stdout.close()
    assert capsys.readouterr().err == (
        "warning: standard output: No space left on device; what was printed from then on is lost\n"
    )


@pytest.mark.parametrize("name", ["mixers", "data"])
def test_a_command_that_answers_there_says_that_its_answer_is_lost(name, monkeypatch, capsys) -> None:
    words = {"mixers": ["mixers"], "data": ["data", "check", "digits"]}[name]
    for sink, code in ((broken_pipe(), 141), (open("/dev/full", "wb"), 75)):  # noqa: SIM115
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(sink, "utf-8"))
        assert main(words) == code
        sys.stdout.close()
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "standard output: No space left on device" in error


def broken_pipe() -> io.BufferedWriter:
    reader, writer = os.pipe()
    os.close(reader)
    return open(writer, "wb")


def test_a_full_pipe_is_waited_for(monkeypatch) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    text = "".join(f"{number}\n" for number in range(60_000))
    got: list[bytes] = []

    def read() -> None:
        with open(reader, "rb") as file:
            got.append(file.read())

    thread = threading.Timer(0.3, read)
    thread.start()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(open(writer, "wb"), "utf-8"))  # noqa: SIM115
    with steady_streams(needed=True):
        sys.stdout.write(text)
        sys.stdout.flush()
    sys.stdout.close()
    thread.join(10)
    assert got == [text.encode()]


@pytest.mark.skipif(os.name == "nt", reason="needs a shell")
def test_closed_streams_in_a_process(tmp_path) -> None:
    """Their numbers are given to no file; a run without them ends as any other."""
    words = "train basic model=mixernet_pico epochs=0.05 warmup_epochs=0 --data digits --device cpu --out run"
    code = (
        "import os, sys, json; from tokenmix.cli import main; code = main(sys.argv[1:]); "
        "json.dump([code, [os.path.realpath(f'/proc/self/fd/{n}') for n in range(3)]], open('told', 'w'))"
    )
    command = f'exec "{sys.executable}" -c "{code}" {words} <&- >&- 2>&-'
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, env=environment, timeout=120, check=False)
    assert done.returncode == 0
    code, numbers = json.loads((tmp_path / "told").read_text())
    assert code == 0
    if Path("/proc/self/fd").exists():
        assert numbers == ["/dev/null"] * 3
    assert "Finished" in (tmp_path / "run" / "report.html").read_text()


# -------------------------------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize("error", LACKS, ids=str)
def test_want_of_memory_or_threads_is_one_line(error, monkeypatch, capsys) -> None:
    monkeypatch.setattr(mixers_command, "run", failing(error))
    assert main(["mixers"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert told.startswith(("tokenmix mixers: error: out of memory; ", "tokenmix mixers: error: the system lets this"))


def test_other_errors_are_no_want_of_memory() -> None:
    for error in (ValueError("out of memory"), RuntimeError("mat1 and mat2"), FileNotFoundError(2, "x"), KeyError("x")):
        assert shortage(error) is None


def test_the_options_that_would_help_are_named(monkeypatch, capsys) -> None:
    from tokenmix.cli import eval_command

    monkeypatch.setattr(eval_command, "run", failing(LACKS[2]))
    assert main(["eval", "x", "--data", "y", "--batch-size", "64", "--image-size", "512,1024"]) == 2
    assert capsys.readouterr().err == (
        "tokenmix eval: error: out of memory; smaller values of --batch-size (now 64), --image-size (now 512 1024) "
        "need less, and so does a smaller model\n"
    )


class Hungry(nn.Module):
    """Has memory for so many pictures at once when it trains, and when it is judged."""

    def __init__(self, most: int, judged: int = 99) -> None:
        super().__init__()
        self.inner, self.most, self.judged = toy_model(), most, judged

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > (self.most if self.training else self.judged):
            raise LACKS[2]
        return self.inner(x)


def test_a_run_that_lacks_memory_says_what_fits_and_goes_on(tmp_path) -> None:
    with pytest.raises(OutOfMemory) as told:
        run(tmp_path, model=lambda: Hungry(3))
    assert str(told.value) == (
        "out of memory at epoch 1, step 1: batch_size=8 images of 8 x 8 pixels in parts of 8 (accumulate=1); parts of "
        "2 fit: the same command with accumulate=4 goes on with the same batches (a smaller batch_size or image_size "
        "needs less too, with other results)"
    )
    page = (tmp_path / "report.html").read_text()
    assert "Stopped at" in page
    assert "Running" not in page
    result, _ = run(tmp_path, toy_recipe(accumulate=4), model=lambda: Hungry(3))
    assert len(result.history) == 3


def test_nothing_fits(tmp_path) -> None:
    with pytest.raises(OutOfMemory, match="not even one of the images fits: take a smaller image_size or model"):
        run(tmp_path, model=lambda: Hungry(0))


def test_a_validation_that_lacks_memory_goes_on_with_smaller_parts(tmp_path) -> None:
    """The parts per step may change where the run stands; it is said, noted, and the batches stay."""
    with pytest.raises(
        OutOfMemory, match=r"epoch 1, step 7: batch_size=8 .* a larger accumulate, a smaller batch_size"
    ):
        run(tmp_path, model=lambda: Hungry(8, judged=4))
    recipe = toy_recipe(accumulate=2)
    _, lines = run(tmp_path, recipe, model=lambda: Hungry(8, judged=4))
    change = "accumulate=2 instead of 1 from epoch 1, step 6 on: the batches of 8 images and the learning rate stay"
    assert any(change in line for line in lines)
    assert change in (tmp_path / "report.html").read_text()
    assert len(checkpoint(tmp_path)["state"]["changes"]) == 1
    _, lines = run(tmp_path, toy_recipe(accumulate=4), model=lambda: Hungry(8))
    assert lines == [f"{tmp_path}: the run has finished, with accumulate=2, and stays as it is"]
    assert json.loads((tmp_path / "recipe.json").read_text())["run"]["accumulate"] == 2
    with pytest.raises(ValueError, match=r"holds a run of another recipe: run\.batch_size"):
        run(tmp_path, toy_recipe(accumulate=2, batch_size=4), model=lambda: Hungry(8))


def test_the_best_batch_is_one_that_fits() -> None:
    def rate(batch: int) -> float:
        if batch > 4:
            raise LACKS[2]
        return float(batch)

    assert best_batch(rate, memory=lambda call: (call(), 0.0), free=lambda: 1e9).ended == "memory"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_real_memory_ends(tmp_path) -> None:
    """Under a limit of 1.5 GB above what the imports take, a batch of 2 GB and its activations."""
    for number in range(48):
        folder = tmp_path / "photos" / ("cat", "dog")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), (number, 0, 9)).save(folder / f"{number}.png")
    code = (
        "import resource, tokenmix.cli.train_command, tokenmix_runtime.launch\n"
        "taken = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (taken + 3 * 2**29,) * 2)\n"
        "tokenmix_runtime.launch.program()"
    )
    words = "train basic model=mixernet_pico image_size=1024 batch_size=24 epochs=1 warmup_epochs=0 --device cpu"
    done = subprocess.run(
        [sys.executable, "-c", code, *words.split(), "--data", "photos", "--out", "run"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "batch_size=24 images of 1024 x 1024 pixels" in done.stderr


# ------------------------------------------------------------------------------------------------- numbers and starts


@pytest.mark.parametrize(
    "line",
    [
        "train basic --workers 2147483648",
        "train basic --keep 0",
        "train basic --keep 10000000000",
        "train basic --timeout inf",
        "train basic --timeout 1e30",
        "train basic --checkpoint-seconds nan",
        "train basic --checkpoint-seconds -1",
        "sweep basic --over seed=0,1 --workers -1",
        "compare digits --seeds 100000000",
        "compare digits --batch-sizes 1 99999999",
        "compare digits --measure-seconds nan",
        "compare digits --at-once 0",
        "compare digits --cpus 1000000",
        "compare digits --gpus nan",
        "demo detect --seed -1",
        "demo detect --workers 100000",
        "eval x --data y --image-size 100000",
        "eval x --data y --batch-size 0",
        "eval x --data y --batch-size 1000000000000",
        "eval x --data y --seed 99999999999999999999",
        "export mixernet_pico --image-size 100000 --out new/x",
        "export mixernet_pico --tolerance nan --out new/x",
        "bench mixernet_pico --image-size 64,100000",
        "bench mixernet_pico --threads 100000000",
        "bench mixernet_pico --batch 100000000",
        "bench mixernet_pico --rounds 99999999999",
        "bench mixernet_pico --seconds inf",
        "bench --scale --maps 14 10000000",
        "bench --scale --channels 10000000000",
        "bench mixernet_pico --scale --sizes 0 64",
        "bench mixernet_pico --scale --batches 1 2147483648",
        "web x.onnx --port 65536",
        "data pack digits new --shard-size 0",
        "predict x.png --model y --top 99999999999999",
    ],
)
def test_a_number_beyond_reason_is_refused_at_once(line, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(line.split()) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert " must be from " in error
    assert not list(tmp_path.iterdir())


def test_functions_refuse_such_numbers_too(tmp_path) -> None:
    images = toy_data().val
    for refused in (
        lambda: height_width(100_000),
        lambda: height_width((64, 10**12)),
        lambda: Checkpoints(tmp_path, keep=10**9),
        lambda: run(tmp_path / "run", workers=2**31),
        lambda: run(tmp_path / "run", checkpoint_seconds=float("nan")),
        lambda: run(tmp_path / "run", timeout=1e30),
        lambda: sweep("basic", ["seed=0,1"], out=tmp_path / "sweep", workers=10**6),
        lambda: compare("digits", out=tmp_path / "compare", seeds=10**6),
        lambda: Loader(images, batch_size=1, image_size=8, mean=[0] * 3, std=[1] * 3, train=False, workers=10**6),
    ):
        with pytest.raises(ValueError, match="must be from"):
            refused()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "line",
    [
        "train mixernet_pico --data none --out a/run",
        "train mixernet_picco --out a/run",
        "train basic epochs=-1 --out a/run",
        "train mixernet_pico model_args.mixers=aft --data digits --out a/run",
        "train mixernet_pico model_args.dims=[1] --data digits --out a/run",
        "train mixernet_pico weights=none.safetensors --data digits --out a/run",
        "train mixernet_pico teacher=no_such --data digits --out a/run",
        "train mixernet_pico --track nobody --out a/run",
        "train mixernet_pico --device cuda:99 --out a/run",
        "train mixernet_pico --data digits --parallel none --out a/run",
        "train mixernet_pico --data digits --out file/run",
        "sweep mixernet_pico --over seed=0,1 --data none --out a/sweep",
        "sweep mixernet_pico --over model_args.mixers=aff,aft --data digits --out a/sweep",
        "sweep mixernet_pico --over nothing=1,2 --out a/sweep",
        "compare none --out a/compare",
        "compare digits --mixers aff aft --out a/compare",
        "compare digits --skeleton resnet18 --out a/compare",
        "compare digits --set epochs=-1 --out a/compare",
        "demo sing --out a/demo",
        "demo detect --mixers aft --out a/demo",
        "demo detect --epochs -1 --out a/demo",
        "job a/job",
        "eval none.safetensors --data digits --predictions a/x.csv",
        "eval mixernet_pico --data none --predictions a/x.csv",
        "predict none.png --model mixernet_pico",
        "export none.safetensors --out a/model",
        "export mixernet_pico --images none --out a/model",
        "export mixernet_pico --precision int8 --calibration none --out a/model",
        "convert none.pth a/x.safetensors",
        "bench no_such_model --json a/x.json --html a/x.html",
        "data pack none a/shards",
        "web none.onnx --out a/page",
    ],
)
def test_what_cannot_start_leaves_nothing(line, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    assert main(line.split()) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert [path.name for path in tmp_path.rglob("*")] == ["file"]


def test_a_folder_that_was_there_stays_as_it_was(tmp_path) -> None:
    (tmp_path / "mine").mkdir()
    for name in ("mine", "new/deep"):
        with contextlib.suppress(KeyError), locked(tmp_path / name):
            assert (tmp_path / name / ".lock").exists()
            raise KeyError
    with contextlib.suppress(KeyError), atomic_path(tmp_path / "other" / "x"):
        raise KeyError
    assert [path.name for path in tmp_path.rglob("*")] == ["mine"]
    with contextlib.suppress(KeyError), locked(tmp_path / "run"):
        (tmp_path / "run" / "kept").touch()
        raise KeyError
    assert {path.name for path in (tmp_path / "run").iterdir()} == {".lock", "kept"}


# ------------------------------------------------------------------------------------------------------------ the page


def test_a_headline_that_is_undefined_is_said(tmp_path, capsys) -> None:
    """No object in the validation pictures: AP does not exist, the run finishes, and its page says both."""
    file = write_coco(tmp_path / "data", 4) / "annotations" / "instances_val2017.json"
    content = json.loads(file.read_text())
    crowds = [{**entry, "iscrowd": 1} for entry in content["annotations"]]  # which nothing has to be found of
    file.write_text(json.dumps(content | {"annotations": crowds}))
    words = ["train", "mixernet_pico", "head=ssdlite", "task=detection", "label_smoothing=0", "augment=ssd"]
    words += ["image_size=64", "batch_size=2", "epochs=1", "warmup_epochs=0", "weights=none", "--device", "cpu"]
    assert main([*words, "--data", str(tmp_path / "data"), "--out", str(tmp_path / "run")]) == 0
    told = capsys.readouterr().out
    page = (tmp_path / "run" / "report.html").read_text()
    assert "could not be written" not in told
    assert "nan" not in told
    assert "val box_AP undefined" in told
    assert "Finished after 1 epoch" in page
    assert "undefined" in page
    assert "hold nothing that box AP could count" in page
    assert f"report: {tmp_path / 'run' / 'report.html'}" in told


@pytest.mark.parametrize("writable", [True, False])
def test_a_page_that_cannot_be_drawn_tells_the_end(tmp_path, monkeypatch, writable) -> None:
    def broken(*_: object) -> str:
        raise KeyError("surprise")

    monkeypatch.setattr(run_report, "run_page", broken)
    (tmp_path / "report.html").write_text("Running: epoch 1 of 3")
    if not writable:
        monkeypatch.setattr(run_report, "write_text", lambda *_: failing(OSError(errno.ENOSPC, "full"))(None))
    run(tmp_path)
    assert (tmp_path / "report.html").exists() == writable
    if writable:
        page = (tmp_path / "report.html").read_text()
        assert "Finished after 3 epochs" in page
        assert "could not be drawn" in page


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("lightning"), OSError(errno.EIO, "the disk died")])
def test_a_run_that_ends_early_does_not_run(tmp_path, monkeypatch, error) -> None:
    """Also before its first step, when the page has just been written."""
    from tokenmix.train.reporter import Reporter

    monkeypatch.setattr(Reporter, "open", lambda *_: failing(error)(None))
    with pytest.raises(type(error)):
        run(tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "Stopped at epoch 0 of 3" in page
    assert "Running" not in page


# -------------------------------------------------------------------------------------------------------------- Ctrl-C


@pytest.mark.parametrize("name", ["train", "compare", "export", "models"])
def test_ctrl_c_during_an_import_is_a_line(name, monkeypatch, capsys) -> None:
    import importlib

    def interrupted(module: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib, "import_module", interrupted)
    assert main([name]) == 130
    assert capsys.readouterr().err.strip().count("\n") == 0


@pytest.mark.parametrize("wrapped", [None, RuntimeError("lost in C++"), ImportError("half a module")])
def test_ctrl_c_that_a_library_makes_another_error_of(wrapped, monkeypatch, capsys) -> None:
    def work(args) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise wrapped or KeyboardInterrupt from None

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(mixers_command, "run", work)
    monkeypatch.setattr(sys, "argv", ["tokenmix", "mixers"])
    try:
        with pytest.raises(SystemExit) as stop:
            program()
    finally:
        signal.signal(signal.SIGINT, before)
    assert stop.value.code == 130
    assert len(capsys.readouterr().err.strip().splitlines()) <= 1


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (KeyboardInterrupt(), 130, ""),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), 2, "out of memory"),
        (ModuleNotFoundError("No module named 'torch': install it"), 2, "No module named 'torch': install it"),
    ],
)
def test_what_happens_while_the_libraries_are_loaded_is_a_line(error, code, told, monkeypatch, capsys) -> None:
    class Finder:
        def find_spec(self, name, path=None, target=None):
            raise error

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.delitem(sys.modules, "tokenmix.cli")
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    monkeypatch.setattr(sys, "argv", ["tokenmix", "models"])
    try:
        with pytest.raises(SystemExit) as stop:
            program()
    finally:
        signal.signal(signal.SIGINT, before)
    assert stop.value.code == code
    assert capsys.readouterr().err == (f"tokenmix: error: {told}\n" if told else "")


# ---------------------------------------------------------------------------------------------------------- the server


@pytest.fixture
def serve(monkeypatch):
    """Starts a server of one page whose times are short."""
    started: list[PageServer] = []

    def start(**settings: float) -> PageServer:
        for name, value in settings.items():
            monkeypatch.setattr(web_server, name, value)
        started.append(PageServer({"index.html": b"x" * 5_000_000}))
        threading.Thread(target=started[-1].serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return started[-1]

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


def connect(server: PageServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.server_port), timeout=10)


def answer(server: PageServer) -> bytes:
    """The first line of the page's answer."""
    with connect(server) as connection:
        connection.sendall(f"GET / HTTP/1.1\r\nHost: localhost:{server.server_port}\r\n\r\n".encode())
        return connection.makefile("rb").readline()


def test_a_request_has_a_deadline_however_it_trickles(serve) -> None:
    server = serve(REQUEST_S=0.5)
    with connect(server) as connection:
        began = time.monotonic()
        with contextlib.suppress(ConnectionError):
            for _ in range(100):
                connection.sendall(b"G")
                time.sleep(0.05)
        assert 0.4 < time.monotonic() - began < 4
    assert answer(server) == b"HTTP/1.1 200 OK\r\n"


def test_an_answer_that_nobody_reads_has_a_deadline(serve) -> None:
    server = serve(ANSWER_S=0.4)
    with connect(server) as connection:
        connection.sendall(f"GET / HTTP/1.1\r\nHost: localhost:{server.server_port}\r\n\r\n".encode())
        assert connection.recv(10) == b"HTTP/1.1 2"
        deadline = time.monotonic() + 5
        while server.deadlines and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not server.deadlines


def test_only_so_many_connections_are_open(serve) -> None:
    server = serve(CONNECTIONS=2)
    with connect(server) as first, connect(server):
        deadline = time.monotonic() + 5
        while len(server.deadlines) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        with connect(server) as third, contextlib.suppress(ConnectionError):
            assert third.recv(1) == b""
        assert len(server.deadlines) == 2
        first.close()
        while len(server.deadlines) == 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert answer(server) == b"HTTP/1.1 200 OK\r\n"


def test_without_descriptors_it_waits_instead_of_spinning(serve, monkeypatch) -> None:
    server = serve()
    inner, calls, scarce = TCPServer.get_request, [], [True]

    def get_request(self):
        if scarce:
            calls.append(1)
            raise OSError(errno.EMFILE, "Too many open files")
        return inner(self)

    monkeypatch.setattr(TCPServer, "get_request", get_request)
    with connect(server) as connection:
        time.sleep(0.5)
        assert 1 <= len(calls) < 12
        scarce.clear()
        connection.sendall(f"GET / HTTP/1.1\r\nHost: localhost:{server.server_port}\r\n\r\n".encode())
        assert connection.recv(15) == b"HTTP/1.1 200 OK"


def test_without_threads_it_says_so_and_goes_on(serve, monkeypatch, capsys) -> None:
    server = serve()
    with monkeypatch.context() as patch:
        patch.setattr(
            ThreadingMixIn, "process_request", lambda *_: failing(RuntimeError("can't start new thread"))(None)
        )
        with connect(server) as connection, contextlib.suppress(ConnectionError):
            assert connection.recv(1) == b""
    assert answer(server) == b"HTTP/1.1 200 OK\r\n"
    assert capsys.readouterr().err.startswith("a request was not answered: the system lets this user start no more")


@pytest.mark.parametrize(
    "host",
    [
        *("localhost:{port}/evil.example", "localhost:{port}?x", "localhost:{port}#x", "local\thost:{port}"),
        *("localhost:{port} evil.example", "localhost:+{port}", "localhost:{port}_0", "localhost.:{port}"),
        *(
            "127.0.0.1:{port},evil.example",
            "[::1]evil.example:{port}",
            "127.1:{port}",
            "2130706433:{port}",
            "localhost:",
        ),
    ],
)
def test_odd_hosts_are_not_this_machine(serve, host) -> None:
    server = serve()
    assert server.server_address[0] == "127.0.0.1"
    assert not server.knows(host.format(port=server.server_port))
