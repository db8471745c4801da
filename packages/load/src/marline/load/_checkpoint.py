"""The checkpoint of a Hugging Face model: the source's own files where nothing has to change, else saved anew.

Weights are proven to fit by loading them. Safetensors are mapped into memory shard by shard, so a load needs the size of
the model; files that need no change are copied and never pass through memory.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open
from transformers.dynamic_module_utils import get_class_from_dynamic_module
from transformers.utils import logging as hf_logging

from marline.core import LoadConfig, StageError, progress
from marline.load._files import WORDS
from marline.load._foreign import read_weights, refuse_infinite, refuse_misfit, renamed
from marline.load._head import Head
from marline.load._hub import Place
from marline.load._processors import LICENCES, copy_files, matching, processor_files
from marline.load._source import Weights, Written
from marline.load._stored import Stored, find_stored

UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9}
HEADER_TYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}  # as safetensors writes them


@dataclass(frozen=True, slots=True)
class Found:
    """A Hugging Face model before it has weights."""

    config: LoadConfig
    place: Place
    told: Any  # its config, load.init_kwargs included
    head: Head
    code: Sequence[str]  # its own Python files, where they are trusted
    own_code: bool  # the model's own class is among them


def write_checkpoint(found: Found, checkpoint: Path, _: Sequence[Path]) -> Written:
    """Load the weights, or make random ones, and write the folder that `save_pretrained` would write."""
    stored = find_stored(found.config, found.place)
    processors = processor_files(stored.place)
    checkpoint.mkdir()
    with _quiet():
        model, unused = _loaded(found, stored) if stored.files else (_random(found), [])
        progress(0.7, "writing the checkpoint")
        as_is = _fits_as_it_is(found, stored, type(model).__name__)
        if not as_is:
            model.save_pretrained(checkpoint, max_shard_size=found.config.max_shard_size)
    if as_is:
        copy_files(stored.place, ["config.json", *stored.names], checkpoint, with_code=found.own_code)
    beside = [*processors, *found.code, *matching(stored.place, ("generation_config.json", *LICENCES))]
    copy_files(stored.place, beside, checkpoint, with_code=found.config.trust_remote_code)
    rest = f"; not used: {', '.join(unused[:3])}{' ...' if len(unused) > 3 else ''}" if unused else ""
    weights = Weights(stored.weights.kind, stored.weights.detail + rest)
    facts = {
        "auto_class": found.head.auto_class,
        "architectures": found.told.architectures if as_is else [type(model).__name__],
        "custom_code": found.own_code,
        "revision": found.place.revision,
        "processors": processors,
    }
    return Written(weights, sum(parameter.numel() for parameter in model.parameters()), facts)


def _random(found: Found) -> Any:
    torch.manual_seed(found.config.seed)
    dtype = {} if found.config.torch_dtype == "auto" else {"dtype": getattr(torch, found.config.torch_dtype)}
    try:
        auto = getattr(transformers, found.head.auto_class)
        return auto.from_config(found.told, trust_remote_code=found.own_code, **dtype).eval()
    except Exception as error:  # foreign code, and sizes that do not go together
        raise _not_built(found, error) from error


def _loaded(found: Found, stored: Stored) -> tuple[Any, list[str]]:
    """The model with the stored weights, and the names of those that it has no place for."""
    saved_as = ", ".join(found.told.architectures or ["nothing in particular"])
    where = (
        f"load.weights={found.config.weights}"
        if stored.weights.kind == "file"
        else f"{found.config.source} (saved as {saved_as})"
    )
    tensors = _tensors(found.config, stored)
    for each in (read_weights(file, str(file), found.config) for file in stored.files) if tensors is None else [tensors]:
        refuse_infinite(each, where)
    progress(0.5, f"building {found.head.auto_class}")
    options = {
        "config": found.told,
        "dtype": found.config.torch_dtype if found.config.torch_dtype == "auto" else getattr(torch, found.config.torch_dtype),
        "device_map": found.config.device_map,
        "offload_folder": found.config.offload_folder,
        "ignore_mismatched_sizes": True,  # we refuse them ourselves, all at once
        "output_loading_info": True,
    }
    try:
        if tensors is not None:
            model, info = _class(found).from_pretrained(None, state_dict=tensors, **options)
        else:
            auto = getattr(transformers, found.head.auto_class)
            model, info = auto.from_pretrained(
                str(stored.place.folder),
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=found.own_code,
                **options,
            )
    except Exception as error:  # foreign code, and sizes that do not go together
        raise _not_built(found, error) from error
    unused = sorted(info["unexpected_keys"])
    shapes = {key for key, *_ in info["mismatched_keys"]}
    refuse_misfit(where, missing=info["missing_keys"], extra=unused if stored.exact else [], shapes=shapes)
    return model, unused


def _tensors(config: LoadConfig, stored: Stored) -> dict[str, torch.Tensor] | None:
    """What transformers shall not read itself: pickles, a file of the user's, and anything to be renamed."""
    if stored.safe and not stored.exact:
        return None
    read: dict[str, torch.Tensor] = {}
    for file in stored.files:
        read |= read_weights(file, str(file), config)
    return renamed(read, config.rename, config.source if config.weights in WORDS else config.weights)


def _class(found: Found) -> Any:
    """The class itself, because AutoClasses take no state dict."""
    if found.head.model_class is not None:
        return getattr(transformers, found.head.model_class)
    reference = found.told.auto_map[found.head.auto_class]
    own: Any = get_class_from_dynamic_module(reference, str(found.place.folder), local_files_only=True)
    own.register_for_auto_class(found.head.auto_class)
    return own


def _fits_as_it_is(found: Found, stored: Stored, class_name: str) -> bool:
    """Whether the stored files are the checkpoint already: same class, same type, no shard too large, nothing renamed."""
    config = found.config
    if not stored.files or not stored.safe or stored.exact or config.init_kwargs:
        return False
    limit = float(config.max_shard_size[:-2]) * UNITS[config.max_shard_size[-2:]]
    types = {config.torch_dtype} if config.torch_dtype == "auto" else {_type(file) for file in stored.files}
    small = all(file.stat().st_size <= limit for file in stored.files)
    wanted = HEADER_TYPES.get(config.torch_dtype, "auto")
    return class_name in (found.told.architectures or []) and small and types == {wanted}


def _type(file: Path) -> str:
    """The one floating type in a file of safetensors; `mixed` where there are several."""
    with safe_open(file, framework="pt") as opened:
        types = {opened.get_slice(key).get_dtype() for key in opened.keys()}  # noqa: SIM118 - not a mapping
    floats = {each for each in types if "F" in each}
    return floats.pop() if len(floats) == 1 else "mixed"


def _not_built(found: Found, error: Exception) -> StageError:
    reason = " ".join(str(error).split())[:300]
    return StageError(f"{found.config.source} cannot be opened as {found.head.auto_class}: {type(error).__name__}: {reason}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' tables, bars and warnings out of the console: what matters in them is in our own messages."""
    logging: Any = hf_logging  # untyped
    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()
