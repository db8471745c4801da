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
from marline.deploy._waiting import attempts, within

DEADLINE_S = 30.0
TRIES = 3


@dataclass(frozen=True, slots=True)
class Status:
    """What a server says of one model."""

    batch_size: int
    max_batch_delay_ms: int
    workers: tuple[tuple[int, str], ...]  # (pid, READY or UNLOADING)
    pending: int

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
    grpc_inference: str = ""  # HOST:PORT
    grpc_management: str = ""

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
        if not isinstance(answer, list):
            return None
        return status_of(answer[0])

    def predict(self, model: str, body: bytes, content_type: str, deadline_s: float = DEADLINE_S) -> Reply:
        """Send one request body and return whatever comes back; ServerError where nothing does."""
        return self.post(f"/predictions/{model}", body, content_type, deadline_s)

    def post(self, path: str, body: bytes, content_type: str, deadline_s: float = DEADLINE_S) -> Reply:
        """Send a body to a path of the inference address and return whatever comes back; ServerError where nothing does."""
        address = self.inference_url + path
        headers = {"Authorization": f"Bearer {self.tokens.inference}", "Content-Type": content_type}
        reply = self._send("POST", address, f"{address} gave no answer", deadline_s, content=body, headers=headers)
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
        address, silence = self.management_url + path, f"TorchServe gave no answer to {verb} {path}"
        # asked again, a POST would register twice; all others leave the same behind
        for left_s in attempts(1 if verb == "POST" else TRIES, deadline_s):
            try:
                reply = self._send(verb, address, silence, left_s, params=dict(query), headers=self._headers())
                break
            except ServerError as error:
                failure = error
        else:
            raise failure
        if reply.status_code >= 400 and reply.status_code != also:
            raise ServerError(f"TorchServe answers {reply.status_code} to {verb} {path}: {reply.text.strip()[:500]}")
        return reply.json()

    def _send(self, verb: str, address: str, silence: str, deadline_s: float, **how: Any) -> httpx2.Response:
        """One request with a deadline over the whole of it; ServerError where nothing came back."""

        def send() -> httpx2.Response:
            with self._http(deadline_s) as http:
                return http.request(verb, address, **how)

        try:
            return within(deadline_s, send)
        except (httpx2.HTTPError, TimeoutError) as error:
            raise ServerError(f"{silence} within {deadline_s:.0f} s: {error!r}") from error

    def _http(self, deadline_s: float) -> httpx2.Client:
        # Plain HTTP on loopback: reading the certificates of the world for it would take 30 ms each time.
        return httpx2.Client(transport=self.transport, timeout=deadline_s, verify=False)

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens.management}"}


def status_of(told: Mapping[str, Any]) -> Status:
    """One model, as REST and gRPC describe it."""
    return Status(
        batch_size=told["batchSize"],
        max_batch_delay_ms=told["maxBatchDelay"],
        workers=tuple((worker["pid"], worker["status"]) for worker in told["workers"]),
        pending=told.get("jobQueueStatus", {}).get("pendingRequests", 0),
    )


def content_type_of(name: str) -> str:
    """The content type to send a sample file with."""
    return mimetypes.guess_type(name)[0] or "application/octet-stream"
