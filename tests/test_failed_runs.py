"""What is done about a run that fails: which stage is tried again, and who is told."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from marline.core import (
    GateRefused,
    LoadTestError,
    MarlineError,
    NotReady,
    ParityError,
    RequestError,
    ServerError,
    StageError,
    WorkerError,
    read_config,
)
from pipelines.notify import telling
from pipelines.patience import BUSY, UNREACHED, passing


def hidden(kind: type[BaseException]) -> StageError:
    """An error of ours that was raised from a library's, which was raised from this one."""
    error = StageError("the weights were not fetched")
    error.__cause__ = OSError("the hub is away")
    error.__cause__.__context__ = kind("refused")
    return error


@pytest.mark.parametrize(
    ("stage", "error", "why"),
    [
        ("deploy", ServerError("died"), BUSY),
        ("deploy", NotReady("slow"), BUSY),
        ("tune", LoadTestError("locust died"), "the load generator failed"),
        ("tune", StageError("is the machine very busy?"), "the machine may have been disturbed"),
        ("load", hidden(ConnectionRefusedError), UNREACHED),
        ("load", hidden(ValueError), None),
        ("deploy", WorkerError("the model cannot be loaded"), None),
        ("deploy", ParityError("another answer"), None),
        ("tune", ParityError("another answer"), None),
        ("deploy", RequestError("no such Java"), None),
        ("export", ServerError("died"), None),
    ],
)
def test_a_stage_is_tried_again_only_where_the_reason_may_pass(stage: str, error: Exception, why: str | None) -> None:
    assert why == passing(stage, error)


@pytest.fixture
def hook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The address of a webhook, and what it was told."""
    told: list[dict[str, Any]] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Hook)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook", told
    server.shutdown()
    thread.join()
    server.server_close()


def failing(url: str | None, error: BaseException) -> None:
    words = ["model=digits_cnn", *([f"notify_url={url}"] if url else [])]
    with pytest.raises(type(error)), telling(read_config(words).config, Path("digits_cnn", "20260102-030405-6789")):
        raise error


def test_a_failure_is_told_in_a_few_words(hook: tuple[str, list[dict[str, Any]]]) -> None:
    url, told = hook

    failing(url, ParityError("answers differ\nand much more"))

    found = {"event": "failure", "error": "ParityError", "model": "digits_cnn", "run": "20260102-030405-6789"}
    assert [{**found, "said": "answers differ"}] == told


def test_a_regression_is_told_with_its_numbers(hook: tuple[str, list[dict[str, Any]]]) -> None:
    url, told = hook

    failing(url, GateRefused("the gate has refused\n  p99_ms > 1.1 * baseline: FIRED"))

    assert [("regression", "the gate has refused; p99_ms > 1.1 * baseline: FIRED")] == [
        (one["event"], one["said"]) for one in told
    ]


def test_an_address_that_is_a_secret_comes_from_the_environment(
    hook: tuple[str, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, told = hook
    monkeypatch.setenv("MARLINE_NOTIFY_URL", url)

    failing(None, MarlineError("failed"))

    assert ["failed"] == [one["said"] for one in told]


@pytest.mark.parametrize("error", [RequestError("wrong"), KeyboardInterrupt()])
def test_what_the_user_did_is_told_to_nobody(error: BaseException, hook: tuple[str, list[dict[str, Any]]]) -> None:
    url, told = hook

    failing(url, error)

    assert [] == told


def test_a_webhook_that_is_not_there_hides_nothing() -> None:
    failing("http://127.0.0.1:9/hook", StageError("the run's own error"))


def test_an_address_with_a_password_is_refused() -> None:
    with pytest.raises(RequestError, match="notify_url"):
        read_config(["model=digits_cnn", "notify_url=http://me:secret@host/hook"])
