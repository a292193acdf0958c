"""Messages for names that a user got wrong."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def unknown(kind: str, name: object, known: Iterable[str]) -> str:
    """The message for an unknown name: what it is, the nearest right one, and the known ones.

    Args:
        kind: What the name should have been, for example ``"mixer"``.
        name: What the user wrote.
        known: The names that would have been right.
    """
    text = str(name)[:100]  # from a file it may have any length
    names = sorted(set(known))
    lower = {candidate.lower(): candidate for candidate in names}
    begun = sorted((name for name in lower if len(text) > 1 and name.startswith(text.lower())), key=len)
    close = begun[:1] or difflib.get_close_matches(text.lower(), lower, n=1, cutoff=0.5)
    hint = f"; did you mean {lower[close[0]]!r}?" if close else "."
    shown = ", ".join(names[:40]) + (", ..." if len(names) > 40 else "")
    return f"unknown {kind} {text!r}{hint} Known: {shown}"
