"""Which label file belongs to which picture: those whose names match, wherever they lie."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath

from tokenmix.data.natural import same
from tokenmix.data.split_words import split_of

PICTURE_WORDS = ("images", "image", "imgs", "img", "jpegimages", "pictures", "photos", "leftimg8bit", "x")
LABEL_WORDS = (
    *("labels", "label", "masks", "mask", "annotations", "annotation", "annots", "ann", "gt", "groundtruth"),
    *("ground_truth", "segmentation", "segmentations", "segmentationclass", "segmentationobject", "targets", "y"),
)
_ENDS = ("_mask", "-mask", "_masks", "_label", "-label", "_labels", "_gt", "_seg", "_segmentation", "_annotation", "_l")


def stem(name: str) -> str:
    """A file's name without folder and ending, in one form of Unicode and small letters."""
    return same(PurePosixPath(name).stem).casefold()


def stems(name: str) -> tuple[str, ...]:
    """The only name of a picture that a label file can have which is called alike."""
    return (stem(name),)


def mask_stems(name: str) -> tuple[str, ...]:
    """The names of pictures that a mask can belong to: its own one, and that without an ending that says "mask"."""
    plain = stem(name)
    return (plain, *[plain.removesuffix(end) for end in _ENDS if plain.endswith(end) and plain != end][:1])


class Pairing:
    """Finds for pictures the label files of their name.

    Where several have that name, the one is taken whose folders are like the picture's but for words such as ``images``
    and ``labels``, and whose name is wholly the picture's, in the same case of letters.

    Attributes:
        taken: The label files that belong to pictures.
        doubts: What is not certain, (kind, picture): several files that fit equally well, or one that fits two.

    Args:
        files: The label files, relative to the data set's folder.
        keys: Of a label file's name what the `stem` of its picture can be.
    """

    def __init__(self, files: Iterable[str], keys: Callable[[str], Iterable[str]] = stems) -> None:
        self.by_stem: dict[str, list[str]] = defaultdict(list)
        for file in files:
            for key in keys(file):
                self.by_stem[key].append(file)
        self.taken: dict[str, str] = {}
        self.doubts: list[tuple[str, str]] = []

    def of(self, picture: str) -> str | None:
        """The label file of a picture, or None."""
        place = _plain_folders(picture)
        name = stem(picture)
        files = self.by_stem.get(name, ())
        found = [file for file in files if not _of_other_part(place, _plain_folders(file))]
        if not found or (len(found) == 1 and not _may_belong(place, _plain_folders(found[0]))):
            return None
        exact = same(PurePosixPath(picture).stem)
        ranks = {
            file: (
                *_likeness(place, _plain_folders(file)),
                stem(file) == name,
                exact in same(PurePosixPath(file).stem),
            )
            for file in found
        }
        best = max(found, key=ranks.__getitem__)
        owner = self.taken.setdefault(best, picture)
        if owner != picture:
            self.doubts.append((f"picture with the label file of another, {best}: used for both", picture))
        elif [file for file in found if ranks[file] == ranks[best] and file != best]:
            self.doubts.append((f"picture with several label files of its name: {best} is used", picture))
        return best

    def left(self) -> list[str]:
        """The label files that no picture has asked for."""
        files = dict.fromkeys(file for files in self.by_stem.values() for file in files)
        return [file for file in files if file not in self.taken]


def _plain_folders(file: str) -> tuple[str, ...]:
    """The folders of a file without those that only say whether it is a picture or a label."""
    words = [part.casefold() for part in PurePosixPath(file).parts[:-1]]
    plain = [_without_label_word(word) for word in words]
    return tuple(word for word in plain if word and word not in (*PICTURE_WORDS, *LABEL_WORDS))


def _without_label_word(word: str) -> str:
    """``"trainannot"`` -> ``"train"``, ``"train_labels"`` -> ``"train"``: as CamVid and others call them."""
    for end in sorted(("annot", *LABEL_WORDS, *PICTURE_WORDS), key=len, reverse=True):
        if len(end) > 1 and word.endswith(end) and word != end:
            return word.removesuffix(end).rstrip("_- ")
    return word


def _likeness(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[int, int]:
    shared = sum(1 for a, b in zip(reversed(one), reversed(other), strict=False) if a == b)
    return int(one == other), shared


def _of_other_part(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether folders say that these are of different parts, such as ``train`` and ``val``."""
    parts = [{part for word in words if (part := split_of(word))} for words in (one, other)]
    return all(parts) and not parts[0] & parts[1]


def _may_belong(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether folders do not say that these are of different places."""
    return one == other or not one or not other or set(one) & set(other) != set() or len(one) != len(other)
