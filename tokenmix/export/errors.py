"""What may go wrong with every format."""

from __future__ import annotations


class ExportError(ValueError):
    """The model could not be written in the wanted form; the message says what stands in the way.

    Examples:
        >>> issubclass(ExportError, ValueError)
        True
    """
