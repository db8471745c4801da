"""The values that follow from an objective, and what bounds them."""

import json
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marline.archive import Serving, from_yaml, read_mar, to_yaml
from marline.core import RequestError
from marline.tune import Point, Setting
from marline.tune._values import BURST, derived, queue_of, tuned_archive, workers_within

TOLD = Serving(
    batch_size=1,
    max_batch_delay_ms=100,
    workers=1,
    response_timeout_s=60,
    startup_timeout_s=120,
    job_queue_size=1000,
    device="cpu",
)
LARGE = replace(TOLD, job_queue_size=10**9, response_timeout_s=10**9)
SLO_MS = st.floats(min_value=1, max_value=1e5)
SETTINGS = st.builds(Setting, st.sampled_from((1, 2, 3, 4, 8)), st.integers(1, 1000), st.integers(1, 8))


def points(t1_ms: float = 11.0) -> list[Point]:
    return [Point(b, 30, t1_ms + b - 1, t1_ms + b, 0.5, t1_ms + b - 2, 0.5) for b in (1, 2, 4, 8)]


def test_a_queue_holds_what_is_answered_in_time_and_a_half_more() -> None:
    # 18 ms a batch of 8: after its own batch (100 - 18) / 18 others fit, of 8 each
    assert 55 == queue_of(Setting(8, 2, 1), points(), 100.0)
    assert 110 == queue_of(Setting(8, 2, 2), points(), 100.0)


def test_workers_that_share_an_accelerator_answer_no_more_than_it_carries() -> None:
    separate, shared = (queue_of(Setting(8, 2, 4), points(), 1000.0, shared=each) for each in (False, True))

    assert shared < separate / 3
    assert shared == pytest.approx(queue_of(Setting(8, 2, 1), points(), 1000.0) * 18 / 17, abs=1)


@given(setting=SETTINGS, slo_ms=SLO_MS)
def test_a_queue_keeps_every_worker_in_batches_and_refuses_nobody_who_would_be_in_time(setting: Setting, slo_ms: float) -> None:
    queue, t_ms = queue_of(setting, points(), slo_ms), 10.0 + setting.batch_size

    assert queue >= setting.batch_size * (setting.workers + 1)
    waited_ms = queue * t_ms / setting.batch_size / setting.workers
    assert waited_ms + t_ms >= slo_ms  # the first that is refused would have been late even without the server's overheads
    assert queue == setting.batch_size * (setting.workers + 1) or waited_ms <= BURST * slo_ms + t_ms


@given(setting=SETTINGS, slo_ms=SLO_MS)
def test_timeouts_follow_the_objective_and_outlast_a_worker_that_is_started_anew(setting: Setting, slo_ms: float) -> None:
    serving, _ = derived(LARGE, setting, points(), slo_ms)

    assert serving.response_timeout_s >= max(10, 3 * slo_ms / 1e3)
    assert serving.response_timeout_s <= max(10, 3 * slo_ms / 1e3 + 1)
    assert serving.client_timeout_ms == 1000 * serving.response_timeout_s


@given(
    setting=SETTINGS, slo_ms=SLO_MS, queue=st.integers(1, 5000), response_s=st.integers(1, 500), client=st.integers(0, 10**6)
)
def test_what_the_config_states_is_never_exceeded(
    setting: Setting, slo_ms: float, queue: int, response_s: int, client: int
) -> None:
    told = replace(TOLD, job_queue_size=queue, response_timeout_s=response_s, client_timeout_ms=client)

    serving, _ = derived(told, setting, points(), slo_ms)

    assert serving.job_queue_size <= queue
    assert serving.response_timeout_s <= response_s
    assert 0 < serving.client_timeout_ms
    assert not client or serving.client_timeout_ms <= client
    assert (told.startup_timeout_s, told.device) == (serving.startup_timeout_s, serving.device)


def test_every_value_says_what_it_was_and_why_and_a_bound_says_its_name() -> None:
    _, values = derived(replace(TOLD, job_queue_size=20, response_timeout_s=5), Setting(8, 2, 1), points(), 100.0)

    assert {
        "batchSize": (1, 8),
        "maxBatchDelay": (100, 2),
        "minWorkers, maxWorkers": (1, 1),
        "jobQueueSize": (20, 20),
        "responseTimeout": (5, 5),
        "clientTimeoutInMills": (0, 10_000),
    } == {value.key: (value.was, value.now) for value in values}
    why = {value.key: value.why for value in values}
    assert "1.5 × what is answered within 100 ms" in why["jobQueueSize"]
    assert why["jobQueueSize"].endswith("would be 55, and archive.job_queue_size bounds it")
    assert why["responseTimeout"].endswith("would be 10, and archive.response_timeout_s bounds it")


def test_the_tuned_archive_asks_for_the_values_and_is_the_same_otherwise(tmp_path: Path, curve: Sequence[Point]) -> None:
    archive = tmp_path / "digits_cnn.mar"
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("model-config.yaml", to_yaml(TOLD, {"micro_batch_size": 4}))
        made.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": {"configFile": "model-config.yaml"}}))

    tuned = tuned_archive(archive, Setting(8, 2, 2), curve, 200.0, tmp_path)

    before, after = read_mar(archive), read_mar(tuned.file)
    found = from_yaml(after.config)
    assert (8, 2, 2, 243, 10, 10_000) == (
        *(found.batch_size, found.max_batch_delay_ms, found.workers),
        *(found.job_queue_size, found.response_timeout_s, found.client_timeout_ms),
    )
    assert "micro_batch_size: 4" in after.config
    assert before.manifest == after.manifest


def test_workers_that_the_config_states_bound_those_that_are_tried() -> None:
    two = replace(TOLD, workers=2)

    assert ((1, 4), []) == workers_within([1, 4], TOLD)  # TorchServe's own 1 is nobody's statement
    assert (1, 2) == workers_within([1, 2, 4], two)[0]
    assert ["tune.workers [4] were not tried: the model's config states archive.workers=2"] == workers_within([1, 2, 4], two)[1]
    with pytest.raises(RequestError, match=r"tune\.workers=\[4\] are all above archive\.workers=2"):
        workers_within([4], two)
