from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from marline.archive import Serving, from_yaml, read_mar, to_yaml
from marline.core import Manifest

WHOLE = st.integers(1, 10**6)
SERVINGS = st.builds(
    Serving,
    batch_size=WHOLE,
    max_batch_delay_ms=WHOLE,
    workers=WHOLE,
    response_timeout_s=WHOLE,
    startup_timeout_s=WHOLE,
    job_queue_size=WHOLE,
    device=st.sampled_from(["cpu", "gpu"]),
    client_timeout_ms=st.integers(0, 10**6),
    device_ids=st.lists(st.integers(0, 15), unique=True).map(tuple),
)


@settings(deadline=None)
@given(SERVINGS)
def test_what_is_written_is_read_back(serving: Serving) -> None:
    assert serving == from_yaml(to_yaml(serving))


def test_every_frontend_value_is_explicit_and_what_the_configuration_says(
    build: Callable[..., Manifest], tmp_path: Path
) -> None:
    told = read_mar(build(tmp_path).path("digits_cnn.mar")).config

    # TorchServe 0.12's names of what its frontend reads from a model config, other than parallelism and LLM settings.
    assert {
        "minWorkers": 4,
        "maxWorkers": 4,
        "batchSize": 2,
        "maxBatchDelay": 30,
        "responseTimeout": 50,
        "startupTimeout": 60,
        "maxRetryTimeoutInSec": 60,
        "jobQueueSize": 700,
        "clientTimeoutInMills": 0,
        "useJobTicket": False,
        "deviceType": "cpu",
    } == yaml.safe_load(told)


@pytest.mark.parametrize(
    "missing", ["batchSize", "maxBatchDelay", "minWorkers", "jobQueueSize", "clientTimeoutInMills", "deviceType"]
)
def test_a_value_that_is_left_to_torchserve_is_refused(build: Callable[..., Manifest], tmp_path: Path, missing: str) -> None:
    lines = read_mar(build(tmp_path).path("digits_cnn.mar")).config.splitlines()

    with pytest.raises(KeyError, match=missing):
        from_yaml("\n".join(line for line in lines if not line.startswith(missing)))
