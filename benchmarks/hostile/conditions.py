"""Machines that are not kind, each with the expected end of a command on them."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hostile.sandbox import End
from hostile.stock import TRAIN, Stock

Disturb = Callable[[int], Any]


@dataclass(frozen=True)
class Condition:
    """A command on a machine that is not kind.

    Args:
        name: For ``--cases``.
        kind: Its group in the table.
        sentence: What it is, for the table.
        words: The command, from a folder for its output and the good files.
        set_up: Done in its process before it starts.
        disturb: Told its process number and folder while it runs.
        codes: The exit codes that are right.
        says: What it must say, in small letters.
        keeps: Whether it leaves what it has written; a command that could not start must not.
        seconds: How long it may take.
        outcome: What is then seen, for the table.
    """

    name: str
    kind: str
    sentence: str
    words: Callable[[Path, Stock], Sequence[str]]
    set_up: Callable[[], Any]
    disturb: Callable[[int, Path], Any]
    codes: tuple[int, ...]
    says: tuple[str, ...]
    keeps: bool
    seconds: float
    outcome: str


CONDITIONS: dict[str, Condition] = {}


def _nothing(*_: Any) -> None:
    """No disturbance."""


def condition(
    kind: str,
    name: str,
    sentence: str,
    words: Callable[[Path, Stock], Sequence[str]],
    *says: str,
    set_up: Callable[[], Any] = _nothing,
    disturb: Callable[[int, Path], Any] = _nothing,
    codes: tuple[int, ...] = (0,),
    keeps: bool = True,
    seconds: float = 30.0,
    outcome: str,
) -> None:
    """Register a condition."""
    assert name not in CONDITIONS, name
    CONDITIONS[name] = Condition(name, kind, sentence, words, set_up, disturb, codes, says, keeps, seconds, outcome)


def train(*more: str) -> Callable[[Path, Stock], list[str]]:
    """A short training."""
    return lambda folder, stock: [*TRAIN, "--data", str(stock.photos), "--out", str(folder / "out"), *more]


def predict(folder: Path, stock: Stock) -> list[str]:
    """The answer to one picture."""
    return ["predict", str(stock.picture()), "--model", str(stock.run), "--device", "cpu"]


def evaluate(folder: Path, stock: Stock) -> list[str]:
    """The judgement of a run, with a table of answers."""
    answers = ["--predictions", str(folder / "answers.csv")]
    return ["eval", str(stock.run), "--data", str(stock.photos), "--device", "cpu", *answers]


def export(folder: Path, stock: Stock) -> list[str]:
    """An ONNX file."""
    return ["export", str(stock.run), "--out", str(folder / "out.onnx")]


# ----------------------------------------------------------------------------------------------------------- streams

STREAMS = "Streams"
GOES_ON = "does its work as always"


def _close(*numbers: int) -> Callable[[], None]:
    names = {0: "stdin", 1: "stdout", 2: "stderr"}

    def set_up() -> None:
        for number in numbers:
            os.close(number)
            setattr(sys, names[number], None)  # as Python finds it at its start

    return set_up


for _name, _numbers in {"stdin": (0,), "stdout": (1,), "stderr": (2,), "all-streams": (0, 1, 2)}.items():
    _what = "all three streams" if len(_numbers) == 3 else _name
    condition(
        STREAMS,
        f"train-{_name}-closed",
        f"training with {_what} closed",
        train(),
        set_up=_close(*_numbers),
        outcome=GOES_ON,
    )
condition(STREAMS, "predict-stdout-closed", "`predict` with stdout closed", predict, set_up=_close(1), outcome=GOES_ON)
condition(
    STREAMS,
    "eval-all-closed",
    "`eval` with all three closed",
    evaluate,
    set_up=_close(0, 1, 2),
    outcome="its files are whole",
)


def _full() -> None:
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)


condition(STREAMS, "train-stdout-full", "training whose stdout has no room", train(), set_up=_full, outcome=GOES_ON)
condition(
    STREAMS,
    "eval-stdout-full",
    "`eval` whose stdout has no room",
    evaluate,
    set_up=_full,
    codes=(0, 2, 75),
    outcome="its files are whole",
)


def _reader_gone() -> None:
    reads, writes = os.pipe()
    os.close(reads)
    os.dup2(writes, 1)


condition(
    STREAMS,
    "train-reader-gone",
    "training whose reader has gone",
    train(),
    set_up=_reader_gone,
    codes=(0, 141),
    outcome=GOES_ON,
)
condition(
    STREAMS,
    "predict-reader-gone",
    "`predict | head` whose reader has gone",
    predict,
    set_up=_reader_gone,
    codes=(0, 141),
    outcome="ends quietly",
)


def _console(encoding: str) -> Callable[[], None]:
    def set_up() -> None:
        sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), encoding, errors="strict", line_buffering=True)
        sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), encoding, errors="backslashreplace")

    return set_up


for _encoding in ("cp1252", "ascii", "latin-1", "utf-16"):
    condition(
        STREAMS,
        f"predict-{_encoding}",
        f"`predict` on a console that is {_encoding}",
        predict,
        set_up=_console(_encoding),
        outcome="other characters where one is missing",
    )
condition(
    STREAMS, "train-ascii", "training on a console that is ASCII", train(), set_up=_console("ascii"), outcome=GOES_ON
)


# ------------------------------------------------------------------------------------------------------------ limits

LIMITS = "Limits"


def _limit(which: int, value: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(which, (value, value))


def _little_memory(megabytes: int) -> Callable[[], None]:
    def set_up() -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        value = pages * resource.getpagesize() + megabytes * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (value, value))

    return set_up


def _no_threads() -> None:
    import _thread

    def refuse(*_: Any, **__: Any) -> int:
        raise RuntimeError("can't start new thread")

    _thread.start_new_thread = refuse  # type: ignore[assignment]
    threading._start_new_thread = refuse  # type: ignore[attr-defined]
    if hasattr(threading, "_start_joinable_thread"):
        threading._start_joinable_thread = refuse


condition(
    LIMITS,
    "files-64-workers",
    "64 open files, two workers",
    train("--workers", "2"),
    set_up=_limit(resource.RLIMIT_NOFILE, 64),
    codes=(0, 2),
    outcome="works, or one line with `ulimit -n`",
)
condition(
    LIMITS,
    "files-16-workers",
    "16 open files, two workers",
    train("--workers", "2"),
    set_up=_limit(resource.RLIMIT_NOFILE, 16),
    codes=(0, 2, 75),
    outcome="works, or one line with `ulimit -n`",
)
condition(
    LIMITS,
    "memory-train",
    "300 MB for a batch of gigabytes",
    lambda folder, stock: [*train()(folder, stock), "image_size=1024", "batch_size=16"],
    "batch_size",
    set_up=_little_memory(300),
    codes=(2,),
    outcome="one line with batch size, image size and what would fit",
)
condition(
    LIMITS,
    "memory-eval",
    "`eval` of large pictures in 300 MB",
    lambda folder, stock: [*evaluate(folder, stock), "--image-size", "2048", "--batch-size", "16"],
    "batch",
    set_up=_little_memory(300),
    codes=(2,),
    outcome="one line with the remedy",
)
condition(
    LIMITS,
    "no-threads-train",
    "no new thread may start",
    train(),
    set_up=_no_threads,
    codes=(0, 2),
    outcome="goes on without, or one line",
)
condition(
    LIMITS,
    "no-threads-check",
    "`data check` without threads",
    lambda folder, stock: ["data", "check", str(stock.photos)],
    set_up=_no_threads,
    codes=(0, 2, 3),
    outcome="goes on without, or one line",
)
condition(
    LIMITS,
    "file-size",
    "no file above 20 kB",
    train(),
    set_up=_limit(resource.RLIMIT_FSIZE, 20_000),
    codes=(2, 75),
    outcome="stops with the reason",
)
condition(
    LIMITS,
    "one-core",
    "one processor core",
    train(),
    set_up=lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}),
    outcome=GOES_ON,
)


# ----------------------------------------------------------------------------------------------------------- folders

FOLDERS = "Folders"
ONE_LINE = "one line that names it; nothing is left behind"


def _out(place: Callable[[Path], str]) -> Callable[[Path, Stock], list[str]]:
    return lambda folder, stock: [*TRAIN, "--data", str(stock.photos), "--out", place(folder)]


def _file_there(folder: Path) -> str:
    (folder / "there").write_text("a file")
    return str(folder / "there")


def _loop(folder: Path) -> str:
    (folder / "loop").symlink_to("loop")
    return str(folder / "loop")


for _name, _sentence, _place in (
    ("out-is-file", "the output is a file", _file_there),
    ("out-in-file", "the output lies in a file", lambda folder: _file_there(folder) + "/run"),
    ("out-loop", "the output is a link to itself", _loop),
    ("out-proc", "the output lies where nothing can be made", lambda folder: "/proc/tokenmix"),
    ("out-long", "the output's name has 300 letters", lambda folder: str(folder / ("x" * 300))),
):
    condition(FOLDERS, _name, _sentence, _out(_place), codes=(2,), keeps=False, outcome=ONE_LINE)


def _cwd_gone() -> None:
    place = Path("gone").absolute()
    place.mkdir()
    os.chdir(place)
    place.rmdir()


condition(
    FOLDERS,
    "cwd-gone",
    "the current folder has been removed",
    train(),
    set_up=_cwd_gone,
    codes=(0, 2),
    outcome="works, or one line",
)
condition(
    FOLDERS,
    "predict-cwd-gone",
    "`predict` in a folder that has been removed",
    predict,
    set_up=_cwd_gone,
    codes=(0, 2),
    outcome="works, or one line",
)


def _no_home() -> None:
    for name in ("HOME", "USER", "XDG_CACHE_HOME", "LOGNAME"):
        os.environ.pop(name, None)
    os.environ["HOME"] = "/nonexistent"


condition(FOLDERS, "no-home", "there is no home folder", train(), set_up=_no_home, outcome=GOES_ON)


def _no_temporary() -> None:
    import tempfile

    os.environ["TMPDIR"] = "/nonexistent"
    tempfile.tempdir = None


condition(FOLDERS, "no-tmpdir", "TMPDIR does not exist", export, set_up=_no_temporary, outcome=GOES_ON)


# ----------------------------------------------------------------------------------------------------------- signals

SIGNALS = "Signals"
LONG = ("epochs=2000",)


def _when_training(number: int, times: int = 1) -> Callable[[int, Path], None]:
    """Send a signal once the run has trained."""

    def disturb(pid: int, folder: Path) -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and not list((folder / "out" / "checkpoints").glob("*")):
            time.sleep(0.05)
        for _ in range(times):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            time.sleep(0.2)

    return disturb


def _long(*more: str) -> Callable[[Path, Stock], list[str]]:
    return lambda folder, stock: [*train(*more)(folder, stock), *LONG]


SAVED = "obeyed within seconds, what was trained is saved"
condition(
    SIGNALS,
    "sigterm",
    "SIGTERM in training",
    _long(),
    disturb=_when_training(signal.SIGTERM),
    codes=(143,),
    outcome=SAVED,
)
condition(
    SIGNALS, "sigint", "SIGINT in training", _long(), disturb=_when_training(signal.SIGINT), codes=(130,), outcome=SAVED
)
condition(
    SIGNALS,
    "sigterm-workers",
    "SIGTERM in training with workers",
    _long("--workers", "1"),
    disturb=_when_training(signal.SIGTERM),
    codes=(143,),
    outcome=SAVED,
)
condition(
    SIGNALS,
    "sighup",
    "the terminal goes away (SIGHUP)",
    _long(),
    disturb=_when_training(signal.SIGHUP),
    codes=(129, -1, 143),
    outcome="ends; the same command continues",
)
condition(
    SIGNALS,
    "sigterm-twice",
    "SIGTERM twice",
    _long(),
    disturb=_when_training(signal.SIGTERM, 2),
    codes=(143,),
    outcome=SAVED,
)


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _stall(pid: int, folder: Path) -> None:
    """Stop the worker, so that nothing comes, and then ask for the end."""
    _when_training(0)(pid, folder)
    for child in _children(pid):
        os.kill(child, signal.SIGSTOP)
    time.sleep(2)
    os.kill(pid, signal.SIGTERM)


condition(
    SIGNALS,
    "sigterm-while-stalled",
    "SIGTERM while a worker gives nothing",
    _long("--workers", "1"),
    disturb=_stall,
    codes=(143,),
    seconds=45,
    outcome=SAVED,
)


def _kill_worker(pid: int, folder: Path) -> None:
    _when_training(0)(pid, folder)
    for child in _children(pid):
        os.kill(child, signal.SIGKILL)


condition(
    SIGNALS,
    "worker-killed",
    "a worker is killed",
    _long("--workers", "1"),
    "worker",
    disturb=_kill_worker,
    codes=(75,),
    outcome="says so; the same command continues",
)


# ----------------------------------------------------------------------------------------------------------- numbers

NUMBERS = "Numbers beyond reason"
AT_ONCE = "refused at once with what is allowed"

_COMPARE = ("compare", "--mixers", "identity", "--recipe", "basic")


def _number(name: str, sentence: str, says: str, words: Callable[[Path, Stock], Sequence[str]]) -> None:
    condition(NUMBERS, name, sentence, words, says, codes=(2,), keeps=False, seconds=10, outcome=AT_ONCE)


_number("workers", "`--workers 2147483648`", "workers", train("--workers", "2147483648"))
_number("epochs", "`epochs=1e23`", "epochs", train("epochs=1e23"))
_number("image-size", "`image_size=100000`", "image_size", train("image_size=100000"))
_number("batch-size", "`batch_size=1000000000000`", "batch_size", train("batch_size=1000000000000"))
_number("lr-infinite", "`lr=inf`", "lr", train("lr=inf"))
_number("keep", "`--keep -1`", "keep", train("--keep", "-1"))
_number("checkpoint-seconds", "`--checkpoint-seconds nan`", "checkpoint", train("--checkpoint-seconds", "nan"))
_number("timeout", "`--timeout -5`", "timeout", train("--timeout", "-5"))
_number("export-size", "`export --image-size 100000`", "image", lambda f, s: [*export(f, s), "--image-size", "100000"])
_number("eval-size", "`eval --image-size 100000`", "image", lambda f, s: [*evaluate(f, s), "--image-size", "100000"])
_number(
    "eval-batch", "`eval --batch-size 10^15`", "batch", lambda f, s: [*evaluate(f, s), "--batch-size", "1" + "0" * 15]
)
_number("eval-workers", "`eval --workers 10^9`", "workers", lambda f, s: [*evaluate(f, s), "--workers", "1" + "0" * 9])
_number("predict-top", "`predict --top 0`", "top", lambda f, s: [*predict(f, s), "--top", "0"])
_number(
    "bench-batch",
    "`bench --batch 10^12`",
    "batch",
    lambda f, s: ["bench", "mixernet_pico", "--quick", "--batch", "1" + "0" * 12],
)
_number(
    "bench-threads",
    "`bench --threads 10^6`",
    "threads",
    lambda f, s: ["bench", "mixernet_pico", "--quick", "--threads", "1000000"],
)
_number("web-port", "`web --port 99999`", "port", lambda f, s: ["web", str(s.onnx), "--port", "99999"])
_number(
    "compare-seeds",
    "`compare --seeds 10^9`",
    "seeds",
    lambda f, s: [*_COMPARE, "--data", str(s.photos), "--out", str(f / "out"), "--seeds", "1" + "0" * 9],
)
_number("digits-4300", "an integer of 5,000 digits", "batch_size", train("batch_size=" + "9" * 5000))


# ------------------------------------------------------------------------------------------------- cannot even start

START = "A run that cannot start"


def _start(name: str, sentence: str, words: Callable[[Path, Stock], Sequence[str]], *says: str) -> None:
    condition(
        START, name, sentence, words, *says, codes=(2,), keeps=False, outcome="one line, and no file is left behind"
    )


def _data(where: str) -> Callable[[Path, Stock], list[str]]:
    return lambda folder, stock: [*TRAIN, "--data", str(folder / where), "--out", str(folder / "out")]


_start("no-data", "training on a folder that does not exist", _data("nowhere"), "nowhere")
_start("no-model", "training a model that does not exist", train("model=mixernet_piko"), "mixernet_pico")
_start("no-mixer", "training a mixer that does not exist", train("model_args.mixers=afff"), "aff")
_start("no-weights", "starting from weights that do not exist", train("weights=nowhere.pth"), "nowhere.pth")
_start(
    "compare-no-mixer",
    "comparing a mixer that does not exist",
    lambda f, s: ["compare", str(s.photos), "--mixers", "afff", "--out", str(f / "out")],
    "aff",
)
_start(
    "compare-no-data",
    "comparing on nothing",
    lambda f, s: ["compare", str(f / "nowhere"), "--out", str(f / "out")],
    "nowhere",
)
_start(
    "sweep-bad-value",
    "a sweep with a value that the recipe refuses",
    lambda f, s: ["sweep", "basic", "--data", str(s.photos), "--over", "batch_size=0,1", "--out", str(f / "out")],
    "batch_size",
)
_start(
    "export-no-calibration",
    "int8 with a calibration folder that does not exist",
    lambda f, s: [*export(f, s), "--precision", "int8", "--calibration", str(f / "nowhere")],
    "nowhere",
)
_start("track-unknown", "following by a tracker that does not exist", train("--track", "tensorbord"), "tensorboard")


# -------------------------------------------------------------------------------------------------------- web server

SERVER = "Web server"


def _free_port() -> int:
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        return int(own.getsockname()[1])


def _serve(port: int) -> Callable[[Path, Stock], list[str]]:
    return lambda folder, stock: ["web", str(stock.onnx), "--port", str(port)]


def _ask(port: int, text: bytes, patience: float = 5.0) -> bytes:
    """Send this to the server once it listens; what it answers."""
    deadline = time.monotonic() + 15
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=patience) as own:
                own.sendall(text)
                return own.recv(4096)
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        except OSError as error:
            if error.errno not in (errno.ECONNRESET, errno.EPIPE, None):
                raise
            return b""


def _page(port: int) -> bytes:
    """A browser's request."""
    return b"GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: close\r\n\r\n" % port


def _client(name: str, sentence: str, outcome: str, visit: Callable[[int, int], bool]) -> None:
    """Register: a client that behaves badly, and then one that asks for the page, which it must get."""
    port = _free_port()

    def disturb(pid: int, folder: Path) -> None:
        good = visit(port, pid)
        again = _ask(port, _page(port))
        (folder / "good").write_text(str(good and again.startswith((b"HTTP/1.0 200", b"HTTP/1.1 200"))))
        os.kill(pid, signal.SIGINT)

    condition(SERVER, name, sentence, _serve(port), disturb=disturb, codes=(0, 130), seconds=60, outcome=outcome)


def _odd_host(host: bytes) -> Callable[[int, int], bool]:
    return lambda port, pid: b" 4" in _ask(port, b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")[:14]


_client("host-strange", "a `Host` header of another site", "refused", _odd_host(b"evil.example"))
_client("host-rebound", "a `Host` header with a port of another site", "refused", _odd_host(b"evil.example:8710"))


def _slow(port: int, pid: int) -> bool:
    """Twenty connections that never finish their request."""
    _ask(port, _page(port))
    slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
    for own in slow:
        own.sendall(b"GET / HTTP/1.1\r\nX: ")
    time.sleep(1)
    good = _ask(port, _page(port)).startswith(b"HTTP/")
    for own in slow:
        own.close()
    return good


_client("slow-requests", "twenty requests that never end", "others are answered", _slow)


def _above(port: int, pid: int) -> bool:
    answer = _ask(port, b"GET /../../../../etc/hostname HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % port)
    return b" 4" in answer[:14] or b" 200" not in answer[:14]


_client("path-above", "a path above the page's folder", "refused", _above)
_client(
    "garbage",
    "bytes that are no request",
    "the next one is answered",
    lambda port, pid: bool(_ask(port, b"\x00\xff\r\n\r\n")) or True,
)


def judge(case: Condition, end: End, folder: Path) -> str:
    """Why a command did not end as it must; ``""`` if it did."""
    if "Traceback (most recent call last)" in end.text:
        return "a traceback"
    if end.seconds > case.seconds:
        return "it hung"
    if end.code not in case.codes:
        return f"exit code {end.code}, not {' or '.join(map(str, case.codes))}"
    low = end.text.lower()
    if missing := [word for word in case.says if word.lower() not in low]:
        return f"it does not say {missing[0]!r}"
    if not case.keeps and (left := sorted(path.name for path in folder.iterdir() if path.name.startswith("out"))):
        return f"it left {left[0]} behind"
    good = folder / "good"
    if good.exists() and good.read_text() != "True":
        return "the server did not answer as it must"
    if end.code == 0 and "train" in case.name and not (folder / "out" / "best.safetensors").is_file():
        return "it ended without its result"
    if case.name.startswith("eval") and end.code == 0 and not (folder / "answers.csv").is_file():
        return "its answers are lost"
    return ""
