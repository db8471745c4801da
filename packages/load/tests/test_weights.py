"""The rule of `load.weights`, with sources whose published weights can and cannot be had."""

import socket
from collections.abc import Callable, Mapping
from urllib.error import URLError

import pytest
import torch
from torch import nn

from marline.core import LoadConfig, StageError
from marline.load._source import Weights
from marline.load._weights import DOWNLOAD_S, build

Published = Callable[[], Mapping[str, torch.Tensor]]
Built = Callable[[Published, str], tuple[nn.Module, Weights]]


@pytest.fixture
def built(config: Callable[..., LoadConfig]) -> Built:
    """A tiny module by the rule of `load.weights`."""
    return lambda published, weights: build(
        lambda: nn.Linear(2, 1), published, config(source="torchvision:tiny", weights=weights, seed=1), []
    )


def out_of_reach() -> Mapping[str, torch.Tensor]:
    raise URLError("no route to host")


def cut_off() -> Mapping[str, torch.Tensor]:
    raise RuntimeError("invalid hash value")  # as torch.hub does


def patient() -> Mapping[str, torch.Tensor]:
    assert DOWNLOAD_S == socket.getdefaulttimeout()
    raise TimeoutError("timed out")


THERE = {"weight": torch.tensor([[3.0, 4.0]]), "bias": torch.tensor([5.0])}


@pytest.mark.parametrize("weights", ["auto", "published"])
def test_published_weights_are_taken_when_they_can_be_had(built: Built, weights: str) -> None:
    module, told = built(lambda: THERE, weights)

    assert torch.equal(THERE["weight"], module.state_dict()["weight"])
    assert ("published", "published with torchvision:tiny") == (told.kind, told.detail)
    assert not module.training


@pytest.mark.parametrize("published", [out_of_reach, cut_off, patient])
def test_auto_goes_on_with_random_weights_and_says_so(built: Built, published: Published) -> None:
    module, told = built(published, "auto")

    expected, _ = built(published, "random")
    assert ("random", "seed 1: answers mean nothing, speed does") == (told.kind, told.detail)
    assert torch.equal(expected.state_dict()["weight"], module.state_dict()["weight"])
    assert None is socket.getdefaulttimeout()


@pytest.mark.parametrize("published", [out_of_reach, cut_off, patient])
def test_published_fails_with_the_remedy(built: Built, published: Published) -> None:
    with pytest.raises(StageError, match=r"cannot be had: .*give load\.weights=FILE\.safetensors, or load\.weights=random"):
        built(published, "published")


def test_random_never_asks_for_what_is_published(built: Built) -> None:
    asked = []

    def published() -> Mapping[str, torch.Tensor]:
        asked.append("yes")
        return THERE

    built(published, "random")

    assert [] == asked
