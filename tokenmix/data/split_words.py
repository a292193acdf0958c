"""What people call the parts of a data set."""

from __future__ import annotations

import re

_WORDS = {
    "train": ("train", "training", "trainset", "trainingset", "traindata", "trainingdata", "trn"),
    "val": ("val", "valid", "validation", "valset", "validset", "validationset", "dev", "devset", "validationdata"),
    "test": ("test", "testing", "testset", "testingset", "testdata", "tst", "holdout"),
}
SPLIT_OF = {word: split for split, words in _WORDS.items() for word in words}
NAMES = "train (or training, training_set), val (valid, validation, dev) and test (testing, test_set)"


def split_of(name: str) -> str:
    """The split that a whole name means: ``"Training_Set"`` -> ``"train"``; ``""`` for none."""
    return SPLIT_OF.get(re.sub(r"[^a-z]", "", name.lower()), "")


def split_in(text: str) -> str:
    """The split that a name speaks of, ``"instances_val2017"`` -> ``"val"``; ``""`` for none."""
    if whole := split_of(text):
        return whole
    words = [SPLIT_OF[word] for word in re.split(r"[^a-z]+", text.lower()) if word in SPLIT_OF]
    return words[0] if words else ""
