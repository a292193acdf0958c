"""What a data set is, whatever its path is called: each sample's name, content and answer, and the part it is in.

A run stores it, so that it knows its data again, says what has changed of them, and never mistakes what it has learnt
from for what it has not.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenmix.data.dataset import DataSet
from tokenmix.data.inventory import summary

PARTS = ("train", "val", "test")
MOST_WITH_WEIGHTS = 50_000  # samples of which the weights' file holds 11 letters each
MOST_NAMED = 200_000  # samples of which each is stored; of larger sets only the parts' digests


@dataclass(frozen=True)
class DataIdentity:
    """What a data set was when a run learnt from it.

    Attributes:
        names: Of each part's samples.
        contents: 64 bits of each sample's content, by part.
        answers: A short text of each sample's answer, by part.
        facts: Of the data set.
    """

    names: Mapping[str, Sequence[str]]
    contents: Mapping[str, NDArray[np.uint64]]
    answers: Mapping[str, Sequence[str]]
    facts: Mapping[str, Any]

    @classmethod
    def of(cls, data: DataSet) -> DataIdentity:
        """Look at every sample of a data set; pictures in files are not decoded."""
        sets = {part: getattr(data, part) for part in PARTS}
        return cls(
            {part: one.names for part, one in sets.items()},
            {part: one.contents() for part, one in sets.items()},
            {part: one.answers() for part, one in sets.items()},
            data.facts,
        )

    @property
    def fingerprint(self) -> str:
        """One hash of all: equal for equal names, contents, answers and parts in any order of files."""
        digest = hashlib.sha256(repr(sorted(self.facts.items())).encode("utf-8", "surrogateescape"))
        for part in PARTS:
            rows = zip(self.names[part], self.contents[part].tolist(), self.answers[part], strict=True)
            for name, content, answer in sorted(rows):
                digest.update(f"{part}\0{name}\0{content}\0{answer}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def brief(self) -> dict[str, Any]:
        """What is stored with the weights: the fingerprint, and the contents by part where they are not too many."""
        few = sum(map(len, self.names.values())) <= MOST_WITH_WEIGHTS
        return {
            "fingerprint": self.fingerprint,
            "parts": {part: {"contents": _coded(self.contents[part])} for part in PARTS} if few else {},
        }

    def to_json(self) -> dict[str, Any]:
        """As JSON values; `from_json` reads them."""
        parts = {}
        for part in PARTS:
            known = len(self.names[part]) <= MOST_NAMED
            parts[part] = {
                "samples": len(self.names[part]),
                "names": list(self.names[part]) if known else None,
                "answers": list(self.answers[part]) if known else None,
                "contents": _coded(self.contents[part]) if known else None,
            }
        return {"fingerprint": self.fingerprint, "facts": dict(self.facts), "parts": parts}


def _coded(contents: NDArray[np.uint64]) -> str:
    return base64.b64encode(contents.astype("<u8").tobytes()).decode()


def changes(before: Mapping[str, Any], now: DataIdentity) -> list[str]:
    """In words, what is other than in the identity that `DataIdentity.to_json` wrote; nothing if it is the same."""
    if before.get("fingerprint") == now.fingerprint:
        return []
    told = [
        f"{name}: {before['facts'].get(name)} -> {value}"
        for name, value in now.facts.items()
        if before.get("facts", {}).get(name) != value
    ]
    old = {name: row for part in PARTS for name, *row in _rows(before, part)}
    new: dict[str, list[Any]] = {}
    for part in PARTS:
        rows = zip(now.names[part], now.contents[part].tolist(), now.answers[part], strict=True)
        new |= {name: [part, content, answer] for name, content, answer in rows}
    if not old:
        return told or ["its samples differ"]
    kinds = {
        "added": [name for name in new if name not in old],
        "gone": [name for name in old if name not in new],
        "with other content": [name for name in new if name in old and old[name][1] != new[name][1]],
        "with another answer": [name for name in new if name in old and old[name][2] != new[name][2]],
        "in another part": [name for name in new if name in old and old[name][0] != new[name][0]],
    }
    return told + [f"{len(names):,} {kind}: {summary(names)}" for kind, names in kinds.items() if names]


def _rows(stored: Mapping[str, Any], part: str) -> list[tuple[str, str, int, str]]:
    """(name, part, content, answer) of each sample that is stored."""
    kept = stored.get("parts", {}).get(part, {})
    if not kept or kept.get("names") is None:
        return []
    contents = stored_contents(stored, part).tolist()
    return [(n, part, c, a) for n, c, a in zip(kept["names"], contents, kept["answers"], strict=True)]


def stored_contents(stored: Mapping[str, Any], part: str) -> NDArray[np.uint64]:
    """The contents of a part of a stored identity, (N,); empty where they are not stored."""
    text = stored.get("parts", {}).get(part, {}).get("contents")
    return np.frombuffer(base64.b64decode(text or ""), "<u8").astype(np.uint64)
