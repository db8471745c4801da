"""A user's model-config.yaml: read strictly, completed, and said what is odd."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from marline.archive._model_config import BYTES, FLAGS, KNOWN, WHOLE, errors, load_config, oddities, parse_config
from marline.archive._serving import DEFAULT, as_text, completed
from marline.core import RequestError, read_config

SAMPLE = b"""# TorchServe controls.
minWorkers: 1   # Minimumum number of workers needed for the model
maxWorkers: 1
maxBatchDelay: 4000     # (in msec)
responseTimeout: 5200   # This is the maximum delay before TorchServe returns a failed reponse.
batchSize: 4    # The batchsize of the model.
deviceType: "gpu"   # [cpu, gpu, neuron]
deviceIds: [0,1,2,3] # gpu device ids allocated to this model.
system:
  extraFiles: "test.tar.gz"
  maxGPUMemory: 500
"""
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def test_the_sample_config_of_model_servers_is_read_with_warnings() -> None:
    values = parse_config(SAMPLE, "model-config.yaml")

    said = "\n".join(oddities(values))
    assert {"extraFiles": "test.tar.gz", "maxGPUMemory": 500} == values["system"]
    assert "every batch of fewer than 4 requests waits 4 s" in said
    assert "responseTimeout 5200 is in seconds: a worker that hangs is noticed after 87 minutes" in said
    assert "deviceIds [0, 1, 2, 3] are not checked here" in said


def test_neuron_is_passed_on_and_said_to_be() -> None:
    values = parse_config(b"deviceType: neuron", "c")

    assert {"deviceType": "neuron"} == values
    assert "TorchServe 0.12's frontend knows cpu and gpu" in next(oddities(values))


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('batchSize: "8"', "batchSize: '8' is refused: it must be a whole number, unquoted, from 1 to 1024"),
        ("batchSize: 0", "batchSize: 0 is refused"),
        ("batchSize: 1000000000", "from 1 to 1024"),
        ("batchSize: true", "batchSize: True is refused"),
        ("batchSize: 8.0", "batchSize: 8.0 is refused"),
        ("maxBatchDelay: -1", "maxBatchDelay: -1 is refused"),
        ("maxBatchDelay: 0", "TorchServe takes 0 for unsaid and waits 100 ms; write 1 or 2"),
        ("responseTimeout: 0", "responseTimeout: 0 is refused"),
        ("jobQueueSize: 3000000000", "from 1 to 2147483647"),
        ("useJobTicket: 1", "it must be true or false"),
        ("deviceType: tpu", "it must be one of cpu, gpu, neuron"),
        ("deviceIds: 0", "a list of different GPU numbers"),
        ("deviceIds: [0, 0]", "a list of different GPU numbers"),
        ("deviceIds: [-1]", "a list of different GPU numbers"),
        ("deviceIds: []", "a list of different GPU numbers"),
        ("deviceIds: [{}]", "a list of different GPU numbers"),
        ("parallelType: both", "it must be one of pp, tp, pptp, custom"),
        ("pt2: 3", "it must be a mapping, or the name of a backend"),
        ("system: 3", "it must be a mapping"),
        ("system: {maxGpuMemory: 500}", "did you mean system.maxGPUMemory?"),
        ("system: {maxGPUMemory: 0}", "a number of megabytes above 0"),
        ("system: {extraFiles: []}", "the name of an archive"),
        ("torchrun: {nproc_per_node: 2}", "did you mean torchrun.nproc-per-node?"),
        ("torchrun: {nproc-per-node: two}", "it must be a whole number"),
        ("3: x", "the key 3 is no text"),
        ("minWorkers: 3\nmaxWorkers: 2", "maxWorkers: 2 is below minWorkers: 3"),
        ("batchsize: 8", "did you mean batchSize?"),
        ("maxBatchdelay: 8", "did you mean maxBatchDelay?"),
        ("max_batch_delay: 8", "did you mean maxBatchDelay?"),
        ("maxBatchDelayMs: 8", "did you mean maxBatchDelay?"),
        ("respnseTimeout: 8", "did you mean responseTimeout?"),
        ("deviceID: [0]", "did you mean deviceIds?"),
    ],
)
def test_what_torchserve_would_ignore_is_refused_with_the_remedy(line: str, why: str) -> None:
    with pytest.raises(RequestError) as refused:
        parse_config(line.encode(), "my.yaml")

    assert str(refused.value).startswith("my.yaml: ")
    assert why in str(refused.value)


def test_all_mistakes_are_told_together() -> None:
    with pytest.raises(RequestError) as refused:
        parse_config(b"batchSize: 0\nmaxbatchdelay: 3\ndeviceType: tpu", "c")

    assert 3 == len(str(refused.value).splitlines())


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"a: &a [1]\nb: *a", r"\*a: aliases are not read"),
        (b"a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]", "aliases are not read"),
        (b"a: !!python/object/apply:os.system ['touch here']", "python/object"),
        (b"a: !!python/name:os.system", "python/name"),
        (b"[" * 10_000, "deep"),
        (b"a: [" * 40, "deep"),
        (b"a: 1\na: 2", "a is said twice"),
        (b"handler: {b: {c: 1, c: 2}}", "c is said twice"),
        (b"- a\n- b", "not a list"),
        (b"just text", "not a str"),
        (b"a: [1", "plain YAML"),
        (b"a: \xff", "plain YAML"),
        (b"a: !!timestamp no", "plain YAML"),
        (b"a: 1\n---\nb: 2", "plain YAML"),
        (b"#" * (BYTES + 1), "are no model config"),
    ],
)
def test_tricks_are_refused(text: bytes, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(RequestError, match=why):
        parse_config(text, "c")
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("text", [b"", b"# nothing\n", b"\xef\xbb\xbfbatchSize: 4"], ids=["empty", "a comment", "with a mark"])
def test_little_is_read_too(text: bytes) -> None:
    assert parse_config(text, "c").get("batchSize", 4) == 4


@given(st.binary(max_size=200) | st.text(alphabet="&*!-:{}[]'\" \nab0", max_size=60).map(str.encode))
def test_any_bytes_are_values_or_refused(text: bytes) -> None:
    try:
        values = load_config(text, "c")
    except RequestError:
        return
    assert isinstance(values, dict)
    assert all(isinstance(why, str) for why in errors(values))


@given(st.dictionaries(st.sampled_from(KNOWN), VALUES, max_size=4))
def test_any_value_of_a_known_key_is_refused_or_what_torchserve_takes(values: dict[str, Any]) -> None:
    if any(True for _ in errors(values)):
        return
    for key, value in values.items():
        assert key not in WHOLE or (type(value) is int and abs(value) < 2**31)
        assert key not in FLAGS or isinstance(value, bool)
    assert all(isinstance(why, str) for why in oddities(values))


@given(st.dictionaries(st.sampled_from(["quantiles", "vocabulary", "my_section"]), VALUES))
def test_sections_of_ones_own_are_kept(values: dict[str, Any]) -> None:
    text = as_text(completed(values))

    assert [] == list(errors(values))
    assert values == {key: value for key, value in yaml.safe_load(text).items() if key in values}


@pytest.mark.parametrize("key", KNOWN)
def test_no_known_key_is_a_near_miss(key: str) -> None:
    assert not [why for why in errors({key: None}) if "did you mean" in why]


def test_what_is_not_said_is_written_out_as_the_stage_does_by_default() -> None:
    stage = read_config(["model=digits_cnn"]).config.archive

    told = completed({"batchSize": 4})

    assert (stage.batch_size, stage.max_batch_delay_ms, stage.workers) == (
        *(DEFAULT.batch_size, DEFAULT.max_batch_delay_ms, DEFAULT.workers),
    )
    assert (stage.response_timeout_s, stage.startup_timeout_s, stage.job_queue_size) == (
        *(DEFAULT.response_timeout_s, DEFAULT.startup_timeout_s, DEFAULT.job_queue_size),
    )
    assert {
        "batchSize": 4,
        "maxBatchDelay": 100,
        "minWorkers": 1,
        "maxWorkers": 1,
        "responseTimeout": 60,
    }.items() <= told.items()
    assert {"startupTimeout": 120, "jobQueueSize": 1000, "useJobTicket": False}.items() <= told.items()
    assert "deviceType" not in told


@pytest.mark.parametrize(
    ("said", "workers"), [({"minWorkers": 3}, (3, 3)), ({"maxWorkers": 4}, (1, 4)), ({"maxWorkers": 0}, (0, 0)), ({}, (1, 1))]
)
def test_a_bound_that_is_not_said_fits_the_one_that_is(said: dict[str, int], workers: tuple[int, int]) -> None:
    told = completed(said)

    assert workers == (told["minWorkers"], told["maxWorkers"])
    assert [] == list(errors(told))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"minWorkers": 0}, "nothing is served until"),
        ({"useJobTicket": True, "batchSize": 8}, "every batch one of 1"),
        ({"deviceType": "cpu", "deviceIds": [0]}, "have no effect with deviceType cpu"),
    ],
)
def test_what_is_seldom_meant_is_said(values: dict[str, Any], said: str) -> None:
    assert said in next(oddities(values))


def test_usual_values_are_not_odd() -> None:
    assert [] == list(oddities(completed({"batchSize": 8, "maxBatchDelay": 10, "deviceType": "gpu"})))
