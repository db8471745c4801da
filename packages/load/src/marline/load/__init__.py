"""Stage 1: any supported source becomes a checkpoint folder with sample inputs."""

from typing import TYPE_CHECKING, Any

from marline.load._files import local_files

if TYPE_CHECKING:
    from marline.load._load import load

__all__ = ["load", "local_files"]


def __getattr__(name: str) -> Any:
    """`load` comes when it is asked for: it brings torch, and a run whose load is cached does without."""
    if name != "load":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from marline.load._load import load  # noqa: PLC0415 - see above

    return load
