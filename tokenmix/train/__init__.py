"""Training: one loop, from a recipe and a data set to the best weights."""

from tokenmix.callable_modules import make_callable
from tokenmix.train.checkpoint import load_run
from tokenmix.train.loop import Diverged, FitResult, Terminated, fit

__all__ = ["Diverged", "FitResult", "Terminated", "fit", "load_run"]

make_callable(__name__)
