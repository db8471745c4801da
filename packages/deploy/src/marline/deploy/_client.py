"""Speaks to one TorchServe over HTTP; the only module that knows its management API and its tokens.

Parameters go in the query: in a JSON body an absent delay is stored as -10000 (reference: pytorch/serve 0.12).
"""

import json
import mimetypes
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from marline.core import ServerError

DEADLINE_S = 30.0


@dataclass(frozen=True, slots=True)
class Status:
    """What a server says of one model."""

    batch_size: int
    max_batch_delay_ms: int
    workers: tuple[tuple[int, str], ...]  # (pid, READY or UNLOADING)
    pending: int
    version: str = ""

    @property
    def ready(self) -> int:
        """Workers that answer; TorchServe's /ping says Healthy without any."""
        return sum(status == "READY" for _, status in self.workers)


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer to one prediction request."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Tokens:
    """The keys TorchServe wrote at its start."""

    management: str
    inference: str


def read_tokens(file: Path) -> Tokens:
    """Read key_file.json."""
    keys = json.loads(file.read_text())
    return Tokens(keys["management"]["key"], keys["inference"]["key"])


@dataclass(frozen=True, slots=True)
class Client:
    """Requests with a deadline each; `transport` is the seam for tests."""

    management_url: str
    inference_url: str
    tokens: Tokens
    transport: httpx2.BaseTransport | None = None
    metrics_url: str = ""

    def register(
        self,
        archive: str,
        model: str,
        *,
        batch_size: int,
        max_batch_delay_ms: int,
        workers: int,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        """Ask for a model to be loaded; returns before it is. Every value is sent, because defaults differ by source."""
        query = {
            "url": archive,
            "model_name": model,
            "batch_size": batch_size,
            "max_batch_delay": max_batch_delay_ms,
            "initial_workers": workers,
            "synchronous": "false",
        }
        self._manage("POST", "/models", query, deadline_s=deadline_s)

    def unregister(self, model: str) -> None:
        """Remove a model; nothing happens where there is none."""
        self._manage("DELETE", f"/models/{model}", {}, also=404)

    def describe(self, model: str) -> Status | None:
        """How a model stands; None where there is no such model."""
        answer = self._manage("GET", f"/models/{model}", {}, also=404)
        return _status(answer[0]) if isinstance(answer, list) else None

    def versions(self, model: str) -> tuple[Status, ...]:
        """How every version of a model stands; none where there is no such model."""
        answer = self._manage("GET", f"/models/{model}/all", {}, also=404)
        return tuple(map(_status, answer)) if isinstance(answer, list) else ()

    def make_default(self, model: str, version: str) -> None:
        """From now on requests that name no version go to this one."""
        self._manage("PUT", f"/models/{model}/{version}/set-default", {})

    def predict(self, model: str, body: bytes, content_type: str, deadline_s: float = DEADLINE_S) -> Reply:
        """Send one request body and return whatever comes back; ServerError where nothing does."""
        address = f"{self.inference_url}/predictions/{model}"
        headers = {"Authorization": f"Bearer {self.tokens.inference}", "Content-Type": content_type}
        try:
            with self._http(deadline_s) as http:
                reply = http.post(address, content=body, headers=headers)
        except httpx2.HTTPError as error:
            raise ServerError(f"{address} gave no answer within {deadline_s:.0f} s: {error!r}") from None
        return Reply(reply.status_code, reply.content)

    def batch_ms(self, model: str) -> float:
        """How long the handler took for its newest batch, in ms, as TorchServe timed it; ServerError where it does not say."""
        address = f"{self.metrics_url}/metrics"
        try:
            with self._http(DEADLINE_S) as http:
                told = http.get(address, params={"name[]": "PredictionTime"}).text
        except httpx2.HTTPError as error:
            raise ServerError(f"{address} gave no answer within {DEADLINE_S:.0f} s: {error!r}") from None
        found = re.search(rf'^PredictionTime{{ModelName="{re.escape(model)}",[^}}]*}} (\S+)$', told, re.MULTILINE)
        if found is None:
            raise ServerError(f"{address} does not say how long batches of {model} took: {told[:500]!r}")
        return float(found[1])

    def alive(self) -> bool:
        """Whether the server answers at all; says nothing about models."""
        try:
            with self._http(2.0) as http:
                return http.get(f"{self.management_url}/models", headers=self._headers()).status_code == 200
        except httpx2.HTTPError:
            return False

    def _manage(self, verb: str, path: str, query: Mapping[str, Any], also: int = 200, deadline_s: float = DEADLINE_S) -> Any:
        try:
            with self._http(deadline_s) as http:
                reply = http.request(verb, self.management_url + path, params=dict(query), headers=self._headers())
        except httpx2.HTTPError as error:
            raise ServerError(f"TorchServe gave no answer to {verb} {path} within {deadline_s:.0f} s: {error!r}") from None
        if reply.status_code >= 400 and reply.status_code != also:
            raise ServerError(f"TorchServe answers {reply.status_code} to {verb} {path}: {reply.text.strip()[:500]}")
        return reply.json()

    def _http(self, deadline_s: float) -> httpx2.Client:
        # Plain HTTP on loopback: reading the certificates of the world for it would take 30 ms each time.
        encrypted = self.management_url.startswith("https:") or self.inference_url.startswith("https:")
        return httpx2.Client(transport=self.transport, timeout=deadline_s, verify=encrypted)

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens.management}"}


def _status(told: Mapping[str, Any]) -> Status:
    return Status(
        batch_size=told["batchSize"],
        max_batch_delay_ms=told["maxBatchDelay"],
        workers=tuple((worker["pid"], worker["status"]) for worker in told["workers"]),
        pending=told.get("jobQueueStatus", {}).get("pendingRequests", 0),
        version=told.get("modelVersion", ""),
    )


def content_type_of(name: str) -> str:
    """The content type to send a sample file with."""
    return mimetypes.guess_type(name)[0] or "application/octet-stream"
