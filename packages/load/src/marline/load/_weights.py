"""Decides which weights a plain module gets, and says so: published, a file's, or seeded random ones."""

import io
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from urllib.error import URLError

import torch
from torch import nn

from marline.core import LoadConfig, RequestError, StageError, located
from marline.load._files import WORDS
from marline.load._foreign import read_weights, refuse_infinite, refuse_misfit, renamed
from marline.load._source import Weights, random_weights

DOWNLOAD_S = 20.0  # without a byte for this long, published weights count as out of reach

Published = Callable[[], Mapping[str, torch.Tensor]]


def build(
    make: Callable[[], nn.Module], published: Published | None, config: LoadConfig, images: Sequence[torch.Tensor]
) -> tuple[nn.Module, Weights]:
    """The module in eval mode with its weights, by the rule of `load.weights`.

    `auto` takes the published weights when they can be had and seeded random ones otherwise; the other values do what
    they say or fail. `images` [3, H, W] settle the statistics of batch norm where weights are random.
    """
    if config.weights not in WORDS:
        return _from_file(make(), config)
    if config.rename:
        raise RequestError(f"load.rename has no effect on the weights of {config.source}; it goes with load.weights=FILE")
    if config.weights != "random" and published is not None:
        try:
            module = make()
            with _patience(DOWNLOAD_S):
                module.load_state_dict(published())
        except (StageError, URLError, OSError, RuntimeError) as error:
            if config.weights == "published":
                raise StageError(
                    f"the published weights of {config.source} cannot be had: {error}; "
                    "give load.weights=FILE.safetensors, or load.weights=random to go on without"
                ) from None
        else:
            refuse_infinite(module.state_dict(), config.source)
            return module.eval(), Weights("published", f"published with {config.source}")
    elif config.weights == "published":
        raise RequestError(f"load.weights=published: {config.source} publishes none; give load.weights=FILE.safetensors")
    return _random(make, config, images)


@contextmanager
def _patience(seconds: float) -> Iterator[None]:
    """Give up on a silent network after `seconds`, and keep the downloader's own lines out of the console."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        with redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
            yield
    finally:
        socket.setdefaulttimeout(before)


def _from_file(module: nn.Module, config: LoadConfig) -> tuple[nn.Module, Weights]:
    where, expected = f"load.weights={config.weights}", module.state_dict()
    tensors = renamed(read_weights(located(config.weights), where, config), config.rename, where)
    missing, extra = expected.keys() - tensors.keys(), tensors.keys() - expected.keys()
    shapes = {key for key in expected.keys() & tensors.keys() if expected[key].shape != tensors[key].shape}
    refuse_misfit(where, missing=missing, extra=extra, shapes=shapes)
    refuse_infinite(tensors, where)
    module.load_state_dict(tensors)
    return module.eval(), Weights("file", config.weights)


def _random(make: Callable[[], nn.Module], config: LoadConfig, images: Sequence[torch.Tensor]) -> tuple[nn.Module, Weights]:
    torch.manual_seed(config.seed)
    module = make()
    if images:
        _settle(module, torch.stack(list(images)))
    return module.eval(), random_weights(config.seed)


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
