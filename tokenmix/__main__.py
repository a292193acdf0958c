"""``python -m tokenmix`` is the command ``tokenmix``."""

from tokenmix_runtime.launch import program

program()
