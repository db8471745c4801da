"""The rule of `load.weights`, with sources whose published weights can and cannot be had."""

import socket
from collections.abc import Callable, Mapping
from urllib.error import URLError

import pytest
import torch
from torch import nn

from marline.core import LoadConfig, StageError
from marline.load._sources import Source
from marline.load._weights import DOWNLOAD_S, build


def config(weights: str) -> LoadConfig:
    return LoadConfig(
        source="torchvision:tiny", weights=weights, seed=1, task="image-classification", init_kwargs={}, samples=None
    )


def source(published: Callable[[], Mapping[str, torch.Tensor]]) -> Source:
    return Source(build=lambda: nn.Linear(2, 1), published=published, processor=None, labels={}, code=None)


def out_of_reach() -> Mapping[str, torch.Tensor]:
    raise URLError("no route to host")


def cut_off() -> Mapping[str, torch.Tensor]:
    raise RuntimeError("invalid hash value")  # as torch.hub does


def patient() -> Mapping[str, torch.Tensor]:
    assert DOWNLOAD_S == socket.getdefaulttimeout()
    raise TimeoutError("timed out")


THERE = {"weight": torch.tensor([[3.0, 4.0]]), "bias": torch.tensor([5.0])}


@pytest.mark.parametrize("weights", ["auto", "published"])
def test_published_weights_are_taken_when_they_can_be_had(weights: str) -> None:
    module, told = build(source(lambda: THERE), config(weights), [])

    assert torch.equal(THERE["weight"], module.state_dict()["weight"])
    assert ("published", "published with torchvision:tiny") == (told.kind, told.detail)
    assert not module.training


@pytest.mark.parametrize("published", [out_of_reach, cut_off, patient])
def test_auto_goes_on_with_random_weights_and_says_so(published: Callable[[], Mapping[str, torch.Tensor]]) -> None:
    module, told = build(source(published), config("auto"), [])

    expected, _ = build(source(published), config("random"), [])
    assert ("random", "seed 1: answers mean nothing, speed does") == (told.kind, told.detail)
    assert torch.equal(expected.state_dict()["weight"], module.state_dict()["weight"])
    assert None is socket.getdefaulttimeout()


@pytest.mark.parametrize("published", [out_of_reach, cut_off, patient])
def test_published_fails_with_the_remedy(published: Callable[[], Mapping[str, torch.Tensor]]) -> None:
    with pytest.raises(StageError, match=r"cannot be had: .*give load\.weights=FILE\.safetensors, or load\.weights=random"):
        build(source(published), config("published"), [])


def test_random_never_asks_for_what_is_published() -> None:
    asked = []

    def published() -> Mapping[str, torch.Tensor]:
        asked.append("yes")
        return THERE

    build(source(published), config("random"), [])

    assert [] == asked
