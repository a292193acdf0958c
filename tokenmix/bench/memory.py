"""Peak memory of inference or training, each measurement in a process of its own."""

from __future__ import annotations

# Everything that measuring needs is imported here: an import later on would be charged to the model.
import contextlib
import ctypes
import gc
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file

from tokenmix.backbones.reparameterize import reparameterize
from tokenmix.bench.training import training_step
from tokenmix.checkpoints import open_model
from tokenmix.export.extras import require
from tokenmix.export.onnx_file import onnx_session
from tokenmix.safety import is_trusted, named_code, permit_code, trusting
from tokenmix.tasks import DEFAULT_TASK, Task, find_task


def peak_memory_mb(
    model: str | os.PathLike[str],
    *,
    image_size: int | tuple[int, int] | None = None,
    batch_size: int = 1,
    model_args: Mapping[str, Any] | None = None,
    weights: str | os.PathLike[str] | None = None,
    device: str = "cpu",
    in_chans: int = 3,
    threads: int | None = None,
    runs: int = 3,
    training: bool = False,
    timeout: float = 600.0,
) -> float:
    """Memory that a model takes while it runs, in MB (1e6 bytes).

    On the CPU: a new process imports the libraries, runs one tiny operation of each kind so that their own start-up is
    not charged, and notes its resident size. It then loads the model, forgets what only loading needed, and runs it;
    the result is the peak resident size from then on less the size noted before: weights, activations, scratch, input.
    On a GPU: the peak of memory that PyTorch allocated, weights and input included.

    Args:
        model: A name for `timm.create_model` or a file or folder for `tokenmix.checkpoints.open_model` (both measured
            re-parameterised), or the path of a ``.onnx`` file (measured in ONNX Runtime, CPU only).
        image_size: Height and width in pixels, or one number for both; of a file or folder None is its own.
        batch_size: Images per run.
        model_args: Keywords for `timm.create_model`; plain values.
        weights: A ``.safetensors`` file or a state dict saved by `torch.save`. Weights do not change the memory, but
            they may change the model, for example through its number of classes: a mismatch is an error.
        device: ``"cpu"`` or a CUDA device.
        in_chans: Channels of the input.
        threads: Of the runtime; as PyTorch is set in this process by default.
        runs: Forward passes; the first one allocates most.
        training: Measure whole training steps of the model as it is trained, see `tokenmix.bench.training`.
        timeout: Seconds to wait for the process.

    Raises:
        ValueError: The model cannot be built, loaded or run; the message is the process's own.

    Examples:
        >>> peak_memory_mb("mixernet_pico", image_size=224)  # doctest: +SKIP
        46.788608
    """
    job = {
        "model": os.fspath(model),
        "size": [image_size, image_size] if isinstance(image_size, int) else image_size,
        "batch_size": batch_size,
        "model_args": dict(model_args or {}),
        "weights": None if weights is None else os.fspath(weights),
        "device": device,
        "in_chans": in_chans,
        "threads": threads or torch.get_num_threads(),
        "runs": runs,
        "training": training,
        "trust": is_trusted(),
        "named": named_code(),
    }
    # The process finds what this one finds, a user's own mixers included.
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path),
        "OMP_NUM_THREADS": str(job["threads"]),
    }
    try:
        done = subprocess.run(
            [sys.executable, "-c", "from tokenmix.bench.memory import main; main()"],
            input=json.dumps(job),
            capture_output=True,
            text=True,
            env=environment,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"peak memory of {job['model']} could not be measured in {timeout:g} s") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        reason = lines[-1] if lines else f"the process ended with status {done.returncode} (out of memory?)"
        raise ValueError(f"peak memory of {job['model']} could not be measured: {reason}")
    return float(json.loads(done.stdout.splitlines()[-1])["peak_mb"])


def main() -> None:
    """The measuring process: one job as JSON on standard input, its result as JSON on standard output."""
    try:
        job = json.load(sys.stdin)
        torch.set_num_threads(job["threads"])
        with contextlib.nullcontext() if job["training"] else torch.inference_mode():
            peak = _measure_onnx(job) if job["model"].endswith(".onnx") else _measure_torch(job)
        print(json.dumps({"peak_mb": peak / 1e6}))
    except Exception as error:
        # The parent shows the last line only.
        sys.exit(f"{type(error).__name__}: {' '.join(str(error).split())}")


def _measure_torch(job: Mapping[str, Any]) -> int:
    device = torch.device(job["device"])
    _start_libraries()
    idle = start_peak()
    task, net, image = _build(job)
    net, image = net.to(device), image.to(device)
    start_peak()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    call = training_step(task, net, image) if job["training"] else lambda: net(image)
    for _ in range(job["runs"]):
        call()
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else resident_peak() - idle


def _measure_onnx(job: Mapping[str, Any]) -> int:
    require("onnxruntime")
    idle = start_peak()
    session = onnx_session(job["model"], job["threads"])
    feed = {session.get_inputs()[0].name: _image(job).numpy()}
    start_peak()
    for _ in range(job["runs"]):
        session.run(None, feed)
    return resident_peak() - idle


def _image(job: Mapping[str, Any]) -> torch.Tensor:
    shape = (job["batch_size"], job["in_chans"], *job["size"])
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _build(job: Mapping[str, Any]) -> tuple[Task, torch.nn.Module, torch.Tensor]:
    """A job's task, model and inputs."""
    for name in job["named"]:
        permit_code(name)
    with trusting(job["trust"]):
        return _built(job)


def _built(job: Mapping[str, Any]) -> tuple[Task, torch.nn.Module, torch.Tensor]:
    if os.path.exists(job["model"]):
        loaded = open_model(job["model"], **job["model_args"])
        task = find_task(loaded.task)
        net = task.raw_form(loaded.model)
        image = task.example_inputs(loaded, job["batch_size"], job["size"])
    else:
        task, net, image = find_task(DEFAULT_TASK), timm.create_model(job["model"], **job["model_args"]), _image(job)
    if job["weights"] is not None:
        if job["weights"].endswith(".safetensors"):
            state = load_file(job["weights"])
        else:
            state = torch.load(job["weights"], map_location="cpu", weights_only=True)
        net.load_state_dict(state)
    return task, net.train() if job["training"] else reparameterize(net.eval()), image


def _start_libraries() -> None:
    """One tiny convolution, matrix product and Fourier transform: each loads a library of its own."""
    x = torch.randn(1, 8, 8, 8)
    torch.nn.functional.conv2d(x, torch.randn(8, 8, 3, 3))
    torch.fft.irfft2(torch.fft.rfft2(x @ x))


def start_peak() -> int:
    """Give freed memory back and start a new peak; returns the resident size in bytes to subtract later."""
    gc.collect()
    if sys.platform == "linux":
        # glibc keeps freed memory, and a model could live in it unseen.
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
        try:
            Path("/proc/self/clear_refs").write_text("5")
            return _status("VmRSS")
        except OSError:  # some containers forbid it: then growth over the old peak is all that can be seen
            pass
    return resident_peak()


def resident_peak() -> int:
    """Peak resident size in bytes."""
    if sys.platform == "linux":
        return _status("VmHWM")
    try:
        import resource
    except ImportError:
        raise RuntimeError(f"the peak memory of a process cannot be asked for on {sys.platform}") from None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {field}")
