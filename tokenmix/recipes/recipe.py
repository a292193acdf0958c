"""The recipe: every number that decides how a model is trained, checked, printable, and the same thing as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tokenmix.checked_values import literal
from tokenmix.recipes.keys import NOTES, OF_TASKS, PARTS, SHORT, Key, find_key, parts_of, put, settings_of, task_name
from tokenmix.recipes.parts import READ_BY, Model, Optimizer, Run, Schedule
from tokenmix.tasks import DEFAULT_TASK, TaskOptions, find_task
from tokenmix_runtime.untrusted import parse_json, shown

SCHEMA = "tokenmix.recipe/2"
SCHEMAS = (SCHEMA, "tokenmix.recipe/1")  # what is read: the older one has all values side by side, by short names


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train: immutable, compared by value; a variant is `override`, `with_values` or ``dataclasses.replace``.

    Args:
        source: Where the numbers come from: paper and section, repository, commit.
        expect: What a faithful run reaches.
        cost: What it takes, in EMACs (10^18 multiply-accumulates: images times three times the forward pass, a
            teacher's forward pass included, see ``tokenmix.bench.cost.training_macs``), and on which machines the
            authors ran it.
        model: The network, and where its weights begin.
        optimizer: How a gradient changes the weights.
        schedule: How long, and how the learning rate moves.
        run: On which data, in which batches, and how it is computed.
        task: The task's own options, ``Task.Options``, by whose type the task is known; None: classification with the
            default ones.
        augment: The task's own augmentation, ``Task.Augment``; None: its default one.

    Raises:
        ValueError: Values that do not go together, or a part of another task; the message names the key.

    Examples:
        >>> from tokenmix.recipes import Model, Recipe, Schedule
        >>> recipe = Recipe(
        ...     source="ours", expect="nothing", model=Model(name="mixernet_pico"), schedule=Schedule(epochs=3)
        ... )
        >>> recipe.task.label_smoothing
        0.0
    """

    source: str
    expect: str
    cost: str = "not counted"
    model: Model
    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: Schedule = field(default_factory=Schedule)
    run: Run = field(default_factory=Run)
    task: Any = None
    augment: Any = None

    def __post_init__(self) -> None:
        for name in NOTES:
            if not isinstance(value := getattr(self, name), str):
                raise ValueError(f"recipe key {name!r} must be text, got {shown(value)}")
        if self.task is None:
            object.__setattr__(self, "task", find_task(DEFAULT_TASK).Options())
        if not isinstance(self.task, TaskOptions):
            raise ValueError(f"recipe key 'task' must be the options of a task, Task.Options(), got {shown(self.task)}")
        task = find_task(self.task.name)
        if self.augment is None:
            object.__setattr__(self, "augment", task.Augment())
        for name, kind in parts_of(task).items():
            if type(value := getattr(self, name)) is not kind:
                known = f"{kind.__module__}.{kind.__qualname__}"
                raise ValueError(f"recipe key {name!r} for {task.name} must be a {known}, got {shown(value)}")
        for name in ("min_lr", "warmup_lr"):
            if (value := getattr(self.schedule, name)) > self.optimizer.lr:
                raise ValueError(
                    f"recipe key 'schedule.{name}' must not be above lr={self.optimizer.lr:g}, got {value:g}"
                )
        task.check_recipe(self)

    @property
    def length(self) -> str:
        """In words: ``"300 epochs"`` or ``"160,000 steps"``."""
        return self.schedule.length

    def to_values(self) -> dict[str, Any]:
        """A mapping for each part, and the notes, as JSON has it but for tuples."""
        values = dataclasses.asdict(self)
        return values | {"task": {"name": self.task.name, **values["task"]}}

    def flat(self) -> dict[str, Any]:
        """All values by their paths: ``{"source": ..., "model.name": ..., "schedule.epochs": ...}``."""
        found: dict[str, Any] = {}
        for key, value in self.to_values().items():
            found |= {key: value} if key in NOTES else {f"{key}.{name}": inner for name, inner in value.items()}
        return found

    def to_json(self) -> str:
        """The recipe as indented JSON, readable by ``from_json``."""
        return json.dumps({"schema": SCHEMA, **self.to_values()}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """The recipe that ``to_json`` wrote; keys that are left out have their defaults.

        Raises:
            ValueError: No JSON object, another schema, an unknown or missing key, or a bad value.
        """
        try:
            values = parse_json(text)
        except ValueError as error:
            raise ValueError(f"the recipe: {error}") from None
        return cls.from_values(values)

    @classmethod
    def from_values(cls, values: Any, name: str = "the recipe") -> Recipe:
        """The recipe of what its JSON says; see `from_json`.

        Args:
            values: A mapping of keys to values: parts as mappings, paths, or short names, ``{"epochs": 3}``.
            name: For messages.

        Raises:
            ValueError: See `from_json`.
        """
        if not isinstance(values, Mapping):
            raise ValueError(f"{name} must be a JSON object of keys and values")
        values = dict(values)
        schema = values.pop("schema", SCHEMA)
        if schema not in SCHEMAS:
            raise ValueError(f"{name} has the schema {shown(schema)}; this version reads {' and '.join(SCHEMAS)}")
        return _assembled(list(settings_of(values)), name)


def _assembled(settings: list[tuple[str, Any]], name: str, base: Recipe | None = None) -> Recipe:
    """The recipe of keys and their values, of which the last one of a key holds.

    A key of another task may stand there if it says what is so anyway: files of the schema 1 have all keys of all
    tasks. What only the task of ``base`` knows is left behind where the settings name another task.

    Args:
        settings: Keys with values.
        name: For messages.
        base: What the recipe says where the settings say nothing.
    """
    kind = find_task(task_name(settings, base.task.name if base else DEFAULT_TASK))
    values: dict[str, Any] = {}
    foreign: dict[str, tuple[Key, Any]] = {}
    for text, value in base.flat().items() if base else ():
        if not (key := find_key(text, kind)).owners:
            put(values, key, value)
    for text, value in settings:
        key = find_key(text, kind)
        if key.owners:
            foreign[key.field] = key, value
        else:
            put(values, key, value)
    for key, value in foreign.values():
        if not key.is_default(value) and (key.field, value) != ("augment.name", "none"):
            raise ValueError(
                f"recipe key {key.path!r} belongs to {', '.join(key.owners)}, and this recipe is for {kind.title}: "
                f"leave it out, or set {key.name}={key.default!r}"
            )
    values.setdefault("task", {}).pop("name", None)
    missing = [note for note in ("source", "expect") if note not in values]
    if missing := [*missing, *([] if "name" in values.get("model", {}) else ["model.name"])]:
        raise ValueError(f"{name} lacks {', '.join(missing)}")
    parts: dict[str, Any] = {part: made(**values.pop(part, {})) for part, made in parts_of(kind).items()}
    return Recipe(**values, **parts)


def override(recipe: Recipe, overrides: Iterable[str]) -> Recipe:
    """The recipe with ``key=value`` settings applied: ``["epochs=3", "task.label_smoothing=0.1"]``.

    A key is a path, ``schedule.epochs``, or a short name, ``epochs``. Values are Python literals; what is none is text,
    and a field that holds text takes its value as it stands. A path may go on into a field that is a mapping,
    ``model_args.mixers=pool``. ``epochs`` without ``warmup_epochs`` scales the warm-up and the milestones too, and so
    does ``steps`` where the recipe counts steps. With another ``task`` the recipe keeps of its task's part and of its
    augmentation what the new task knows too.

    Args:
        recipe: It stays as it is.
        overrides: ``"key=value"`` each; a later one of a key wins.

    Raises:
        ValueError: No ``=``, an unknown key (with a suggestion) or one of another task, a value that the field
            refuses, or one that the schedule or the optimiser does not read.

    Examples:
        >>> from tokenmix.recipes import make_recipe, override
        >>> schedule = override(make_recipe("ffnet_1"), ["epochs=32"]).schedule
        >>> schedule.epochs, schedule.warmup_epochs  # of 320 and 5
        (32.0, 0.5)
    """
    texts = []
    for setting in overrides:
        key, equals, text = setting.partition("=")
        if not equals:
            raise ValueError(f"{setting!r} is no setting; write key=value, for example epochs=3")
        texts.append((key.strip(), text))
    task = find_task(task_name([(key, text.strip()) for key, text in texts], recipe.task.name))
    settings: list[tuple[str, Any]] = []
    for key, text in texts:
        whole = key in (*PARTS, *OF_TASKS) or SHORT.get(key) in OF_TASKS
        if whole and isinstance(mapping := literal(text, Any), Mapping):
            settings += settings_of({key: mapping})
            continue
        found = find_key(key, task)
        settings.append((key, literal(text, Any if found.inside else found.kind)))
    changes = {found.field: value for key, value in settings if not (found := find_key(key, task)).inside}
    epochs, steps = changes.get("schedule.epochs"), changes.get("schedule.steps")
    fixed = "schedule.warmup_epochs" in changes or "schedule.steps" in changes
    if not fixed and isinstance(epochs, int | float) and epochs > 0:
        recipe = with_epochs(recipe, epochs)
    if recipe.schedule.steps is not None and isinstance(steps, int) and steps > 0:
        schedule = recipe.schedule.scaled(steps / recipe.schedule.steps, steps=steps)
        recipe = dataclasses.replace(recipe, schedule=schedule)
    changed = _changed(recipe, settings)
    for path in changes.keys() & READ_BY.keys():
        _check_read(changed, find_key(path, task))
    return changed


def _check_read(recipe: Recipe, key: Key) -> None:
    """Raise if a value that was asked for says nothing, since the schedule or the optimiser has no such thing."""
    part = getattr(recipe, key.part)
    if part.name not in READ_BY[key.field] and not key.is_default(getattr(part, key.name)):
        forms = " or ".join(f"{key.part}={name}" for name in READ_BY[key.field])
        raise ValueError(
            f"recipe key {key.path!r} is for {forms}, and the {key.part} is {part.name!r}: leave one of the two out"
        )


def with_values(recipe: Recipe, **values: Any) -> Recipe:
    """The recipe with other values, by short names or, as ``**{"schedule.epochs": 3}``, by paths; nothing is scaled.

    Args:
        recipe: It stays as it is.
        **values: As their fields hold them, not as text.

    Raises:
        ValueError: See `override`.

    Examples:
        >>> from tokenmix.recipes import make_recipe, with_values
        >>> schedule = with_values(make_recipe("ffnet_1"), epochs=32.0).schedule
        >>> schedule.epochs, schedule.warmup_epochs  # of 320 and 5
        (32.0, 5.0)
    """
    return _changed(recipe, list(settings_of(values)))


def _changed(recipe: Recipe, settings: list[tuple[str, Any]]) -> Recipe:
    return _assembled(settings, "the recipe", recipe)


def with_epochs(recipe: Recipe, epochs: float) -> Recipe:
    """The recipe for another number of epochs, those of its parts in proportion: warm-up, milestones and so on.

    Args:
        recipe: It stays as it is.
        epochs: Passes over the training samples, above 0; a fraction stops within one.

    Raises:
        ValueError: It counts steps, or ``epochs`` is out of range.

    Examples:
        >>> from tokenmix.recipes import make_recipe, with_epochs
        >>> with_epochs(make_recipe("ffnet_1"), 32).schedule.warmup_epochs  # 5 of 320
        0.5
    """
    schedule = recipe.schedule
    if schedule.steps is not None:
        raise ValueError(
            f"the recipe counts steps={schedule.steps}, not epochs: set steps=N, or steps=none epochs={epochs:g} and "
            "warmup_steps as you want it"
        )
    return dataclasses.replace(recipe, schedule=schedule.scaled(epochs / schedule.epochs, epochs=epochs))


def differences(one: Recipe, other: Recipe) -> list[str]:
    """The keys in which two recipes would train differently, each as ``path (this -> that)``.

    Args:
        one: Whose values stand before the arrow.
        other: Whose values stand after it.

    Examples:
        >>> from tokenmix.recipes import differences, make_recipe, override
        >>> recipe = make_recipe("ffnet_1")
        >>> differences(recipe, override(recipe, ["lr=0.01"]))
        ['optimizer.lr (0.001 -> 0.01)']
    """
    first, second = one.flat(), other.flat()
    absent = object()
    found = []
    for path in first | second:
        a, b = first.get(path, absent), second.get(path, absent)
        if a != b and path not in NOTES:
            words = ("nothing" if value is absent else repr(value) for value in (a, b))
            found.append(f"{path} ({' -> '.join(words)})")
    return found
