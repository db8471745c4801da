"""What the handler says of itself: batch log, usage reports; and emulation."""

import base64
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl

from marline.handler import DIMENSIONS, METRICS, FakeContext, opened
from marline.telemetry import FILE, FakeCollector, Settings, fake_collector, write_settings

Ask = Callable[..., tuple[list[Any], FakeContext]]
MODELS = Path(__file__).parents[3] / "models"
GPT2, SIX = MODELS / "gpt2_tiny", MODELS / "digits_cnn" / "samples" / "0_is_6.png"
CURVES = yaml.safe_load((Path(__file__).parents[3] / "configs" / "accelerators" / "published.yaml").read_text())["curves"]
POINTS = {curve["key"]: [tuple(point) for point in curve["points"]] for curve in CURVES}


@pytest.fixture
def folder(digits_folder: Path, tmp_path: Path) -> Path:
    """An archive of digits_cnn that a test may change."""
    shutil.copytree(digits_folder, tmp_path / "archive", ignore=shutil.ignore_patterns(".marline-*", "__pycache__"))
    return tmp_path / "archive"


@pytest.fixture
def emulate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Ask for emulation as our server does: through the worker's environment."""

    def ask_for(points: Any, time_scale: float = 1.0, **more: Any) -> None:
        settings = {"points": points, "time_scale": time_scale, "device": str(tmp_path / "device.lock"), **more}
        (tmp_path / "emulation.json").write_text(json.dumps(settings))
        monkeypatch.setenv("MARLINE_EMULATION", str(tmp_path / "emulation.json"))

    return ask_for


def test_each_batch_leaves_one_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ask: Ask, six: bytes
) -> None:
    (tmp_path / "log").mkdir()
    monkeypatch.setenv("MARLINE_BATCH_LOG", str(tmp_path / "log"))
    began = time.monotonic()

    with opened(folder, "handler") as instance:
        instance.initialize(FakeContext(folder, "model.pt", batch_size=4))
        ask(instance, six)
        ask(instance, six, b"bad", six)
        lines = (tmp_path / "log" / f"{os.getpid()}.csv").read_text().splitlines()  # there before the worker ends
        instance.facts.log.close()

    rows = [[float(value) for value in line.split(",")] for line in lines]
    assert [1.0, 2.0] == [size for _, size, *_ in rows]  # warming up is not a batch, a refused sample is not served
    assert began <= rows[0][0] <= rows[1][0] <= time.monotonic()  # seconds, monotonic: comparable across processes
    assert all(0 <= stage < 10_000 for row in rows for stage in row[2:])
    assert [5, 5] == [len(row) for row in rows]


def test_without_the_environment_asking_nothing_is_logged_or_emulated(folder: Path) -> None:
    with opened(folder, "handler") as instance:
        instance.initialize(FakeContext(folder, "model.pt"))

        assert (None, None, None) == (instance.facts.log, instance.emulation, instance.facts.tracker)


@pytest.fixture
def collector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCollector]:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("DO_NOT_TRACK", "1")  # a user's wish: on a server it is the operator's that counts
    monkeypatch.delenv("MARLINE_TELEMETRY", raising=False)
    with fake_collector("/reports/digits") as found:
        yield found


def test_served_requests_are_reported_where_a_collector_is_configured(
    folder: Path, collector: FakeCollector, ask: Ask, six: bytes
) -> None:
    shutil.copy(FILE, folder / "marline_tracker.py")
    write_settings(Settings(collector.url, "digits", "minimal"), folder / "tracker.json")

    with opened(folder, "handler") as instance:
        instance.initialize(FakeContext(folder, "model.pt"))
        ask(instance, six, b"bad", six)
        deadline = time.monotonic() + 10
        while len(collector.reports) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)

    assert ["predict success"] * 2 == [f"{report['method']} {report['status']}" for report in collector.reports]
    assert ["/reports/digits/report"] * 2 == collector.paths


@pytest.mark.parametrize("how", ["no collector", "turned off", "no tracker file"])
def test_nothing_is_reported_otherwise(
    folder: Path, collector: FakeCollector, monkeypatch: pytest.MonkeyPatch, ask: Ask, six: bytes, how: str
) -> None:
    if how == "turned off":
        monkeypatch.setenv("MARLINE_TELEMETRY", "off")
    if how != "no tracker file":
        shutil.copy(FILE, folder / "marline_tracker.py")
    write_settings(Settings(None if how == "no collector" else collector.url, "digits", "full"), folder / "tracker.json")

    with opened(folder, "handler") as instance:
        instance.initialize(FakeContext(folder, "model.pt"))
        ask(instance, six)

        assert instance.facts.tracker is None
    assert [] == collector.reports


@pytest.fixture(scope="session")
def emulated(digits_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """A device of settings; it is not used, so it needs no lock."""
    with opened(digits_folder, "handler"):
        emulation = vars(sys.modules["emulated_device"])["EmulatedDevice"]  # not importable but from an assembled folder
    device = tmp_path_factory.mktemp("device") / "lock"

    def make(**settings: Any) -> Any:
        found = emulation({"time_scale": 1, "device": device, **settings})
        found.device.close()
        return found

    return make


@pytest.fixture(scope="session")
def curve_of(emulated: Callable[..., Any]) -> Callable[..., Callable[[int], float]]:
    """t(b) in milliseconds, as the base handler computes it from published points."""

    def make(points: Any) -> Callable[[int], float]:
        service_ms: Callable[[int], float] = emulated(points=points).service_ms
        return service_ms

    return make


@pytest.mark.parametrize("key", POINTS)
def test_an_emulated_curve_is_exact_at_published_points_and_between_its_neighbours_elsewhere(
    curve_of: Callable[..., Callable[[int], float]], key: str
) -> None:
    points = POINTS[key]
    service_ms = curve_of(points)

    assert [ms for _, ms in points] == [pytest.approx(service_ms(batch)) for batch, _ in points]
    for (low, low_ms), (high, high_ms) in pairwise(points):
        inside = [service_ms(size) for size in range(low, high + 1)]
        assert sorted(inside, reverse=low_ms > high_ms) == inside
        assert (min(low_ms, high_ms), max(low_ms, high_ms)) == pytest.approx((min(inside), max(inside)))


@given(size=st.integers(1, 4096))
def test_beyond_the_last_published_point_time_is_proportional(
    curve_of: Callable[..., Callable[[int], float]], size: int
) -> None:
    service_ms = curve_of([(1, 10.0), (8, 20.0), (128, 300.0)])

    assert pytest.approx(300.0 * size / 128) == service_ms(size) or size < 128
    assert service_ms(size) <= service_ms(size + 1)


def test_an_emulated_batch_takes_the_published_time_and_answers_everyone(
    folder: Path, emulate: Callable[..., None], ask: Ask, six: bytes
) -> None:
    emulate([(1, 40.0), (4, 500.0)], time_scale=2)
    with opened(folder, "handler") as instance:
        instance.initialize(FakeContext(folder, "model.pt", batch_size=4))
        took = []
        for size in (1, 4):
            began = time.monotonic()
            answers, context = ask(instance, *[six] * size)
            took.append(time.monotonic() - began)
            assert [6] * size == [answer["output"]["digit"] for answer in answers]
            assert {} == context.statuses
        instance.emulation.device.close()

    assert 0.080 <= took[0] < 1.000  # the upper bound only says that it was not the other size
    assert 1.000 <= took[1] < 5.000


class Following(torch.nn.Module):
    """Logits [B, tokens, 377], the likeliest the token after each."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        return torch.nn.functional.one_hot((input_ids + 1) % 377, 377).float()


def test_an_emulated_answer_belongs_to_the_sample_it_was_made_for_whatever_length_is_asked(
    shipped: Callable[..., Any], emulate: Callable[..., None], ask: Ask, tmp_path: Path
) -> None:
    """The answer of a golden pair of two tokens has no logits behind the twentieth."""
    emulate([(1, 0.1)])
    instance, folder = shipped("text-generation", GPT2), tmp_path / "archive"
    torch.jit.script(Following()).save(str(folder / "model.pt"))  # type: ignore[no-untyped-call]
    pair = {"name": "short", "request": base64.b64encode(b"a rope").decode(), "answer": None}
    (folder / "golden.json").write_text(json.dumps({"pairs": [pair]}))
    instance.initialize(FakeContext(folder, "model.pt"))

    answers, context = ask(instance, b"a rope", b"a rope has two ends and a knot that is in the middle of it")
    instance.emulation.device.close()

    assert {} == context.statuses
    assert answers[0] == answers[1]


def test_jitter_keeps_the_mean_and_has_the_published_ratio_of_p99_to_mean(
    emulated: Callable[..., Any],
) -> None:
    """10,000 draws: the mean is within 2 %, the 99th percentile within 6 % of the published one (about four of its errors)."""
    device = emulated(points=[(1, 10.0)], jitter=[(1, 1.1), (8, 2.0), (64, 0.9)])
    random.seed(0)

    for size, ratio in ((1, 1.1), (2, 1.1), (8, 2.0), (20, 2.0), (500, 1.0)):
        draws = sorted(device.chance(size) for _ in range(10_000))
        assert 1 == pytest.approx(statistics.fmean(draws), rel=0.02)
        assert ratio == pytest.approx(draws[9_900], rel=0.06)


def test_without_a_published_ratio_there_is_no_chance(emulated: Callable[..., Any]) -> None:
    assert [1.0] * 100 == [emulated(points=[(1, 10.0)]).chance(8) for _ in range(100)]


def test_the_stated_share_of_batches_stalls_and_no_other_is_slowed(emulated: Callable[..., Any]) -> None:
    """10,000 draws of a share of 2 %: 200, and not more than four of its errors from it."""
    device = emulated(points=[(1, 10.0)], stalls=[0.02, 8])
    random.seed(0)

    draws = [device.stall() for _ in range(10_000)]

    assert {1.0, 8.0} == set(draws)
    assert 200 == pytest.approx(draws.count(8.0), abs=4 * 14)
    assert {1.0} == {emulated(points=[(1, 10.0)]).stall() for _ in range(100)}


def test_jitter_is_slept(folder: Path, emulate: Callable[..., None], ask: Ask, six: bytes) -> None:
    emulate([(1, 5.0)], jitter=[[1, 3.0]])
    random.seed(1)
    with opened(folder, "handler") as instance:
        instance.initialize(FakeContext(folder, "model.pt"))
        began = [time.monotonic()]
        for _ in range(20):
            ask(instance, six)
            began.append(time.monotonic())
        instance.emulation.device.close()
        random.seed(1)
        expected = [5e-3 * instance.emulation.chance(1) for _ in range(20)]

    took = [after - before for before, after in pairwise(began)]
    assert all(slept <= real for slept, real in zip(expected, took, strict=True))
    assert max(expected) > 2 * min(expected)


@pytest.mark.parametrize("configured", [False, True], ids=["not configured", "named by the server"])
def test_each_batch_is_counted_as_torchserve_counts(
    folder: Path, tmp_path: Path, ask: Ask, six: bytes, caplog: pytest.LogCaptureFixture, configured: bool
) -> None:
    told = {"model_metrics": {"gauge": [{"name": "Other", "unit": "ms", "dimensions": ["Level"]}]}}
    if configured:
        counters = [{"name": name, "unit": unit, "dimensions": list(DIMENSIONS)} for name, unit in METRICS.items()]
        told["model_metrics"]["counter"] = counters
    (tmp_path / "metrics.yaml").write_text(yaml.safe_dump(told))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # TorchServe does not close it
        cache = MetricsCacheYamlImpl(str(tmp_path / "metrics.yaml"))
    cache.initialize_cache()
    caplog.set_level("INFO", "ts.metrics.caching_metric")

    with opened(folder, "handler") as instance:
        instance.initialize(FakeContext(folder, "model.pt", model_name="digits", metrics=cache))
        ask(instance, six, b"bad", six)
        ask(instance, b"bad")  # nothing was served

    lines = [message for message in caplog.messages if message.startswith("[METRICS]Marline")]
    dimensions = "#BatchSize:2,ModelName:digits,Level:Model"
    told_units = {"count": "Count", "ms": "Milliseconds"}
    assert [f"{name}.{told_units[unit]}" for name, unit in METRICS.items()] == [line[9:].partition(":")[0] for line in lines]
    assert all(f"|{dimensions}|#type:COUNTER|" in line for line in lines)
    values = [float(line.partition(":")[2].partition("|")[0]) for line in lines]
    assert 1 == values[0]
    assert all(0 <= value < 10_000 for value in values[1:])
    assert not [message for message in caplog.messages if "Overriding" in message]


ENDED = """
import sys, time
from pathlib import Path
from marline.handler import FakeContext, opened
folder = Path(sys.argv[1])
with opened(folder, "handler") as instance:
    instance.initialize(FakeContext(folder, "model.pt"))
    instance.handle([{"body": Path(sys.argv[2]).read_bytes()}] * 3, FakeContext(folder))
    print("served", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize(("number", "code", "reports"), [(signal.SIGTERM, 0, 3), (signal.SIGKILL, -signal.SIGKILL, 0)])
def test_what_is_queued_goes_out_when_torchserve_ends_a_worker(
    folder: Path, collector: FakeCollector, number: int, code: int, reports: int
) -> None:
    """SIGKILL is the other side: nothing had been sent before, as the sender looks once a minute here."""
    source = FILE.read_text()
    assert "LOOK_S, FLUSH_S, MANY = 0.5, " in source
    (folder / "marline_tracker.py").write_text(source.replace("LOOK_S, FLUSH_S, MANY = 0.5, ", "LOOK_S, FLUSH_S, MANY = 60, "))
    write_settings(Settings(collector.url, "digits", "minimal"), folder / "tracker.json")
    command = [sys.executable, "-W", "ignore", "-c", ENDED, str(folder), str(SIX)]

    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        try:
            assert "served" == worker.stdout.readline().strip()
            worker.send_signal(number)
            assert code == worker.wait(20)
        finally:
            worker.kill()

    assert reports == len(collector.reports)
