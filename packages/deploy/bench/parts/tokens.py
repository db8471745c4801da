"""Tokens that expire under load."""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

from marline.core import StageError, read_config
from marline.deploy import Client, Tokens, serving, swap
from packages.deploy.bench.parts.under_load import under_load
from packages.deploy.bench.parts.versions import versions
from packages.handler.bench.parts.archives import life
from packages.handler.bench.parts.figure import figure

MODEL, LIFE_MIN, LIVES = "digits_cnn", 0.05, 5


def tokens() -> list[dict[str, Any]]:
    """4xx answers over five lives of the shortest token, at 30 requests/s."""
    made = life(MODEL)
    config = read_config([f"model={MODEL}", f"deploy.token_min={LIFE_MIN}"]).config.deploy
    with tempfile.TemporaryDirectory(prefix="marline-bench-") as kept, serving(config, Path(kept, "logs")) as server:
        told = versions(made, Path(kept))
        swap(server, MODEL, told.releases[0])
        digits = [pair["output"]["digit"] for pair in _answers(server.client, told.releases[0].samples)]
        first, before = server.client.tokens.inference, server.client.tokens.renewals
        seconds = LIVES * LIFE_MIN * 60

        def beside() -> None:
            time.sleep(seconds / 2)
            late = Client(server.client.management_url, server.client.inference_url, Tokens("", first))
            body, kind = told.releases[0].samples[0]
            if late.predict(MODEL, body, kind).status != 400:
                raise StageError("the first token is still taken: it never expired, and nothing is shown")

        answers = under_load(server, MODEL, list(told.samples), digits, seconds, Path(kept, "load"), beside)
        renewals = server.client.tokens.renewals - before
    refused = sum(count for what, count in answers.problems.items() if what.startswith("HTTP 4"))
    holds = not answers.problems and renewals >= LIVES - 1
    note = f"{answers.told()}; {renewals} renewals, {answers.resent} requests were sent again with the new token"
    return [figure("4xx while tokens are renewed", refused, "requests", 0, holds, answers.sent, note)]


def _answers(client: Client, samples: Any) -> list[Any]:
    return [json.loads(client.predict(MODEL, body, kind).body) for body, kind in samples]
