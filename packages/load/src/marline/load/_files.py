"""Which of the user's own files decide what a load makes."""

from pathlib import Path

from marline.core import LoadConfig, located

WORDS = ("auto", "published", "random")  # of load.weights; anything else is a file


def local_files(config: LoadConfig) -> list[Path]:
    """Files and folders of this machine that stage load reads for `config`; their content belongs into a cache key."""
    kind, _, name = config.source.partition(":")
    if kind in {"hf", "timm", "torchvision"}:
        files = []
    elif kind == "python":
        files = [Path(name.rpartition(":")[0])]
    elif kind == "handler":
        files = [Path(name)]
    else:
        files = [located(name if kind == "torchscript" else config.source)]
    told = [config.samples] if config.weights in WORDS else [config.weights, config.samples]
    return [*files, *(located(path) for path in told if path is not None)]
