"""Reads a user's `model-config.yaml` strictly: TorchServe ignores what it does not understand, or only logs it.

The keys are those of TorchServe 0.12's `ModelConfig` and of what its Python side reads. Others are the user's own and kept.
"""

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

import yaml

from marline.core import RequestError

BYTES, DEPTH = 256 << 10, 32
LARGEST = 2**31 - 1  # Java's int; TorchServe ignores what is larger
WHOLE = {  # key: smallest, largest
    "minWorkers": (0, 1024),
    "maxWorkers": (0, 1024),
    "batchSize": (1, 1024),
    "maxBatchDelay": (1, 60_000),
    "responseTimeout": (1, LARGEST),
    "startupTimeout": (1, LARGEST),
    "maxRetryTimeoutInSec": (1, LARGEST),
    "clientTimeoutInMills": (0, LARGEST),
    "jobQueueSize": (1, LARGEST),
    "parallelLevel": (1, LARGEST),
    "sequenceMaxIdleMSec": (1, LARGEST),
    "sequenceTimeoutMSec": (1, LARGEST),
    "maxNumSequence": (1, LARGEST),
    "maxSequenceJobQueueSize": (1, LARGEST),
}
FLAGS = ("useJobTicket", "sequenceBatching", "continuousBatching", "asyncCommunication", "useVenv")
WORDS = {"deviceType": ("cpu", "gpu", "neuron"), "parallelType": ("pp", "tp", "pptp", "custom")}
SECTIONS = ("torchrun", "pippy", "deepspeed", "micro_batching", "dali", "handler", "system")
KNOWN = (*WHOLE, *FLAGS, *WORDS, "deviceIds", "pt2", *SECTIONS)
TORCHRUN_WHOLE = ("nnodes", "nproc-per-node", "max-restarts", "monitor-interval", "node-rank", "OMP_NUMBER_THREADS")
TORCHRUN = (*TORCHRUN_WHOLE, "rdzv-id", "rdzv-backend", "rdzv-endpoint", "rdzv-conf", "master-addr", "master-port")
SYSTEM = ("extraFiles", "maxGPUMemory")
LONG_DELAY_MS, LONG_TIMEOUT_S = 1000, 600
NO_DELAY = "TorchServe takes 0 for unsaid and waits 100 ms; write 1 or 2"


def parse_config(text: bytes, origin: str) -> dict[str, Any]:
    """The values of a model config; RequestError tells all that is wrong with it together."""
    values = load_config(text, origin)
    wrong = list(errors(values))
    if wrong:
        raise RequestError("\n".join(f"{origin}: {why}" for why in wrong))
    return values


def load_config(text: bytes, origin: str) -> dict[str, Any]:
    """The values of any model config, right or wrong; RequestError where it is no plain YAML mapping."""
    if len(text) > BYTES:
        raise RequestError(f"{origin}: {len(text):,} bytes are no model config; at most {BYTES:,} are read")
    try:
        content = text.decode("utf-8-sig")
        _refuse_tricks(content)
        values = yaml.safe_load(content)
    except Exception as error:  # yaml has errors of its own, and its constructors of dates, numbers and bytes any others
        raise RequestError(f"{origin} cannot be read as plain YAML: {' '.join(str(error).split())[:300]}") from None
    if values is not None and not isinstance(values, dict):
        raise RequestError(f"{origin}: a model config is key: value lines, not a {type(values).__name__}")
    return values or {}


def errors(values: Mapping[Any, Any]) -> Iterator[str]:
    """What TorchServe would ignore, or take for something else."""
    for key, value in values.items():
        if not isinstance(key, str):
            yield f"the key {key!r} is no text; write it in quotes"
        elif key not in KNOWN:
            yield from _near(key, KNOWN, "")
        else:
            why = _wrong(key, value)
            if why:
                yield f"{key}: {value!r} is refused: {why}"
    low, high = values.get("minWorkers"), values.get("maxWorkers")
    if isinstance(low, int) and isinstance(high, int) and high < low:
        yield f"maxWorkers: {high} is below minWorkers: {low}; TorchServe then ignores both"
    for section, known in (("torchrun", TORCHRUN), ("system", SYSTEM)):
        yield from _section(section, values.get(section), known)


def oddities(values: Mapping[str, Any]) -> Iterator[str]:
    """What is legal and seldom meant."""
    size, delay_ms, timeout_s = values.get("batchSize", 1), values.get("maxBatchDelay", 0), values.get("responseTimeout", 0)
    if delay_ms >= LONG_DELAY_MS and size > 1:
        yield f"maxBatchDelay {delay_ms}: every batch of fewer than {size} requests waits {delay_ms / 1e3:g} s"
    if timeout_s > LONG_TIMEOUT_S:
        yield f"responseTimeout {timeout_s} is in seconds: a worker that hangs is noticed after {timeout_s / 60:.0f} minutes"
    if values.get("minWorkers") == 0:
        yield "minWorkers 0: nothing is served until the model is scaled"
    if values.get("useJobTicket") and size > 1:
        yield f"useJobTicket makes every batch one of 1, whatever batchSize {size} says"
    if values.get("deviceType") == "neuron":
        yield "deviceType neuron is passed on to the handler; TorchServe 0.12's frontend knows cpu and gpu and chooses itself"
    if "deviceIds" in values:
        cpu = values.get("deviceType") == "cpu"
        told = "have no effect with deviceType cpu" if cpu else "are not checked here; the server must have these GPUs"
        yield f"deviceIds {values['deviceIds']} {told}"


def _refuse_tricks(content: str) -> None:
    """Aliases (a bomb is made of them), depth, and keys that are said twice, of which YAML takes the last without a word."""
    depth = 0
    for event in yaml.parse(content, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"*{event.anchor}: aliases are not read; write the value out")  # noqa: TRY004
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > DEPTH:
            raise ValueError(f"it is nested more than {DEPTH} deep")
    root = yaml.compose(content, Loader=yaml.SafeLoader)
    nodes = [root] if root is not None else []
    while nodes:
        node = nodes.pop()
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            twice = next((key for key in keys if keys.count(key) > 1), None)
            if twice is not None:
                raise ValueError(f"{twice} is said twice")
            nodes += [value for _, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            nodes += node.value


def _wrong(key: str, value: Any) -> str | None:
    """Why a value of a known key is none; None where it is."""
    if key == "maxBatchDelay" and value == 0 and not isinstance(value, bool):
        return NO_DELAY
    right, otherwise = _rule(key, value)
    return None if right else otherwise


def _rule(key: str, value: Any) -> tuple[bool, str]:
    """Whether a value is right, and what it must be."""
    if key in WHOLE:
        low, high = WHOLE[key]
        return type(value) is int and low <= value <= high, f"it must be a whole number, unquoted, from {low} to {high}"
    if key in FLAGS:
        return isinstance(value, bool), "it must be true or false"
    if key in WORDS:
        return isinstance(value, str) and value.lower() in WORDS[key], f"it must be one of {', '.join(WORDS[key])}"
    if key == "deviceIds":
        whole = isinstance(value, list) and all(type(each) is int and each >= 0 for each in value)
        return whole and 0 < len(value) == len(set(value)), "it must be a list of different GPU numbers"
    if key == "pt2":
        return isinstance(value, (str, dict)), "it must be a mapping, or the name of a backend"
    return isinstance(value, dict), "it must be a mapping"


def _section(section: str, told: Any, known: tuple[str, ...]) -> Iterator[str]:
    if not isinstance(told, dict):
        return
    for key, value in told.items():
        if key in TORCHRUN_WHOLE and (isinstance(value, bool) or not isinstance(value, int)):
            yield f"{section}.{key}: {value!r} is refused: it must be a whole number"
        elif key == "extraFiles" and not (isinstance(value, str) and value.strip()):
            yield f"{section}.{key}: {value!r} is refused: it must be the name of an archive"
        elif key == "maxGPUMemory" and (isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0):
            yield f"{section}.{key}: {value!r} is refused: it must be a number of megabytes above 0"
        elif key not in known:
            yield from _near(str(key), known, f"{section}.")


def _near(key: str, known: tuple[str, ...], prefix: str) -> Iterator[str]:
    """A key that is nearly a known one: nobody means to have one of his own beside it."""
    folded = {_folded(name): name for name in known}
    near = get_close_matches(_folded(key), folded, n=1, cutoff=0.85)
    if near:
        yield f"{prefix}{key} is no key of TorchServe's and nobody would read it; did you mean {prefix}{folded[near[0]]}?"


def _folded(key: str) -> str:
    return re.sub(r"[\W_]", "", key).lower()
