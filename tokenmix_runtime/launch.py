"""How the command ``tokenmix`` starts: with what must be settled before torch is loaded, which takes seconds."""

from __future__ import annotations

import math
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from tokenmix_runtime.commands import first_answer
from tokenmix_runtime.console import steady_streams
from tokenmix_runtime.cores import cpu_quota, usable_cores
from tokenmix_runtime.environment import version
from tokenmix_runtime.shortage import shortage
from tokenmix_runtime.terminal import say


def program() -> NoReturn:
    """The command ``tokenmix`` as the system starts it: `tokenmix.cli.main`, where Ctrl-C never shows more than a line.

    What is missing to load the libraries is told in a line too.
    """
    came = False

    def note(*_: Any) -> NoReturn:
        nonlocal came
        came = True
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, note)
    try:
        limit_threads()
        code = _run()
    except KeyboardInterrupt:  # before the command has begun, or the second one
        code = 130
    except Exception:
        if not came:  # else some library made another error of it
            raise
        code = 130
    code = 130 if came else code
    if came:
        signal.signal(signal.SIGINT, lambda *_: os._exit(code))  # what is left to do is Python's own
    sys.exit(code)


def _run() -> int:
    """The exit code of `tokenmix.cli.main`, which is not even imported for a first word that is no command."""
    if (code := _answered(sys.argv[1] if len(sys.argv) > 1 else "")) is not None:
        return code
    try:
        from tokenmix.cli import main
    except (ImportError, MemoryError, OSError, RuntimeError) as error:
        lack = shortage(error)
        if sys.argv[1:2] == ["env"]:
            from tokenmix_runtime.environment import main as facts

            return facts(sys.argv[2:])
        if lack is None and not isinstance(error, ModuleNotFoundError):
            raise
        if lack is None and (words := without_torch(sys.argv[1:])):
            from tokenmix_runtime.__main__ import main as answer

            return answer(words)
        print(f"tokenmix: error: {lack or error}", file=sys.stderr)
        return 2
    return main()


def _answered(name: str) -> int | None:
    """The exit code of what needs no command; None where a command is needed, or tokenmix is not installed."""
    own = version("tokenmix")
    if own is None or (answer := first_answer(name, own)) is None:
        return None
    text, code = answer
    with steady_streams(needed=False) as output:
        say(text, file=sys.stderr if code and name else sys.stdout)
    return code if output.error is None else 141 if isinstance(output.error, BrokenPipeError) else 2


def without_torch(words: Sequence[str]) -> list[str]:
    """The words of ``tokenmix predict`` for the run-time, which needs no torch, if they name an exported model.

    Nothing where they ask for what the run-time cannot do.
    """
    if not words or words[0] != "predict" or "--model" not in words:
        return []
    rest = list(words[1:])
    place = rest.index("--model")
    model, rest = rest[place + 1 : place + 2], rest[:place] + rest[place + 2 :]
    known = {"--json", "--top"}
    if not model or not model[0].endswith(".onnx") or any(w.startswith("--") and w not in known for w in rest):
        return []
    return [*model, *rest]


def limit_threads() -> None:
    """Let PyTorch and its children take no more threads than a container's CPU quota pays for, if nobody chose."""
    if "OMP_NUM_THREADS" in os.environ or not math.isfinite(cpu_quota()):
        return
    os.environ["OMP_NUM_THREADS"] = str(usable_cores())
    if torch := sys.modules.get("torch"):  # which has looked there already
        torch.set_num_threads(usable_cores())
