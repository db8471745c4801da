"""Weights that someone else saved: reading them without running their code, renaming them, refusing what is broken.

A pickle is read through torch's weights_only=True alone, which builds tensors and calls nothing else.
"""

import re
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from marline.core import LoadConfig, RequestError, StageError

SHOWN = 5  # keys in one message

Tensors = Mapping[str, torch.Tensor]


def read_weights(file: Path, where: str, config: LoadConfig) -> Tensors:
    """The tensors of one file, mapped into memory where the format allows; `where` says in messages which file it is."""
    if file.suffix == ".safetensors":
        try:
            with safe_open(file, framework="pt") as opened:
                return {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 - not a mapping
        except (SafetensorError, OSError) as error:
            raise StageError(f"{where} is not a safetensors file: {error}") from None
    if not config.allow_pickle:
        raise RequestError(
            f"{where} is a pickle; convert it to safetensors, or set load.allow_pickle=true to read it with weights_only=True"
        )
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=_is_zip(file))
    except Exception as error:  # the file is foreign, and so is all that its reader may raise
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise StageError(f"{where} holds more than tensors, or is damaged; nothing of it was run: {reason}") from None
    return _tensors(content, where)


def _is_zip(file: Path) -> bool:
    """Whether torch saved it in the format that can be mapped into memory (since torch 1.6)."""
    with file.open("rb") as stream:
        return stream.read(2) == b"PK"


def _tensors(content: object, where: str) -> Tensors:
    """The state dict in a pickle: it, or the one mapping of tensors inside, as trainers save it."""
    inside = [content, *content.values()] if isinstance(content, Mapping) else []
    found = [each for each in inside if isinstance(each, Mapping) and each and _all_tensors(each)]
    if len(found) != 1:
        raise StageError(f"{where} holds {len(found)} mappings of names to tensors; save model.state_dict() alone")
    return found[0]


def _all_tensors(values: Mapping[object, object]) -> bool:
    return all(isinstance(value, torch.Tensor) for value in values.values())


def renamed(tensors: Tensors, rename: Mapping[str, str], where: str) -> dict[str, torch.Tensor]:
    """The tensors under the names that `load.rename` gives them, its expressions applied in order; each must match a name."""
    names = list(tensors)
    for pattern, replacement in rename.items():
        try:
            found = [re.subn(pattern, replacement, name) for name in names]
        except re.error as error:
            raise RequestError(f"load.rename: {pattern!r} -> {replacement!r} is no regular expression: {error}") from None
        if not any(count for _, count in found):
            raise StageError(f"load.rename: {pattern!r} matches no name in {where}; it has {_listed(sorted(names))}")
        names = [name for name, _ in found]
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise StageError(f"load.rename gives several tensors of {where} the same name: {_listed(twice)}")
    return dict(zip(names, tensors.values(), strict=True))


def refuse_misfit(where: str, *, missing: Collection[str], extra: Collection[str], shapes: Collection[str]) -> None:
    """StageError that lists what lacks, what is too much and what has another shape, if anything."""
    parts = [
        f"{what}: {_listed(sorted(keys))}"
        for what, keys in (("missing", missing), ("not in the model", extra), ("of another shape", shapes))
        if keys
    ]
    if parts:
        raise StageError(f"{where} does not fit the model; {'; '.join(parts)}")


def refuse_infinite(tensors: Tensors, where: str) -> None:
    """StageError that names the tensors with NaN or infinite values, if any; tensors without data are skipped."""
    broken = [key for key, value in tensors.items() if not _is_finite(value)]
    if broken:
        raise StageError(f"{where}: not finite in {_listed(broken)}")


def _is_finite(value: torch.Tensor) -> bool:
    if value.is_meta or not value.is_floating_point() or value.numel() == 0:
        return True
    small = value.to(torch.float16) if value.dtype.itemsize == 1 else value  # float8 has no minimum
    least, most = torch.aminmax(small)  # NaN wins both; unlike isfinite it makes no second tensor of this size
    return bool(torch.isfinite(least) and torch.isfinite(most))


def _listed(keys: Collection[str]) -> str:
    shown = list(keys)[:SHOWN]
    return f"{', '.join(shown)}{f' and {len(keys) - SHOWN} more' if len(keys) > SHOWN else ''}"
