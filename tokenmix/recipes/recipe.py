"""The recipe: every number that decides how a model is trained, checked, printable, and the same thing as JSON."""

from __future__ import annotations

import ast
import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from tokenmix.data.transforms import AUGMENTS
from tokenmix.names import unknown
from tokenmix.tasks import TASKS

SCHEMA = "tokenmix.recipe/1"
OPTIMIZERS = ("adamw", "sgd")
SCHEDULES = ("cosine", "linear", "constant")
PRECISIONS = ("float32", "bfloat16")
NOTES = ("source", "expect")  # words about the recipe: they change nothing about the run
RESERVED = {  # model arguments that have a place of their own
    "num_classes": "it comes from the data",
    "drop_rate": "set the recipe key drop_rate",
    "drop_path_rate": "set the recipe key drop_path_rate",
}
NAMES = {int: "a whole number", float: "a number", str: "text", bool: "True or False"}


def _rule(words: str, holds: Callable[[Any], bool]) -> dict[str, Any]:
    return {"words": words, "holds": holds}


def _choice(names: Iterable[str]) -> dict[str, Any]:
    return {"choices": tuple(names)}


_POSITIVE = _rule("above 0", lambda value: value > 0)
_NOT_NEGATIVE = _rule("0 or more", lambda value: value >= 0)
_RATE = _rule("at least 0 and below 1", lambda value: 0 <= value < 1)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train: immutable, compared by value; a variant is ``dataclasses.replace`` or ``override``.

    Whole numbers are accepted for numbers, lists for tuples, and stored as what the field says, so that a recipe that
    went through JSON equals the one that did not.

    Args:
        source: Where the numbers come from: paper and section, repository, commit.
        expect: What a faithful run reaches, and what it costs.
        model: A name for ``timm.create_model``, ours included.
        model_args: Further arguments for it; JSON values only, tuples become lists.
        task: A name in ``tokenmix.tasks.TASKS``.
        data: What ``tokenmix.data.load_data`` takes.
        image_size: (height, width) of the images in pixels, in training and evaluation; one number means a square, None
            the data set's own.
        batch_size: Images per optimiser step, over all processes; never rescaled silently.
        epochs: Passes over the training images; a fraction stops within one.
        warmup_epochs: Epochs in which the learning rate rises linearly; part of ``epochs``.
        optimizer: ``adamw`` or ``sgd`` (with Nesterov momentum).
        lr: Peak learning rate.
        min_lr: Last learning rate of the cosine and linear schedules.
        schedule: ``cosine``, ``linear`` or ``constant``.
        weight_decay: Not applied to biases, norms, layer scales and what the model's ``no_weight_decay()`` names.
        betas: AdamW's two decay rates.
        momentum: SGD's.
        label_smoothing: Share of each label spread over all classes.
        drop_rate: Dropout before the classifier; None leaves the model's own default.
        drop_path_rate: Stochastic depth; None leaves the model's own default.
        clip_grad: Largest norm of all gradients together; None does not clip.
        ema_decay: Decay per step of the averaged weights, which are then the ones evaluated and kept; None keeps none.
        augment: ``none``, ``light`` or ``standard``, see ``tokenmix.data.transforms``.
        precision: ``float32``, or ``bfloat16`` autocast in training; evaluation is always float32.
        channels_last: NHWC memory layout; the numbers may differ in the last digits.
        max_bad_steps: Consecutive steps with a loss that is not finite, skipped, after which training stops.
        seed: Of the weights, the data order, the augmentation and the dropout.

    Raises:
        ValueError: A value of the wrong type or out of range; the message names the key.
    """

    source: str
    expect: str
    model: str
    model_args: dict[str, Any] = field(default_factory=dict)
    task: str = field(default="classification", metadata=_choice(TASKS))
    data: str = "digits"
    image_size: tuple[int, int] | None = field(
        default=None, metadata=_rule("both 1 or more", lambda value: min(value) >= 1)
    )
    batch_size: int = field(default=64, metadata=_POSITIVE)
    epochs: float = field(default=50.0, metadata=_POSITIVE)
    warmup_epochs: float = field(default=0.0, metadata=_NOT_NEGATIVE)
    optimizer: str = field(default="adamw", metadata=_choice(OPTIMIZERS))
    lr: float = field(default=1e-3, metadata=_POSITIVE)
    min_lr: float = field(default=0.0, metadata=_NOT_NEGATIVE)
    schedule: str = field(default="cosine", metadata=_choice(SCHEDULES))
    weight_decay: float = field(default=0.05, metadata=_NOT_NEGATIVE)
    betas: tuple[float, float] = field(
        default=(0.9, 0.999),
        metadata=_rule("both at least 0 and below 1", lambda value: all(0 <= beta < 1 for beta in value)),
    )
    momentum: float = field(default=0.9, metadata=_RATE)
    label_smoothing: float = field(default=0.0, metadata=_RATE)
    drop_rate: float | None = field(default=None, metadata=_RATE)
    drop_path_rate: float | None = field(default=None, metadata=_RATE)
    clip_grad: float | None = field(default=None, metadata=_POSITIVE)
    ema_decay: float | None = field(default=None, metadata=_RATE)
    augment: str = field(default="light", metadata=_choice(AUGMENTS))
    precision: str = field(default="float32", metadata=_choice(PRECISIONS))
    channels_last: bool = False
    max_bad_steps: int = field(default=10, metadata=_POSITIVE)
    seed: int = field(default=0, metadata=_NOT_NEGATIVE)

    def __post_init__(self) -> None:
        kinds = _kinds()
        for entry in dataclasses.fields(self):
            object.__setattr__(self, entry.name, _checked(entry, kinds[entry.name], getattr(self, entry.name)))
        for name in self.model_args:
            if name in RESERVED:
                raise ValueError(f"recipe key 'model_args' must not hold {name!r}: {RESERVED[name]}")
        if self.min_lr > self.lr:
            raise ValueError(f"recipe key 'min_lr' must not be above lr={self.lr:g}, got {self.min_lr:g}")
        if self.warmup_epochs > self.epochs:
            raise ValueError(
                f"recipe key 'warmup_epochs' must not be above epochs={self.epochs:g}, got {self.warmup_epochs:g}: "
                "set both"
            )

    def to_json(self) -> str:
        """The recipe as indented JSON, readable by ``from_json``."""
        return json.dumps({"schema": SCHEMA, **dataclasses.asdict(self)}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """The recipe that ``to_json`` wrote; keys that are left out have their defaults.

        Raises:
            ValueError: No JSON object, another schema, an unknown or missing key, or a bad value.
        """
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"the recipe is not JSON: {error}") from None
        if not isinstance(values, dict):
            raise ValueError("the recipe must be a JSON object of keys and values")
        schema = values.pop("schema", SCHEMA)
        if schema != SCHEMA:
            raise ValueError(f"the recipe has the schema {schema!r}; this version reads {SCHEMA!r}")
        for key in values:
            _field(key)
        missing = [
            entry.name
            for entry in dataclasses.fields(cls)
            if entry.default is dataclasses.MISSING
            and entry.default_factory is dataclasses.MISSING
            and entry.name not in values
        ]
        if missing:
            raise ValueError(f"the recipe lacks {', '.join(missing)}")
        return cls(**values)


def override(recipe: Recipe, overrides: Iterable[str]) -> Recipe:
    """The recipe with ``key=value`` settings applied: ``["epochs=3", "model_args.mixers=pool"]``.

    Values are Python literals; what is none is text, and a field that holds text takes its value as it stands. A dotted
    key sets one entry of a field that is a mapping. ``epochs`` without ``warmup_epochs`` scales the warm-up too.

    Raises:
        ValueError: No ``=``, an unknown key (with a suggestion), or a value that the field refuses.
    """
    changes: dict[str, Any] = {}
    for setting in overrides:
        key, equals, text = setting.partition("=")
        if not equals:
            raise ValueError(f"{setting!r} is no setting; write key=value, for example epochs=3")
        name, *path = key.strip().split(".")
        _field(name)
        kind = _kinds()[name]
        if not path:
            changes[name] = _literal(text, kind)
            continue
        if get_origin(kind) is not dict:
            raise ValueError(f"recipe key {name!r} has no parts, got {key.strip()!r}")
        changes.setdefault(name, json.loads(json.dumps(getattr(recipe, name))))
        _set(changes[name], path, _literal(text, Any), key.strip())
    epochs = changes.get("epochs")
    if "warmup_epochs" not in changes and isinstance(epochs, int | float) and epochs > 0:
        recipe = with_epochs(recipe, epochs)
    return dataclasses.replace(recipe, **changes)


def with_epochs(recipe: Recipe, epochs: float) -> Recipe:
    """The recipe for another number of epochs, the warm-up scaled in proportion."""
    return dataclasses.replace(recipe, epochs=epochs, warmup_epochs=recipe.warmup_epochs * epochs / recipe.epochs)


def differences(one: Recipe, other: Recipe) -> list[str]:
    """The keys in which two recipes would train differently, each as ``key (this -> that)``."""
    pairs = ((entry.name, getattr(one, entry.name), getattr(other, entry.name)) for entry in dataclasses.fields(one))
    return [f"{name} ({a!r} -> {b!r})" for name, a, b in pairs if a != b and name not in NOTES]


def _kinds() -> dict[str, Any]:
    return get_type_hints(Recipe)


def _field(name: str) -> dataclasses.Field[Any]:
    """The field of that name, or an error with the nearest one."""
    fields = {entry.name: entry for entry in dataclasses.fields(Recipe)}
    if name not in fields:
        raise ValueError(unknown("recipe key", name, fields))
    return fields[name]


def _literal(text: str, kind: Any) -> Any:
    """What ``text`` on a command line means for a field of this kind."""
    text = text.strip()
    if kind is str:
        return text
    constants = {"none": None, "null": None, "true": True, "false": False}
    if text.lower() in constants:
        return constants[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def _set(mapping: dict[str, Any], path: list[str], value: Any, key: str) -> None:
    """Set one entry of nested mappings, making those that are missing."""
    for part in path[:-1]:
        mapping = mapping.setdefault(part, {})
        if not isinstance(mapping, dict):
            raise ValueError(f"recipe key {key!r}: {part!r} holds a value, not a mapping")
    mapping[path[-1]] = value


def _checked(entry: dataclasses.Field[Any], kind: Any, value: Any) -> Any:
    """The value as the field stores it, or an error that names the key, the value and what is allowed."""
    optional = get_origin(kind) is UnionType
    if optional:
        if value is None:
            return None
        kind = next(part for part in get_args(kind) if part is not NoneType)
    choices, words = entry.metadata.get("choices"), entry.metadata.get("words", "")
    try:
        value = _converted(value, kind)
    except (TypeError, ValueError):
        kinds = f"one of {', '.join(choices)}" if choices else f"{_describe(kind)}{words and ', ' + words}"
        raise ValueError(
            f"recipe key {entry.name!r} must be {kinds}{' or None' if optional else ''}, got {value!r}"
        ) from None
    if choices and value not in choices:
        raise ValueError(unknown(f"value of recipe key {entry.name!r}:", value, choices))
    if words and not entry.metadata["holds"](value):
        raise ValueError(f"recipe key {entry.name!r} must be {words}{' or None' if optional else ''}, got {value!r}")
    return value


def _converted(value: Any, kind: Any) -> Any:
    """The value in the kind's own type; TypeError or ValueError if it has no place there."""
    if get_origin(kind) is tuple:
        parts = get_args(kind)
        if parts == (int, int) and isinstance(value, int):
            value = (value, value)
        if not isinstance(value, list | tuple) or len(value) != len(parts):
            raise TypeError
        return tuple(_converted(part, sub) for part, sub in zip(value, parts, strict=True))
    if get_origin(kind) is dict:
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise TypeError
        return json.loads(json.dumps(dict(value), allow_nan=False))  # raises for what JSON has not
    if isinstance(value, bool) and kind is not bool:
        raise TypeError
    if kind is float and isinstance(value, int | float) and math.isfinite(value):
        return float(value)
    if kind is float or not isinstance(value, kind):
        raise TypeError
    return value


def _describe(kind: Any) -> str:
    if get_origin(kind) is tuple:
        return f"{len(get_args(kind))} {'whole ' if get_args(kind)[0] is int else ''}numbers"
    if get_origin(kind) is dict:
        return "a mapping of names to JSON values"
    return NAMES[kind]
