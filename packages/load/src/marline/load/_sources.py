"""Which reader a source has; brings torch, and with it all that a stage taken from the cache does without."""

from collections.abc import Callable

from marline.core import LoadConfig
from marline.load._handler import from_handler
from marline.load._python import from_python
from marline.load._source import Source
from marline.load._timm import from_timm
from marline.load._torchscript import from_torchscript
from marline.load._transformers import from_transformers

READERS: dict[str, Callable[[LoadConfig], Source]] = {
    "handler": from_handler,
    "python": from_python,
    "timm": from_timm,
    "torchscript": from_torchscript,
}  # everything else is a Hugging Face repository: hf:, package:, or a folder


def source_of(config: LoadConfig) -> Source:
    """What `config.source` names, looked at and not yet loaded."""
    kind = config.source.partition(":")[0]
    if kind == "torchvision":
        from marline.load._torchvision import from_torchvision  # noqa: PLC0415 - more than a second, which others do without

        return from_torchvision(config)
    return READERS.get(kind, from_transformers)(config)
