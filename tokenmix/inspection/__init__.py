"""Looking inside networks: pictures of what runs, see `tokenmix.inspection.main.inspect`."""

from tokenmix.inspection.main import inspect
from tokenmix.inspection.spectra import dynamic_kernel

__all__ = ["dynamic_kernel", "inspect"]
