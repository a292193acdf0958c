"""How the runtimes that models are measured in are called in prose."""

from __future__ import annotations

RUNTIME_NAMES = {
    "pytorch": "PyTorch",
    "channels_last": "PyTorch, channels last",
    "reparameterized": "PyTorch, merged",
    "compile": "torch.compile",
    "frozen": "torch.compile, frozen",
    "aoti": "AOTInductor",
    "cuda_graph": "CUDA graph",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "executorch": "ExecuTorch",
}


def runtime_name(runtime: str) -> str:
    """How a runtime is written in prose; one that nobody named is written as it is."""
    return RUNTIME_NAMES.get(runtime, runtime)
