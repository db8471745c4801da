"""Tokens that end while they are used."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from marline.core import read_config
from marline.deploy import Server, serving
from marline.loadtest import Load, Target, measure


@pytest.fixture
def short_lived(make: Callable[..., Path], tmp_path: Path) -> Iterator[Server]:
    """A server whose tokens live for 3 s, with a model."""
    config = read_config(["model=digits_cnn", "deploy.token_min=0.05"]).config.deploy
    with serving(config, tmp_path / "logs") as server:
        server.load(make("renewed"), "renewed", batch_size=1, max_batch_delay_ms=10, workers=1)
        yield server


@pytest.mark.faults(
    "F25", "tokens of 3 s expire under a load test", "renewed in time: no request is refused or lost", seconds=20
)
def test_f25_tokens_that_expire_under_load_are_renewed(short_lived: Server, tmp_path: Path) -> None:
    client, order = short_lived.client, tmp_path / "order.json"
    order.write_text(json.dumps({"n": 1}))
    load = Load(rps=20, seconds=10, warmup_s=0, arrivals="constant", seed=0, timeout_s=5)
    url, token = f"{client.inference_url}/predictions/renewed", client.tokens.inference

    measured = measure(Target(url=url, token=token, token_file=short_lived.token_file), [order], load, tmp_path / "load")

    assert {} == measured.errors
    assert 200 == measured.status.size
    assert client.tokens.renewals >= 3
