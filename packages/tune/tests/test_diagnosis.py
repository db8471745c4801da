"""What bounds a configuration, by the rule that its docstring states."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marline.tune import Point, Setting
from marline.tune._diagnosis import BUSY, Figures, diagnose

SLO_MS = 100.0
KINDS = {"delay-bound", "compute-bound", "CPU-stage-bound", "queue-bound", "client-bound"}


def points(*, pre_ms: float = 0.5, inference_ms: float = 9.0) -> list[Point]:
    """Batches of b take inference_ms + b in the model, and pre_ms for each request before it."""
    sizes = (1, 2, 4, 8, 16)
    return [Point(b, 30, (whole := pre_ms * b + inference_ms + b), whole + 1, pre_ms * b, inference_ms + b, 0.0) for b in sizes]


def seen(rps: float, tail_ms: float, mean_batch: float | None, **more: Any) -> Figures:
    return Figures(rps=rps, tail_ms=tail_ms, mean_batch=mean_batch, samples=1000, **more)


def test_batches_that_leave_small_after_a_long_delay_are_delay_bound() -> None:
    found = diagnose(points(), Setting(16, 50, 1), seen(60, 70.0, 3.1), SLO_MS)

    assert "delay-bound" == found.kind
    assert "batches of 3.1 of 16 left after the 50 ms delay and take 13.7 ms; worker 26 % busy: a shorter delay" == found.words


def test_workers_that_are_busy_with_inference_are_compute_bound() -> None:
    found = diagnose(points(), Setting(16, 2, 1), seen(460, 90.0, 15.6), SLO_MS)

    assert "compute-bound" == found.kind
    assert found.words.startswith("batches of 15.6 of 16, worker 96 % busy; 24.6 ms of the 32.4 ms of a batch are inference")


def test_workers_that_are_busy_around_the_model_are_cpu_stage_bound() -> None:
    found = diagnose(points(pre_ms=4.0), Setting(8, 2, 1), seen(150, 95.0, 7.5), SLO_MS)

    assert "CPU-stage-bound" == found.kind
    assert "16.5 ms of the 46.5 ms of a batch are inference, the rest is work of the processor around it" in found.words


def test_what_the_server_adds_is_work_of_the_processor() -> None:
    kinds = {over: diagnose(points(), Setting(1, 100, 1), seen(70, 60.0, 1.0), SLO_MS, batch_ms=over).kind for over in (0, 12)}

    assert {0: "queue-bound", 12: "CPU-stage-bound"} == kinds  # 74 % busy, and more than can be


def test_workers_of_one_accelerator_are_bound_by_it_together() -> None:
    told = Setting(8, 2, 4), seen(400, 60.0, 8.0), SLO_MS

    assert "queue-bound" == diagnose(points(), *told).kind
    shared = diagnose(points(), *told, shared=True)
    assert "compute-bound" == shared.kind
    assert "accelerator 85 % busy" in shared.words


def test_a_full_queue_is_the_bound_only_where_workers_have_time() -> None:
    idle = diagnose(points(), Setting(4, 2, 1), seen(80, 40.0, 2.0, refused=37), SLO_MS)
    busy = diagnose(points(), Setting(4, 2, 1), seen(900, math.inf, 4.0, refused=370), SLO_MS)

    assert ("queue-bound", "compute-bound") == (idle.kind, busy.kind)
    assert idle.words.startswith("37 of 1,000 requests found the queue full")
    assert "worker 100 % busy; 370 of 1,000 requests found the queue full" in busy.words


def test_a_tail_that_is_spent_behind_others_is_queue_bound() -> None:
    found = diagnose(points(), Setting(16, 2, 1), seen(150, 95.0, 3.0), SLO_MS)

    assert "queue-bound" == found.kind
    assert "79.5 ms of 95 ms are spent behind others in bursts; batches of 3.0 of 16, worker 68 % busy" == found.words


def test_an_invalid_measurement_says_nothing_of_the_server() -> None:
    found = diagnose(points(), Setting(8, 2, 1), seen(50, 20.0, 2.0, late="requests were sent late"), SLO_MS)

    assert ("client-bound", "no trial was valid, so nothing is known of the server: requests were sent late") == (
        found.kind,
        found.words,
    )


@pytest.mark.parametrize(
    ("setting", "slo_ms", "kind", "words"),
    [
        (Setting(8, 100, 1), 100.0, "delay-bound", "waits 100 ms for others and takes 10.5 ms, 100 ms are allowed"),
        (Setting(1, 100, 1), 8.0, "compute-bound", "waits 0 ms for others and takes 10.5 ms, 8 ms are allowed"),
        (Setting(16, 2, 1), 40.0, "compute-bound", "just misses a batch of 16 waits 33 ms for it and as long for the next"),
    ],
)
def test_where_no_rate_is_in_time_the_request_that_is_late_is_told(
    setting: Setting, slo_ms: float, kind: str, words: str
) -> None:
    found = diagnose(points(), setting, seen(0.0, math.inf, None), slo_ms)

    assert kind == found.kind
    assert words in found.words


def test_a_handler_that_reports_nothing_has_its_batches_reckoned_and_no_stages() -> None:
    whole = [Point(b, 30, 10.0 + b, 11.0 + b) for b in (1, 2, 4, 8)]

    found = diagnose(whole, Setting(8, 2, 1), seen(430, 60.0, None), SLO_MS)

    assert "compute-bound" == found.kind
    assert "batches of 8.0 of 8 (reckoned), worker 97 % busy; a batch takes 18 ms, its stages are not reported" == found.words


@given(
    setting=st.builds(Setting, st.integers(1, 16), st.integers(1, 500), st.integers(1, 8)),
    rps=st.floats(0, 1e5),
    tail_ms=st.floats(0.1, 1e6) | st.just(math.inf),
    full=st.floats(0, 1) | st.none(),
    refused=st.integers(0, 1000),
    shared=st.booleans(),
)
def test_every_configuration_has_one_kind_and_its_rule(
    setting: Setting, rps: float, tail_ms: float, full: float | None, refused: int, shared: bool
) -> None:
    mean = None if full is None else 1 + full * (setting.batch_size - 1)
    curve: Sequence[Point] = points()

    found = diagnose(curve, setting, seen(rps, tail_ms, mean, refused=refused), SLO_MS, shared=shared)

    assert found.kind in KINDS - {"client-bound"}
    assert "nan" not in found.words
    assert "inf" not in found.words.replace("inference", "")
    if found.kind == "delay-bound":
        assert setting.batch_size > 1
    if refused and rps and mean is not None and rps / 1e3 / mean * 40 < BUSY:
        assert "queue-bound" == found.kind  # 40 ms is more than any batch takes
