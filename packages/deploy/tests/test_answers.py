import json

import pytest

from marline.deploy import Answer, Kind, Retry, classify
from marline.deploy._answers import MEANINGS

NO_CAPACITY = 'Model "m" has no worker to serve inference request. Please use scale workers API to add workers.'


def body(code: int, type_: str, message: str) -> bytes:
    return json.dumps({"code": code, "type": type_, "message": message}).encode()


@pytest.mark.parametrize(
    ("status", "type_", "message", "kind", "retry"),
    [
        (503, "InternalServerException", "Prediction failed", Kind.HANDLER_RAISED, Retry.IDEMPOTENT),
        (503, "InternalServerException", "Invalid model predict output", Kind.HANDLER_NONSENSE, Retry.NEVER),
        (503, "InternalServerException", "number of batch response mismatched", Kind.HANDLER_NONSENSE, Retry.NEVER),
        (503, "InternalServerException", "Unsupported model output data type.", Kind.HANDLER_NONSENSE, Retry.NEVER),
        (500, "InternalServerException", "Worker died.", Kind.WORKER_DIED, Retry.IDEMPOTENT),
        (507, "InternalServerException", "Out of resources", Kind.OUT_OF_RESOURCES, Retry.IDEMPOTENT),
        (400, "InvalidKeyException", "Token Authorization failed. Token either incorrect, ...", Kind.UNAUTHORISED, Retry.NEVER),
        (400, "BadRequestException", "Parameter model_name is required.", Kind.BAD_REQUEST, Retry.NEVER),
        (400, "BadRequest", "the list is not a tensor", Kind.BAD_REQUEST, Retry.NEVER),
        (422, "PredictionException", "a handler's own", Kind.BAD_REQUEST, Retry.NEVER),
        (403, "InvalidModelVersionException", "Cannot remove default version", Kind.FORBIDDEN, Retry.NEVER),
        (404, "ModelNotFoundException", "Model not found: m", Kind.NOT_FOUND, Retry.NEVER),
        (405, "MethodNotAllowedException", "Requested method is not allowed", Kind.NOT_ALLOWED, Retry.NEVER),
        (409, "ConflictStatusException", "Model version 1.0 is already registered for model m", Kind.CONFLICT, Retry.NEVER),
        (500, "HandlerError", "ValueError in the handler", Kind.REQUEST_FAILED, Retry.NEVER),
        (418, "PredictionException", "a handler's own", Kind.BAD_REQUEST, Retry.NEVER),
        (599, "PredictionException", "a handler's own", Kind.OTHER, Retry.NEVER),
    ],
)
def test_the_type_and_the_message_say_what_the_number_does_not(
    status: int, type_: str, message: str, kind: Kind, retry: Retry
) -> None:
    answer = classify(status, body(status, type_, message))

    assert (kind, retry, status, message) == (answer.kind, answer.retry, answer.status, answer.said)


@pytest.mark.parametrize(("workers", "kind"), [(2, Kind.QUEUE_FULL), (0, Kind.NO_WORKER), (None, Kind.NO_CAPACITY)])
def test_a_full_queue_and_no_worker_differ_in_the_workers_alone(workers: int | None, kind: Kind) -> None:
    answer = classify(503, body(503, "ServiceUnavailableException", NO_CAPACITY), lambda: workers)

    assert (kind, Retry.ALWAYS) == (answer.kind, answer.retry)


def test_the_workers_are_asked_for_only_where_they_decide() -> None:
    def asked() -> int:
        raise AssertionError

    assert Kind.HANDLER_RAISED is classify(503, body(503, "InternalServerException", "Prediction failed"), asked).kind


@pytest.mark.parametrize(("status", "kind"), [(200, Kind.OK), (202, Kind.ACCEPTED), (206, Kind.ACCEPTED)])
def test_accepted_is_not_done(status: int, kind: Kind) -> None:
    assert kind is classify(status, b"{}").kind


@pytest.mark.parametrize("text", [b"", b"<html>", b"[1]", b"\xff", b'"text"'])
def test_a_body_that_is_no_error_of_torchserve_is_taken_by_its_number(text: bytes) -> None:
    assert [Kind.TOO_LARGE, Kind.BAD_REQUEST, Kind.OTHER] == [classify(status, text).kind for status in (413, 400, 503)]


def test_every_kind_has_its_words_and_no_4xx_is_ever_retried() -> None:
    assert set(Kind) == set(MEANINGS)
    assert {Retry.NEVER} == {classify(status, b"").retry for status in range(400, 500)}


def test_the_words_say_the_number_what_it_means_what_to_do_and_what_was_said() -> None:
    answer = Answer(Kind.NO_WORKER, 503, b"", "Model\n has no worker")

    assert "503, no worker: the model is registered with no worker: scale it (TorchServe: Model has no worker)" == answer.words
