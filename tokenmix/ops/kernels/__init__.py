"""Chains of operations that wait for the memory of a GPU, each as a few Triton kernels.

One file per chain: its PyTorch form, which is the definition, and a function that takes the kernels where they can run
(`tokenmix.ops.kernels.rule`) and the PyTorch form everywhere else. The kernels themselves are in ``*_triton.py``, the
only files that import triton, and are imported when they first run.
"""
