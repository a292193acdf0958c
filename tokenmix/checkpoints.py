"""Weights on disk: what the official projects publish is recognised and loaded safely; ours and theirs are written."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import timm
import torch
from torch import Tensor, nn

from tokenmix.backbones import affnet, casvit, ffnet
from tokenmix.backbones.arguments import FOREIGN, check_arguments, check_parameters, permit_given
from tokenmix.backbones.keymap import Official
from tokenmix.backbones.official import CheckpointError, backbone_of, read, unwrap
from tokenmix.files import atomic_path
from tokenmix.heads import HEADS, make_dense, own_options
from tokenmix.heads.levels import Levels
from tokenmix.heads.official import DENSE
from tokenmix.safety import is_trusted, refusal, speaking, trusting
from tokenmix.tasks import DEFAULT_TASK, Task, all_tasks, find_task
from tokenmix.weight_files import (
    WEIGHTS,
    check_info,
    check_local,
    described_in,
    downloading,
    read_info,
    weights_bytes,
    weights_file,
)
from tokenmix_runtime.names import unknown
from tokenmix_runtime.untrusted import LIMITS, read_json

__all__ = ["CheckpointError", "LoadedModel", "convert", "load_checkpoint", "open_model", "our_models", "read_info"]

FAMILIES: dict[str, Any] = {"affnet": affnet, "casvit": casvit, "ffnet": ffnet}
FORMATS = ("tokenmix", "official")


def load_checkpoint(
    source: str | os.PathLike[str] | Mapping[str, Any],
    *,
    ema: bool = True,
    num_classes: int | None = None,
    in_chans: int | None = None,
    trust: bool = False,
    **model_args: Any,
) -> nn.Module:
    """The model that a checkpoint holds, in eval mode.

    That is a classifier; a segmenter or detector (see `tokenmix.heads.make_dense`): official ones are AFFNet's
    DeepLabv3 and SSDLite and FFNet-Seg; or `Levels` for a dense task's feature checkpoint. Of other dense models the
    backbone is loaded, and it warns about the rest.

    Family, variant, head, classes and input channels are recognised from the keys and shapes. What they cannot tell
    (AFFNet's norm kind, activation and soft-shrink threshold; DeepLabv3's output stride, rates and head activation) may
    be given; it warns about what was left open.

    Args:
        source: A file of an official project (``.pth``, ``.pt``, ``.pth.tar``), one of ours (``.safetensors``), a
            training run's folder, a checkpoint in it (``RUN/checkpoints/step-*.pt``), or a state dict.
        ema: Take the averaged weights where there are some; False takes the raw ones.
        num_classes: Another number of classes than the file's: the classifiers are then new and untrained.
        in_chans: Another number of input channels: the first convolution is adapted as timm does it.
        trust: The file is the caller's own, and may name Python code and models on a hub, see `tokenmix.safety`.
        **model_args: Arguments of the model's builder or of its head, for example ``norm="layer"``,
            ``drop_path_rate=0.1`` or ``head_act="relu"``.

    Raises:
        CheckpointError: If the file is missing, truncated, unsafe or of no known architecture.
        TypeError: For an argument that the model does not have.

    Examples:
        >>> import tokenmix
        >>> model = tokenmix.load_checkpoint("rcvit_xs.pth", num_classes=37)  # doctest: +SKIP
        >>> weights = tokenmix.create_model("casvit_xs", num_classes=10).state_dict()
        >>> tokenmix.load_checkpoint(weights).num_classes
        10
    """
    with trusting(trust):
        return _load(source, ema, {**model_args, "num_classes": num_classes, "in_chans": in_chans}).model


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to be used, and how its images are prepared.

    Attributes:
        model: In eval mode.
        name: Its architecture; of a dense model its backbone's.
        task: What it does, the name of a task, see ``tokenmix.tasks.find_task``.
        head: Of a dense model, a name in ``tokenmix.heads.HEADS``.
        task_args: What its training told the task, such as the windows of a segmentation.
        facts: What it was built for, such as the names of the ``classes`` where they are known, see
            ``tokenmix.data.DataSet.facts``.
        image_size: Height and width in pixels.
        mean: Of the values in 0..1, per channel.
        std: Of the values in 0..1, per channel.
        crop_pct: The share of the shorter side that is kept.
        interpolation: ``"bicubic"`` or ``"bilinear"``.
        crop_mode: ``"center"`` or ``"squash"``, see ``tokenmix.data.resize_and_crop``; of a dense model ``"squash"`` or
            ``"fit"``, the short side is the size's shorter one, unless the long side would pass its longer one.
        license: Of published weights, as far as their model's configuration says it.
        data: What it has learnt from, see ``tokenmix.data.identity.DataIdentity.brief``; None where it does not say.

    Examples:
        >>> from tokenmix.checkpoints import LoadedModel
        >>> LoadedModel(nn.Identity(), "identity", "classification", facts={"classes": ["cat", "dog"]}).classes
        ['cat', 'dog']
    """

    model: nn.Module
    name: str
    task: str
    head: str | None = None
    task_args: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    image_size: tuple[int, int] = (0, 0)
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    crop_pct: float = 1.0
    interpolation: str = "bicubic"
    crop_mode: str = "center"
    license: str | None = None
    data: dict[str, Any] | None = None

    @property
    def classes(self) -> list[str] | None:
        """The names of the classes, or None if nobody knows them or there are none."""
        return self.facts.get("classes")

    @property
    def preparation(self) -> dict[str, Any]:
        """``mean``, ``std``, ``crop_pct``, ``interpolation`` and ``crop_mode``, as loaders take them."""
        names = ("mean", "std", "crop_pct", "interpolation", "crop_mode")
        return {name: getattr(self, name) for name in names}


def open_model(
    source: str | os.PathLike[str], *, tasks: Sequence[str] | None = None, trust: bool = False, **model_args: Any
) -> LoadedModel:
    """A trained model: all files that `load_checkpoint` takes, or a model's name in timm's registry or on a hub.

    A name gets the published weights where its configuration has an address, else random ones with a warning.

    Args:
        source: The file, run folder or name.
        tasks: Those that the caller can deal with; None: all.
        trust: See `load_checkpoint`.
        **model_args: See `load_checkpoint`.

    Raises:
        CheckpointError: If there is neither such a file nor such a model, it cannot be loaded, or has another task.

    Examples:
        >>> from tokenmix.checkpoints import open_model
        >>> loaded = open_model("runs/photos", tasks=["classification"])  # doctest: +SKIP
        >>> loaded.classes, loaded.image_size  # doctest: +SKIP
        (['cat', 'dog'], (96, 96))
    """
    with trusting(trust):
        return _open(os.fspath(source), tasks, model_args)


def _open(name: str, tasks: Sequence[str] | None, model_args: Mapping[str, Any]) -> LoadedModel:
    """What `open_model` returns."""
    hub = name.startswith(("hf-hub:", "local-dir:"))  # timm's way to name a repository or a folder in its format
    if os.path.exists(name):
        loaded = _load(name, True, model_args)
        if isinstance(loaded.model, Levels):
            raise CheckpointError(f"{name}: holds a backbone for dense tasks without a head; use load_checkpoint")
        loaded = replace(loaded, info=_remembered(Path(name), loaded.info))
        task, head = _task_of(loaded), loaded.what.head
        if tasks is not None and task.name not in tasks:
            kind = f"a model for {task.title}" + (f" (head {head})" if head else "")
            raise CheckpointError(f"{name}: holds {kind}, and what is needed here is for {' or '.join(tasks)}")
        name = loaded.what.variant
        published = "task" not in loaded.info  # which a training run of ours writes
    elif own := _untrained(name, tasks, model_args):
        loaded, published = own, False
    else:
        if not hub and not timm.is_model(name):
            raise CheckpointError(f"{name}: no such file or folder, and {unknown('model', name, our_models())}")
        pretrained = hub or timm.models.is_model_pretrained(name)
        if not pretrained:
            warnings.warn(f"{name} has no published weights to download: its weights are random", stacklevel=3)
        if name.startswith("local-dir:"):
            check_local(name.removeprefix("local-dir:"))
        with downloading(name):
            loaded = _build(Official(name, dict(model_args)), {}, pretrained=pretrained)
        loaded.model.eval()
        published = pretrained
    return _described(loaded, name, published)


def _remembered(source: Path, info: Mapping[str, Any]) -> Mapping[str, Any]:
    """With what the weights of a run's folder are too small to hold of its data: ``data.json`` beside them has more."""
    told, file = info.get("data"), (source if source.is_dir() else described_in(source).parent) / "data.json"
    if not told or told.get("parts") or not file.is_file():
        return info
    try:
        known = read_json(file)
    except (OSError, ValueError):  # the weights are whole without it
        return info
    same = isinstance(known, dict) and known.get("fingerprint") == told.get("fingerprint")
    return {**info, "data": known} if same and isinstance(known.get("parts"), dict) else info


def _untrained(name: str, tasks: Sequence[str] | None, model_args: Mapping[str, Any]) -> _Loaded | None:
    """A task's own network of that name with fresh weights, of which it warns where there are any; None if no task has.

    Raises:
        CheckpointError: It is for another task than those that are asked for.
    """
    for task in all_tasks().values():
        if name in task.networks():
            if tasks is not None and task.name not in tasks:
                raise CheckpointError(
                    f"{name} is for {task.title}, and what is needed here is for {' or '.join(tasks)}"
                )
            model = task.network(name, {}, **model_args)
            if next(model.parameters(), None) is not None:
                warnings.warn(f"{name} has no published weights to download: its weights are random", stacklevel=4)
            return _Loaded(model.eval(), Official(name, dict(model_args)), {"task": task.name}, {})
    return None


def described_model(model: nn.Module, info: Mapping[str, Any]) -> LoadedModel:
    """A model that was made in code, with what a file of its weights says of it, see `read_info`."""
    what = Official(info["model"], info.get("model_args") or {}, head=info.get("head"))
    return _described(_Loaded(model, what, info, _cfg_of(model)), info["model"], False)


def _described(loaded: _Loaded, name: str, published: bool) -> LoadedModel:
    """A model with how its samples are prepared: as its file says, else as timm's configuration does."""
    info, head = loaded.info, loaded.what.head
    cfg: dict[str, Any] = dict(loaded.cfg)
    if head is not None:
        cfg = {**cfg, "input_size": (3, *HEADS[head].image_size), "crop_mode": HEADS[head].crop_mode}
        cfg |= {"crop_pct": 1.0, "interpolation": "bilinear"}  # as evaluation scales for dense tasks
    task = _task_of(loaded)
    channels = loaded.what.model_args.get("in_chans") or cfg.get("input_size", (3,))[0]
    if task.channels not in (None, channels):
        raise CheckpointError(
            f"{name}: takes pictures of {channels} channels, and they are read as RGB, with {task.channels}: train it "
            "with three (grey pictures get three equal channels)"
        )
    facts = {fact: info[fact] for fact in task.fact_names if info.get(fact) is not None}
    if "classes" in task.fact_names and "classes" not in facts and cfg.get("label_names"):
        facts["classes"] = cfg["label_names"]
    cfg = dict[str, Any](input_size=(3, 0, 0), mean=(), std=(), crop_pct=1.0, interpolation="bicubic") | cfg
    height, width = info.get("image_size") or cfg["input_size"][1:]
    mode = info.get("crop_mode") if "crop_pct" in info else cfg.get("crop_mode")  # a run without it was centred
    return LoadedModel(
        loaded.model,
        name,
        task.name,
        head,
        info.get("task_args") or {},
        facts,
        (int(height), int(width)),
        tuple(info.get("mean") or cfg["mean"]),
        tuple(info.get("std") or cfg["std"]),
        float(info.get("crop_pct") or cfg["crop_pct"]),
        str(info.get("interpolation") or cfg["interpolation"]),
        str(mode or "center"),
        cfg.get("license") if published else None,
        info.get("data"),
    )


def _task_of(loaded: _Loaded) -> Task:
    """What a model is for: what its file says, else its head, else what models of timm's registry are for."""
    head = loaded.what.head
    return find_task(loaded.info.get("task") or (DEFAULT_TASK if head is None else HEADS[head].task))


def fill(module: nn.Module, state: Mapping[str, Tensor], origin: str | os.PathLike[str]) -> None:
    """Fill the module with the weights of the file ``origin``, strictly.

    Raises:
        ValueError: The names or shapes are not the module's.
    """
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        lines = str(error).splitlines()
        raise ValueError(
            f"the weights in {os.fspath(origin)} belong to another model than the one built here: "
            f"{lines[min(1, len(lines) - 1)].strip()}"
        ) from None


def our_models() -> list[str]:
    """The names of the models that tokenmix registers with timm.

    Examples:
        >>> from tokenmix.checkpoints import our_models
        >>> "mixernet_pico" in our_models()
        True
    """
    return [name for name in timm.list_models() if timm.model_entrypoint(name).__module__.startswith("tokenmix.")]


def convert(
    source: str | os.PathLike[str] | Mapping[str, Any],
    target: str | os.PathLike[str],
    *,
    to: str = "tokenmix",
    ema: bool = True,
    trust: bool = False,
    **model_args: Any,
) -> nn.Module:
    """Rewrite a checkpoint under our key names, or back under the official ones; returns the model it holds.

    Args:
        source: All that `load_checkpoint` takes.
        target: ``.safetensors``; for ``to="official"`` also a ``.pth`` file, which then holds ``{"state_dict": ...}``.
        to: ``"tokenmix"`` or ``"official"``.
        ema: See `load_checkpoint`.
        trust: See `load_checkpoint`.
        **model_args: See `load_checkpoint`; our file remembers them.

    Raises:
        CheckpointError: As `load_checkpoint`; or if the target's ending does not fit, or no official names exist.
        ValueError: For another value of ``to``.

    Examples:
        >>> from tokenmix.checkpoints import convert
        >>> model = convert("rcvit_xs.pth", "casvit_xs.safetensors")  # doctest: +SKIP
        >>> model = convert("casvit_xs.safetensors", "back.pth", to="official")  # doctest: +SKIP
    """
    if to not in FORMATS:
        raise ValueError(unknown("format", to, FORMATS))
    endings = (".safetensors",) if to == "tokenmix" else (".safetensors", ".pth", ".pt", ".tar")
    if Path(target).suffix not in endings:
        raise CheckpointError(f"{target}: to={to!r} writes a file that ends in {' or '.join(endings)}")
    with trusting(trust):
        loaded = _load(source, ema, model_args)
    what = loaded.what
    if to == "tokenmix":
        args = {key: value for key, value in what.model_args.items() if key not in ("device", "dtype")}
        header = {
            "model": what.variant,
            "model_args": args,
            "level_norm": what.level_norm,
            "levels": what.levels,
            "head": what.head,
        }
        content = weights_bytes(loaded.model.state_dict(), {**loaded.info, **header})
        with atomic_path(target) as temporary:
            temporary.write_bytes(content)
        return loaded.model
    state_dict = _official(loaded.model, _name(source), what)
    with atomic_path(target) as temporary:
        if Path(target).suffix == ".safetensors":
            safetensors.torch.save_file(state_dict, temporary)
        else:
            torch.save({"state_dict": state_dict}, temporary)
    return loaded.model


@dataclass(frozen=True)
class _Loaded:
    model: nn.Module
    what: Official
    info: Mapping[str, Any]  # of our file
    cfg: Mapping[str, Any]  # timm's


def _name(source: str | os.PathLike[str] | Mapping[str, Any]) -> str:
    return "the given state dict" if isinstance(source, Mapping) else os.fspath(source)


def _load(source: str | os.PathLike[str] | Mapping[str, Any], ema: bool, given: Mapping[str, Any]) -> _Loaded:
    """What `load_checkpoint`, `open_model` and `convert` share; ``given`` are arguments, None for those left open."""
    given = {key: value for key, value in given.items() if value is not None}
    if foreign := sorted((FOREIGN - {"device", "dtype"}) & given.keys()):
        raise TypeError(f"{foreign[0]!r} is no argument of a model; load_checkpoint takes those of its builder")
    permit_given(given.get("mixers"))
    name = _name(source)
    content, info = (source, None) if isinstance(source, Mapping) else _read(weights_file(source))
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{name}: holds a {type(content).__name__}, not a dict of weights")
    if _is_of_a_run(content):
        raise CheckpointError(
            f"{name}: holds the state of a training run; name the run's folder for its best weights, or the file where "
            f"it was, in RUN/checkpoints: RUN/{WEIGHTS}, which the first epoch leaves, says what model it is"
        )
    try:
        state_dict = unwrap(content, ema=ema)
    except CheckpointError as error:
        raise CheckpointError(f"{name}: {error}") from None
    if own := _of_a_task(state_dict, info, given, name):
        return own
    left_out: list[str] = []
    what = _recognise(state_dict, DENSE) if info is None else _stored(info, name, given)
    if what is None:
        state_dict, left_out = backbone_of(state_dict)
        what = _recognise(state_dict, FAMILIES)
    if what is None:
        raise CheckpointError(
            f"{name}: the architecture is not one of the published {', '.join(FAMILIES)} variants (first keys: "
            f"{', '.join(list(state_dict)[:3]) or 'none'}); for the weights of another model use "
            "timm.create_model(NAME, checkpoint_path=FILE)"
        )
    if left_out:
        shown = ", ".join(f"{key}.*" for key in left_out[:5]) + (", ..." if len(left_out) > 5 else "")
        warnings.warn(f"{name}: only the backbone was loaded; {shown} were left out", stacklevel=3)
    if open_args := [arg for arg in what.open_args if arg not in given]:
        warnings.warn(
            f"{name}: the checkpoint cannot tell {', '.join(open_args)}; the defaults are used. "
            f"Pass {'them' if len(open_args) > 1 else 'it'} if the model was trained otherwise",
            stacklevel=3,
        )
    with speaking(None if info is None else name):
        if info is not None and not is_trusted():
            _check_size(what, given, state_dict, name)
        loaded = _build(replace(what, model_args={**what.model_args, **given}), info or {})
    family = _family(what)
    if family is not None:
        try:
            state_dict = family.checkpoint_filter_fn(state_dict, loaded.model)
        except RuntimeError as error:  # tensors of shapes that do not go together
            raise CheckpointError(f"{name}: looks like {what.variant}, but does not fit it: {error}") from None
    if "num_classes" in given and what.levels is None:
        if len((info or {}).get("classes") or ()) != given["num_classes"]:
            loaded = replace(loaded, info={key: value for key, value in loaded.info.items() if key != "classes"})
        state_dict = _with_classes(state_dict, loaded, family)
    if "in_chans" in given:
        state_dict = _with_chans(state_dict, loaded, name)
    _fill(loaded.model, state_dict, name, what.variant)
    return replace(loaded, model=loaded.model.eval())


def _of_a_task(
    state_dict: Mapping[str, Tensor], info: Mapping[str, Any] | None, given: Mapping[str, Any], name: str
) -> _Loaded | None:
    """The model of a task whose networks are its own, not timm's; None if the file holds another one."""
    if info is not None:
        if info.get("task") not in all_tasks():
            return None
        task, variant, args = find_task(info["task"]), info.get("model"), info.get("model_args")
        if not isinstance(variant, str) or variant not in task.networks() or not isinstance(args, dict):
            return None
        args = {key: value for key, value in args.items() if key not in ("device", "dtype")}  # the caller's to say
        facts = {fact: info[fact] for fact in task.fact_names if fact in info}
        try:
            check_info(info, pictures=not task.own_statistics)
            task.check_facts(info)
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"{name}: {error}; copy or write the file again") from None
    else:
        for task in all_tasks().values():
            if found := task.recognise(state_dict):
                variant, args, facts, state_dict = found
                break
        else:
            return None
        info = {"task": task.name, **facts}
    with speaking(name):
        model = task.network(variant, facts, **{**args, **given})
    _fill(model, state_dict, name, variant)
    return _Loaded(model.eval(), Official(variant, {**args, **given}), info, {})


def _family(what: Official) -> Any:
    """What knows the official names of such a model, or None."""
    return FAMILIES.get(what.variant.split("_")[0]) if what.head is None else DENSE.get(what.head)


def _cfg_of(model: Any) -> Mapping[str, Any]:
    """Timm's configuration of a model; empty for one that somebody registered without."""
    return getattr(model, "pretrained_cfg", None) or {}


def _build(what: Official, info: Mapping[str, Any], **kwargs: Any) -> _Loaded:
    model: Any
    if what.head is not None:
        model = make_dense(what.head, what.variant, **{**what.model_args, **kwargs})
        cfg = _cfg_of(model.backbone)
        layers = tuple(f".{layer}" for layer in _names(cfg.get("first_conv")))
        first = [layer for layer, _ in model.named_modules() if layer.endswith(layers)]
        return _Loaded(model, what, info, {**cfg, "first_conv": first, "classifier": model.classifiers})
    model = timm.create_model(what.variant, **{**what.model_args, **kwargs})
    cfg = _cfg_of(model)
    if what.levels is not None:
        dd = {key: what.model_args.get(key, kwargs.get(key)) for key in ("device", "dtype")}
        model = Levels(model, what.levels, what.level_norm or "none", **dd)
    return _Loaded(model, what, info, cfg)


def _stored(info: Mapping[str, Any], name: str, given: Mapping[str, Any]) -> Official:
    """The model that our own file names, but for the arguments that the caller gives in place of the file's.

    Raises:
        CheckpointError: It lacks something, or says what no file may say.
    """
    variant, args, levels, head = info.get("model"), info.get("model_args"), info.get("levels"), info.get("head")
    if not isinstance(variant, str) or not isinstance(args, dict):
        raise CheckpointError(f"{name}: its metadata lacks 'model' or 'model_args'; copy or write the file again")
    hub = variant.startswith(("hf-hub:", "hf_hub:", "local-dir:"))  # timm's ways to name one elsewhere
    if not timm.is_model(variant) and not hub:
        raise CheckpointError(f"{name}: {unknown('model', variant[:100], our_models())}")
    if head is not None and head not in HEADS:
        raise CheckpointError(f"{name}: {unknown('head', str(head)[:100], HEADS)}")
    try:
        if hub and not is_trusted():
            raise refusal(name, "an address or a path", variant)
        if not is_trusted():
            stored = {key: value for key, value in args.items() if key not in given}
            check_arguments(name, variant, stored, () if head is None else (*own_options(head), "level_norm"))
        check_info(info)
    except (ValueError, TypeError) as error:
        raise CheckpointError(str(error) if str(error).startswith(name) else f"{name}: {error}") from None
    args = dict(args)
    if "classes" in info:
        args.setdefault("num_classes", len(info["classes"] or ()))
    elif "num_classes" in info:
        args.setdefault("num_classes", info["num_classes"])
    return Official(variant, args, info.get("level_norm"), tuple(levels) if levels else None, head=head)


def _check_size(what: Official, given: Mapping[str, Any], state_dict: Mapping[str, Tensor], name: str) -> None:
    """Raise if the model that a file describes is larger than the weights in it, but for what the caller changes.

    Raises:
        CheckpointError: It is.
    """
    args = {key: value for key, value in {**what.model_args, **given}.items() if key not in ("device", "dtype")}
    most = LIMITS["parameters"] if given else sum(tensor.numel() for tensor in state_dict.values())
    try:
        check_parameters(name, lambda: _build(replace(what, model_args=args), {}).model, most)
    except CheckpointError:
        raise
    except (ValueError, TypeError, ArithmeticError, LookupError, AttributeError, AssertionError) as error:
        if given:  # whose the mistake is, is not known: the caller hears of it as it is
            return
        told = str(error) if str(error).startswith(name) else f"{name}: no such {what.variant} can be built: {error}"
        raise CheckpointError(told) from None


def _recognise(state_dict: Mapping[str, Tensor], families: Mapping[str, Any]) -> Official | None:
    """The model that keys and shapes name, the official ones or ours, or None."""
    for family in families.values():
        if found := family.recognise(_shapes(state_dict)):
            return found
        try:
            empty = {key: torch.empty(tensor.shape, device="meta") for key, tensor in state_dict.items()}
            official = family.KEYS.to_official(empty)
        except KeyError:
            continue
        if found := family.recognise(_shapes(official)):
            return found
    return None


def _shapes(state_dict: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in state_dict.items()}


def _with_classes(state_dict: Mapping[str, Tensor], loaded: _Loaded, family: Any) -> dict[str, Tensor]:
    """The model's own untrained classifiers, unless those of the file have as many classes."""
    own = loaded.model.state_dict()
    heads = [f"{name}.{leaf}" for name in _names(loaded.cfg.get("classifier")) for leaf in ("weight", "bias")]
    fresh = {key: own[key] for key in heads if key in own}
    if fresh and all(key in state_dict and state_dict[key].shape == tensor.shape for key, tensor in fresh.items()):
        return dict(state_dict)
    # A model without a classifier has left that of an official file under its official name.
    gone = {*heads, *(name for key in heads if family for name in family.KEYS.names(key, own))}
    return {key: tensor for key, tensor in state_dict.items() if key not in gone} | fresh


def _with_chans(state_dict: Mapping[str, Tensor], loaded: _Loaded, name: str) -> dict[str, Tensor]:
    """The first convolution for other input channels, as timm adapts it: one is the sum, others repeat and rescale."""
    result = dict(state_dict)
    for first in _names(loaded.cfg.get("first_conv")):
        key, wanted = f"{first}.weight", loaded.what.model_args["in_chans"]
        if key not in result or wanted == (chans := result[key].shape[1]):
            continue
        weight = result[key].float()
        if wanted == 1:
            result[key] = weight.sum(1, keepdim=True)
        else:
            result[key] = weight.repeat(1, -(-wanted // chans), 1, 1)[:, :wanted] * (chans / wanted)
    return result


def _names(entry: str | Iterable[str] | None) -> tuple[str, ...]:
    return (entry,) if isinstance(entry, str) else tuple(entry or ())


def _fill(model: nn.Module, state_dict: Mapping[str, Tensor], name: str, variant: str) -> None:
    """Load strictly; everything that does not fit goes into one message."""
    own = model.state_dict()
    problems = {
        "missing": [key for key in own if key not in state_dict],
        "unexpected": [key for key in state_dict if key not in own],
        "of another shape": [key for key in own if key in state_dict and own[key].shape != state_dict[key].shape],
    }
    if any(problems.values()):
        text = "; ".join(
            f"{len(keys)} {kind} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
            for kind, keys in problems.items()
            if keys
        )
        raise CheckpointError(
            f"{name}: looks like {variant}, but the keys do not fit: {text}; is the file whole, and are the arguments "
            "those that the model was trained with?"
        )
    model.load_state_dict(dict(state_dict))


def _official(model: nn.Module, name: str, what: Official) -> dict[str, Tensor]:
    """The weights under official names, if the official project has such a model."""
    family = _family(what)
    for task in all_tasks().values():
        if what.variant in task.networks():
            try:
                return task.official_weights(model)
            except ValueError as error:
                raise CheckpointError(f"{name}: {error}") from None
    if family is None:
        kind, known = (what.variant, FAMILIES) if what.head is None else (f"{what.head} with {what.variant}", DENSE)
        raise CheckpointError(f"{name}: {kind} has no official names; only {', '.join(known)} have")
    try:
        state_dict = family.KEYS.to_official(model.state_dict())
    except KeyError as error:
        raise CheckpointError(f"{name}: {error.args[0]}") from None
    # Other mixers may have keys that look like the official ones: compare with the model that would be read back.
    found = family.recognise(_shapes(state_dict))
    if found is None or _shapes(state_dict) != _shapes(
        family.KEYS.to_official(_build(found, {}, device="meta").model.state_dict())
    ):
        raise CheckpointError(f"{name}: this {what.variant} is not the official architecture and has no official names")
    return state_dict


def _read(path: Path) -> tuple[Any, dict[str, Any] | None]:
    """The content of a file, and what our own files say about it."""
    if path.suffix == ".safetensors":
        info = read_info(path)
        return safetensors.torch.load_file(path), info
    content, described = read(path), described_in(path)
    if described == path or not _is_of_a_run(content):
        return content, None
    states = {"state_dict_ema": content.get("average"), "state_dict": content.get("task")}
    return {name: _network(state) for name, state in states.items()}, read_info(described)


def _is_of_a_run(content: Any) -> bool:
    """Whether this is what a training goes on from."""
    return isinstance(content, Mapping) and str(content.get("format", "")).startswith("tokenmix.")


def _network(state: Any) -> dict[str, Any]:
    """Of an objective's state that of the network in it; nothing if there is no such objective."""
    if not isinstance(state, Mapping):
        return {}
    return {str(key).removeprefix("model."): value for key, value in state.items() if str(key).startswith("model.")}
