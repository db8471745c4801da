"""Speaks to one TorchServe over HTTP; the only module that knows its management API.

Parameters go in the query: in a JSON body an absent delay is stored as -10000 (reference: pytorch/serve 0.12).
"""

import mimetypes
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx2

from marline.core import ServerError
from marline.deploy._tokens import REFUSED, Tokens, read_tokens
from marline.deploy._waiting import attempts, within

DEADLINE_S = 30.0
TURNS = 3  # a key may be renewed once more while a request travels
TRIES = 3


@dataclass(frozen=True, slots=True)
class Status:
    """What a server says of one version of a model."""

    batch_size: int
    max_batch_delay_ms: int
    workers: tuple[tuple[int, str], ...]  # (pid, READY or UNLOADING)
    pending: int
    version: str = ""
    archive: str = ""  # the name of its file in the model store
    worker_ids: tuple[str, ...] = ()  # of the workers, in their order: a worker that is started anew keeps it
    response_timeout_s: int = 0

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

    def unregister(self, model: str, version: str | None = None) -> None:
        """Remove a version, the default one where none is named; nothing happens where there is none."""
        self._manage("DELETE", _path(model, version), {}, also=404)

    def describe(self, model: str, version: str | None = None) -> Status | None:
        """How a version stands, the default one where none is named; None where there is no such model or version."""
        answer = self._manage("GET", _path(model, version), {}, also=404)
        return status_of(answer[0]) if isinstance(answer, list) else None

    def versions(self, model: str) -> tuple[Status, ...]:
        """How every version of a model stands; none where there is no such model."""
        answer = self._manage("GET", _path(model, "all"), {}, also=404)
        return tuple(map(status_of, answer)) if isinstance(answer, list) else ()

    def served(self) -> list[str]:
        """The names of all models a server has, whether they are ready or not; the first hundred."""
        return [str(one["modelName"]) for one in self._manage("GET", "/models", {"limit": 100})["models"]]

    def details(self, model: str) -> list[dict[str, Any]]:
        """All that the server says of each version of a model, the default one first; empty where there is no such model."""
        answer = self._manage("GET", _path(model, "all"), {}, also=404)
        if not isinstance(answer, list) or len(answer) < 2:
            return answer if isinstance(answer, list) else []
        default = self._manage("GET", _path(model, None), {})[0]["modelVersion"]
        return sorted(answer, key=lambda told: told["modelVersion"] != default)

    def scale(self, model: str, workers: int, version: str | None = None) -> None:
        """Ask for so many workers; returns before they are there. One that goes fails the batch it has in hand."""
        query = {"min_worker": workers, "max_worker": workers, "synchronous": "false"}
        self._manage("PUT", _path(model, version), query)

    def make_default(self, model: str, version: str) -> None:
        """From now on requests that name no version go to this one."""
        self._manage("PUT", f"{_path(model, version)}/set-default", {})

    def last_in_line(self, model: str, version: str, deadline_s: float) -> int | None:
        """Wait behind every request that a version has queued; the worker that then answered, None where it does not say.

        A description that TorchServe asks the handler for goes through the queue of the requests, alone in its batch.
        """
        answer = self._manage("GET", _path(model, version), {"customized": "true"}, also=404, deadline_s=deadline_s, most=599)
        told = answer[0].get("customizedMetadata") if isinstance(answer, list) else None
        worker = told.get("worker") if isinstance(told, dict) else None
        return worker if isinstance(worker, int) else None

    def predict(
        self, model: str, body: bytes, content_type: str, deadline_s: float = DEADLINE_S, *, version: str | None = None
    ) -> Reply:
        """Send one request body and return whatever comes back; ServerError where nothing does."""
        path = f"/predictions/{model}" + (f"/{version}" if version is not None else "")
        return self.post(path, body, content_type, deadline_s)

    def post(self, path: str, body: bytes, content_type: str, deadline_s: float = DEADLINE_S) -> Reply:
        """Send a body to a path of the inference address and return whatever comes back; ServerError where nothing does."""
        address = self.inference_url + path
        try:
            reply = self._send("inference", "POST", address, deadline_s, body=body, content_type=content_type)
        except httpx2.HTTPError as error:
            raise ServerError(f"{address} gave no answer within {deadline_s:.0f} s: {error!r}") from error
        return Reply(reply.status_code, reply.content)

    def batch_ms(self, model: str) -> float:
        """How long the handler took for its newest batch, in ms, as TorchServe timed it; ServerError where it does not say."""
        told = self._metric("PredictionTime")
        found = re.search(rf'^PredictionTime{{ModelName="{re.escape(model)}",[^}}]*}} (\S+)$', told, re.MULTILINE)
        if found is None:
            raise ServerError(f"{self.metrics_url}/metrics does not say how long batches of {model} took: {told[:500]!r}")
        return float(found[1])

    def named(self, model: str, version: str) -> int:
        """How many requests have named this version in their address; those that named none are not among them."""
        name = "ts_inference_requests_total"
        label = rf'^{name}{{model_name="{re.escape(model)}",model_version="{re.escape(version)}",[^}}]*}} (\S+)$'
        found = re.search(label, self._metric(name), re.MULTILINE)
        return int(float(found[1])) if found else 0

    def _metric(self, name: str) -> str:
        address = f"{self.metrics_url}/metrics"
        try:
            with self._http(DEADLINE_S) as http:
                return http.get(address, params={"name[]": name}).text
        except httpx2.HTTPError as error:
            raise ServerError(f"{address} gave no answer within {DEADLINE_S:.0f} s: {error!r}") from None

    def alive(self) -> bool:
        """Whether the server answers at all; says nothing about models."""
        try:
            return self._send("management", "GET", f"{self.management_url}/models", 2.0).status_code == 200
        except httpx2.HTTPError:
            return False

    def gave_up(self) -> bool:
        """Whether TorchServe no longer tries to start the workers of some model: only then its /ping is not well."""
        try:
            return self._send("inference", "GET", f"{self.inference_url}/ping", 2.0).status_code == 500
        except httpx2.HTTPError:
            return False

    def renew(self) -> None:
        """Have TorchServe make new tokens, and use them; ServerError where it does not. Needs the key file and the API key."""
        tokens = self.tokens
        assert tokens.file is not None
        with tokens.lock:  # whoever is refused meanwhile waits here for the new ones
            for kind in ("management", "inference"):
                self._manage("GET", "/token", {"type": kind}, key="api")
            try:
                tokens.take(read_tokens(tokens.file))
            except (OSError, ValueError, KeyError) as error:
                raise ServerError(f"TorchServe's new tokens cannot be read from {tokens.file}: {error!r}") from None

    def _manage(
        self,
        verb: str,
        path: str,
        query: Mapping[str, Any],
        *,
        also: int = 200,
        deadline_s: float = DEADLINE_S,
        key: str = "management",
        most: int = 399,
    ) -> Any:
        """The answer's JSON; ServerError for a status above `most` that is not `also`."""
        # asked again, a POST would register twice; all others leave the same behind
        for left_s in attempts(1 if verb == "POST" else TRIES, deadline_s):
            try:
                reply = self._send(key, verb, self.management_url + path, left_s, query=query)
                break
            except httpx2.HTTPError as error:
                failure = error
        else:
            raise ServerError(f"TorchServe gave no answer to {verb} {path} within {deadline_s:.0f} s: {failure!r}")
        if reply.status_code > most and reply.status_code != also:
            raise ServerError(f"TorchServe answers {reply.status_code} to {verb} {path}: {reply.text.strip()[:500]}")
        return reply.json() if reply.content.strip() else None

    def _send(
        self,
        kind: str,
        verb: str,
        address: str,
        deadline_s: float,
        *,
        query: Mapping[str, Any] | None = None,
        body: bytes | None = None,
        content_type: str | None = None,
    ) -> httpx2.Response:
        """One request, with a deadline over the whole of it."""
        try:
            return within(deadline_s, lambda: self._exchange(kind, verb, address, deadline_s, query, body, content_type))
        except TimeoutError as error:
            raise httpx2.ReadTimeout(str(error)) from None

    def _exchange(
        self,
        kind: str,
        verb: str,
        address: str,
        deadline_s: float,
        query: Mapping[str, Any] | None,
        body: bytes | None,
        content_type: str | None,
    ) -> httpx2.Response:
        """One request; once more where its key was refused and there is a newer one, as nothing was done with it."""
        headers = {"Content-Type": content_type} if content_type is not None else {}
        token: str | None = getattr(self.tokens, kind)
        with self._http(deadline_s) as http:
            for turn in range(TURNS):
                told = {**headers, "Authorization": f"Bearer {token}"}
                reply = http.request(verb, address, params=dict(query or {}), content=body, headers=told)
                refused = reply.status_code == 400 and REFUSED in reply.text and kind != "api"
                newer = self.tokens.newer(kind, refused=str(token)) if refused and turn < TURNS - 1 else None
                if newer is None:
                    return reply
                token = newer
        raise AssertionError("the last turn returns")

    def _http(self, deadline_s: float) -> httpx2.Client:
        # Plain HTTP on loopback: reading the certificates of the world for it would take 30 ms each time.
        encrypted = self.management_url.startswith("https:") or self.inference_url.startswith("https:")
        return httpx2.Client(transport=self.transport, timeout=deadline_s, verify=encrypted)


def _path(model: str, version: str | None) -> str:
    return f"/models/{model}" + (f"/{version}" if version is not None else "")


def status_of(told: Mapping[str, Any]) -> Status:
    """One version of a model, as REST and gRPC describe it."""
    return Status(
        batch_size=told["batchSize"],
        max_batch_delay_ms=told["maxBatchDelay"],
        workers=tuple((worker["pid"], worker["status"]) for worker in told["workers"]),
        pending=told.get("jobQueueStatus", {}).get("pendingRequests", 0),
        version=told.get("modelVersion", ""),
        archive=told.get("modelUrl", ""),
        worker_ids=tuple(worker.get("id", "") for worker in told["workers"]),
        response_timeout_s=told.get("responseTimeout", 0),
    )


def content_type_of(name: str) -> str:
    """The content type to send a sample file with."""
    return mimetypes.guess_type(name)[0] or "application/octet-stream"
