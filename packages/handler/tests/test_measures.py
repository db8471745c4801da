"""What the handler says of itself: batch log, usage reports; and emulation."""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from marline.handler import FakeContext, opened
from marline.telemetry import FILE, FakeCollector, Settings, fake_collector, write_settings

Ask = Callable[..., tuple[list[Any], FakeContext]]
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

    def ask_for(points: Any, time_scale: float = 1.0) -> None:
        settings = {"points": points, "time_scale": time_scale, "device": str(tmp_path / "device.lock")}
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
def curve_of(digits_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Callable[[int], float]]:
    """t(b) in milliseconds, as the base handler computes it from published points."""
    with opened(digits_folder, "handler"):
        emulation = vars(sys.modules["emulated_device"])["EmulatedDevice"]  # not importable but from an assembled folder
    device = tmp_path_factory.mktemp("device") / "lock"

    def make(points: Any) -> Callable[[int], float]:
        found = emulation({"points": points, "time_scale": 1, "device": device})
        found.device.close()
        service_ms: Callable[[int], float] = found.service_ms
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
    emulate([(1, 40.0), (4, 100.0)], time_scale=2)
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

    assert 0.080 <= took[0] < 0.200  # the upper bound only says that it was not the other size
    assert 0.200 <= took[1] < 1.000
