"""Decides which weights a model gets, and says so: published, a file's, or seeded random ones."""

import io
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from marline.core import LoadConfig, RequestError, StageError
from marline.load._sources import Source

DOWNLOAD_S = 20.0  # without a byte for this long, published weights count as out of reach


@dataclass(frozen=True, slots=True)
class Weights:
    """Where the weights of a loaded model came from."""

    kind: str  # published | file | random
    detail: str


def build(source: Source, config: LoadConfig, images: Sequence[torch.Tensor]) -> tuple[nn.Module, Weights]:
    """The module in eval mode with its weights, by the rule of `load.weights`.

    `auto` takes the published weights when they can be had and seeded random ones otherwise; the other values do what
    they say or fail. `images` [3, H, W] settle the statistics of batch norm where weights are random.
    """
    if config.weights not in {"auto", "published", "random"}:
        return _from_file(source, Path(config.weights))
    if config.weights != "random" and source.published is not None:
        try:
            module = source.build()
            with _patience(DOWNLOAD_S):
                module.load_state_dict(source.published())
        except (URLError, OSError, RuntimeError) as error:
            if config.weights == "published":
                raise StageError(
                    f"the published weights of {config.source} cannot be had: {error}; "
                    "give load.weights=FILE.safetensors, or load.weights=random to go on without"
                ) from None
        else:
            return module.eval(), Weights("published", f"published with {config.source}")
    elif config.weights == "published":
        raise RequestError(f"load.weights=published: {config.source} publishes none; give load.weights=FILE.safetensors")
    return _random(source, config, images)


@contextmanager
def _patience(seconds: float) -> Iterator[None]:
    """Give up on a silent network after `seconds`, and keep the downloader's own lines out of the console."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        socket.setdefaulttimeout(before)


def _from_file(source: Source, file: Path) -> tuple[nn.Module, Weights]:
    module = source.build()
    try:
        tensors = load_file(file)
    except SafetensorError as error:
        raise RequestError(f"load.weights={file} is not a safetensors file: {error}") from None
    _same_keys(module.state_dict(), tensors, file)
    broken = [key for key, value in tensors.items() if value.is_floating_point() and not torch.isfinite(value).all()]
    if broken:
        raise StageError(f"load.weights={file}: not finite in {', '.join(broken[:5])}")
    module.load_state_dict(tensors)
    return module.eval(), Weights("file", str(file))


def _same_keys(expected: Mapping[str, torch.Tensor], got: Mapping[str, torch.Tensor], file: Path) -> None:
    missing, extra = sorted(expected.keys() - got.keys()), sorted(got.keys() - expected.keys())
    shapes = [key for key in expected.keys() & got.keys() if expected[key].shape != got[key].shape]
    parts = [
        f"{what}: {', '.join(keys[:5])}{' ...' if len(keys) > 5 else ''}"
        for what, keys in (("missing", missing), ("not in the model", extra), ("of another shape", sorted(shapes)))
        if keys
    ]
    if parts:
        raise StageError(f"load.weights={file} does not fit the model; {'; '.join(parts)}")


def _random(source: Source, config: LoadConfig, images: Sequence[torch.Tensor]) -> tuple[nn.Module, Weights]:
    torch.manual_seed(config.seed)
    module = source.build()
    if images:
        _settle(module, torch.stack(list(images)))
    return module.eval(), Weights("random", f"seed {config.seed}: answers mean nothing, speed does")


def _settle(module: nn.Module, images: torch.Tensor) -> None:
    """Let batch norm see real images once, so that activations keep a natural scale through the depth.

    Without it the variance of an untrained ResNet doubles with each block, and rounding decides its answers.
    """
    norms = [layer for layer in module.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]  # noqa: SLF001
    for layer in norms:
        layer.momentum, layer.training = 1.0, True
    with torch.no_grad():
        module.eval()
        for layer in norms:
            layer.train()
        module(images)
    for layer in norms:
        layer.momentum = 0.1
