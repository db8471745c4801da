"""Freezes an exported module and finds out, by measuring and by proof, which layouts and fusions are worth it here.

Weights in channels-last order and fused operators are faster for most convolution nets on most machines, not for all;
each is kept only where every case is still answered like the eager model and the measured gain is worth it.
"""

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from marline.core import ExportConfig, ParityError, RequestError, progress
from marline.export._eager import Asked
from marline.export._parity import Row, Tolerance, narrowed
from marline.export._proof import prove
from marline.export._torchscript import Script, free_devices, freeze, fuse

WORTH = 1.05  # times as fast as without, else it is left out
ROUNDS = 3  # each variant in turn; the quickest of each counts

Make = Callable[[nn.Module], Script]


@dataclass(frozen=True, slots=True)
class Tuned:
    """What is published: the frozen module, whether it is to be fused after loading, and how that was decided."""

    module: Script
    channels_last: bool
    fuse: bool
    speed: Mapping[str, float]  # requests per second of each variant over the plain frozen module's
    rows: Sequence[Row]


def tuned(
    module: nn.Module, exported: Script, make: Make, asked: Sequence[Asked], config: ExportConfig, tolerance: Tolerance
) -> Tuned:
    """Freeze what was exported of the module, and choose layout and fusion; ParityError where freezing changes answers.

    RequestError where channels-last is demanded of a model without convolutions.
    """
    if config.channels_last is True and not _has_convolutions(module):
        raise RequestError("export.channels_last=true has no effect: the model has no convolution of images; leave it out")
    plain, rows = _frozen(exported, asked, config, tolerance)
    variants: dict[str, tuple[Script, Script, list[Row]]] = {"frozen": (plain, plain, rows)}
    if config.channels_last is not False and _has_convolutions(module):
        _add(variants, "channels-last", config.channels_last is True, lambda: _turned(module, make, asked, config, tolerance))
    if config.fuse is not False:
        name = list(variants)[-1] if config.channels_last is True else "frozen"  # fusing brings a layout of its own
        saved, _, before = variants[name]
        _add(variants, f"{name}, fused", config.fuse is True, lambda: _fused(saved, before, asked, config, tolerance))
    allowed = {
        name: each
        for name, each in variants.items()
        if (config.channels_last is not True or "channels-last" in name) and (config.fuse is not True or "fused" in name)
    }
    speed = (
        _speeds({name: runs for name, (_, runs, _) in variants.items()}, narrowed(_largest(asked), config.dtype))
        if len(variants) > 1
        else {}
    )
    best = max(allowed, key=lambda name: speed.get(name, 1.0) * (1.0 if name == "frozen" else 1 / WORTH))
    saved, _, rows = allowed[best]
    return Tuned(saved, "channels-last" in best, "fused" in best, speed, rows)


def _add(variants: dict[str, Any], name: str, demanded: bool, make: Callable[[], Any]) -> None:
    try:
        made = make()
    except Exception as error:  # a layout or a fusion that this module cannot have
        if demanded:
            raise ParityError(f"{name}: {error}") from None
        return
    variants[name] = (made[0], made[0], made[1]) if len(made) == 2 else made


def _frozen(module: Script, asked: Sequence[Asked], config: ExportConfig, tolerance: Tolerance) -> tuple[Script, list[Row]]:
    """Frozen with batch norms folded; without, where folding changes answers by more than is allowed."""
    names = _preserved(module, config)
    folded = freeze(module, names)
    free_devices(folded)
    try:
        return folded, prove(folded, asked, "frozen", tolerance, config.dtype)
    except ParityError:
        exact = freeze(module, names, exact=True)
        free_devices(exact)
        return exact, prove(exact, asked, "frozen", tolerance, config.dtype)


def _turned(
    module: nn.Module, make: Make, asked: Sequence[Asked], config: ExportConfig, tolerance: Tolerance
) -> tuple[Script, list[Row]]:
    return _frozen(make(copy.deepcopy(module).to(memory_format=torch.channels_last)), asked, config, tolerance)


def _fused(
    saved: Script, before: list[Row], asked: Sequence[Asked], config: ExportConfig, tolerance: Tolerance
) -> tuple[Script, Script, list[Row]]:
    fused = fuse(saved)
    return saved, fused, [*before, *prove(fused, asked, "fused", tolerance, config.dtype)]


def _preserved(module: Script, config: ExportConfig) -> list[str]:
    """The names that the configuration keeps, and every method that was exported beside forward."""
    methods = [name for name in module._c._method_names() if name != "forward" and not name.startswith("_")]  # noqa: SLF001 - there is no public list
    return list(dict.fromkeys([*config.preserve, *methods]))


def _speeds(runs: Mapping[str, Script], arguments: tuple[Any, ...]) -> dict[str, float]:
    """Of each variant over the plain one's, in turn, so that all see the same machine."""
    quickest = dict.fromkeys(runs, float("inf"))
    with torch.inference_mode():
        for turn in range(ROUNDS + 2):  # TorchScript optimises a shape in its first two runs
            for name, run in runs.items():
                progress(0.6 + 0.2 * turn / (ROUNDS + 2), f"timing {name}")
                began = time.perf_counter()
                run(*arguments)
                took = time.perf_counter() - began
                quickest[name] = min(quickest[name], took) if turn > 1 else quickest[name]
    return {name: round(quickest["frozen"] / took, 3) for name, took in quickest.items()}


def _largest(asked: Sequence[Asked]) -> tuple[Any, ...]:
    """The arguments of a batch of eight, else of the largest up to it."""
    fitting = [one.case for one in asked if one.case.demanded and one.case.batch <= 8] or [asked[0].case]
    return max(fitting, key=lambda case: case.batch).arguments


def _has_convolutions(module: nn.Module) -> bool:
    return any(isinstance(part, nn.Conv2d) for part in module.modules())
