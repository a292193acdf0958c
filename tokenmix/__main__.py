"""``python -m tokenmix`` is the command ``tokenmix``."""

import sys

try:
    from tokenmix_runtime.launch import program

    program()
except KeyboardInterrupt:  # before the command has begun
    sys.exit(130)
