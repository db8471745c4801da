"""Tokens that end while they are used."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from marline.core import read_config
from marline.deploy import serving
from marline.loadtest import Load, Target, measure


@pytest.mark.faults(
    "F25", "tokens of 3 s expire under a load test", "renewed in time: no request is refused or lost", seconds=30
)
def test_f25_tokens_that_expire_under_load_are_renewed(make: Callable[..., Path], tmp_path: Path) -> None:
    order = tmp_path / "order.json"
    order.write_text(json.dumps({"n": 1}))
    config = read_config(["model=digits_cnn", "deploy.token_min=0.05"]).config.deploy
    load = Load(rps=20, seconds=10, warmup_s=0, arrivals="constant", seed=0, timeout_s=5)

    with serving(config, tmp_path / "logs") as server:
        server.load(make("renewed"), "renewed", batch_size=1, max_batch_delay_ms=10, workers=1)
        url, token = f"{server.client.inference_url}/predictions/renewed", server.client.tokens.inference
        measured = measure(Target(url=url, token=token, token_file=server.token_file), [order], load, tmp_path / "load")
        renewed = server.client.tokens.inference

    assert {} == measured.errors
    assert 200 == measured.status.size
    assert token != renewed
