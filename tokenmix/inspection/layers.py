"""The parts of a network that are looked at: stages, blocks and mixers by name, and what passes through them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tokenmix.blocks import Residual
from tokenmix_runtime.names import unknown


def stages(model: nn.Module) -> dict[str, nn.Module]:
    """The stages of the backbone by name, from fine to coarse.

    Without stages, whatever is called ``blocks``; else where timm says that a network's features are taken.

    Raises:
        ValueError: The model has none of these.
    """
    for name, module in model.named_modules():
        start = f"{name}." if name else ""
        if isinstance(getattr(module, "stages", None), nn.Sequential):
            return {f"{start}stages.{number}": stage for number, stage in enumerate(module.stages)}
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{other}.") for other in found)
        if name.split(".")[-1] == "blocks" and isinstance(module, nn.Sequential | nn.ModuleList) and not inside:
            found[name] = module
    found = found or _feature_modules(model)
    if found:
        return found
    raise ValueError(
        f"{type(model).__name__} has no stages that can be looked at: inspect a model of the house (tokenmix models), "
        "or one of timm's that gives features (features_only=True)"
    )


def _feature_modules(model: nn.Module) -> dict[str, nn.Module]:
    """The modules that timm's ``feature_info`` names, by name."""
    for name, module in model.named_modules():
        start = f"{name}." if name else ""
        infos = getattr(module, "feature_info", None)
        if isinstance(infos, list) and infos:
            return {f"{start}{info['module']}": module.get_submodule(info["module"]) for info in infos}
    return {}


def blocks(model: nn.Module) -> dict[str, nn.Module]:
    """The blocks in which a mixer mixes, by name, in their order; without any, the parts of the stages."""
    found = {}
    for name, module in model.named_modules():
        above = name.split(".")[-2:-1]
        if above == ["blocks"] or (above == ["chain"] and hasattr(module, "mixer")):
            found[name] = module
    chained = [name for name in found if any(other.startswith(f"{name}.") for other in found)]
    found = {name: module for name, module in found.items() if name not in chained}
    if found:
        return found
    for name, stage in stages(model).items():
        parts = dict(stage.named_children()) if isinstance(stage, nn.Sequential) else {}
        found |= {f"{name}.{part}": module for part, module in parts.items()} or {name: stage}
    return found


def mixers(model: nn.Module) -> dict[str, nn.Module]:
    """The token mixers by name: what says its slots, and what stands in a block in the place of a mixer."""
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        if any(name.startswith(f"{other}.") for other in found):
            continue
        place = name.split(".")
        in_place = place[-1:] == ["mixer"] and not isinstance(module, Residual)
        if hasattr(module, "slots") or in_place or place[-2:] == ["mixer", "op"]:
            found[name] = module
    return found


def chosen_mixers(model: nn.Module, layer: str | None) -> dict[str, nn.Module]:
    """The mixers that are looked at: the last one of each stage, or the first one at or below ``layer``.

    Raises:
        ValueError: There is none there.
    """
    known = mixers(model)
    if layer is not None:
        inside = [name for name in known if name == layer or name.startswith(f"{layer}.")]
        if not inside:
            places = known or stages(model)
            raise ValueError(unknown("layer with a mixer", layer, places))
        return {inside[0]: known[inside[0]]}
    last: dict[str, nn.Module] = {}
    for stage in stages(model) if known else ():
        inside = [name for name in known if name.startswith(f"{stage}.")]
        if inside:
            last[inside[-1]] = known[inside[-1]]
    return last


@contextlib.contextmanager
def listening(modules: Mapping[str, nn.Module], *, inputs: bool = False) -> Iterator[dict[str, Any]]:
    """Within it, a dict that gets what each module returns, or the tuple of what it is given, by name."""
    heard: dict[str, Any] = {}

    def hook(name: str) -> Callable[..., None]:
        def hear(module: nn.Module, given: tuple[Any, ...], returned: Any) -> None:
            heard[name] = given if inputs else returned

        return hear

    handles = [module.register_forward_hook(hook(name)) for name, module in modules.items()]
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()


def passing(modules: Mapping[str, nn.Module], run: Callable[[Tensor], Any], x: Tensor) -> dict[str, Tensor]:
    """What each module returns in a run without gradients, for those that ran and returned a map (B, C, H, W)."""
    with listening(modules) as heard, torch.no_grad():
        run(x)
    return {name: y for name, y in heard.items() if isinstance(y, Tensor) and y.ndim == 4}
