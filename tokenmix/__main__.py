"""``python -m tokenmix`` is the command ``tokenmix``."""

import sys

try:
    from tokenmix.cli import program

    program()
except KeyboardInterrupt:  # before the command has begun
    sys.exit(130)
