"""``python -m tokenmix`` is the command ``tokenmix``."""

import sys

from tokenmix.cli import main

sys.exit(main())
