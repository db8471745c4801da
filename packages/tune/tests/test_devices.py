"""Two GPUs that are not there, and the tuned archive that asks for them."""

import json
import time
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from marline.archive import Serving, read_mar, to_yaml
from marline.core import FakeGpus, Gpu, seen_gpus
from marline.tune import Point, Setting
from marline.tune._devices import CUDA_MB, Devices, devices_of
from marline.tune._nvml import gpu_use
from marline.tune._values import tuned_archive

BUSY = Gpu(0, "GPU-aa", "NVIDIA T4", memory_mb=15_360, used_mb=9_360)
FREE = Gpu(1, "GPU-bb", "NVIDIA T4", memory_mb=15_360, used_mb=360)
TWO = FakeGpus((BUSY, FREE))
TOLD = Serving(
    batch_size=1,
    max_batch_delay_ms=100,
    workers=1,
    response_timeout_s=60,
    startup_timeout_s=120,
    job_queue_size=1000,
    device="gpu",
)


@pytest.fixture(autouse=True)
def all_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def archive_of(folder: Path, *device_ids: int, weights: bytes = b"") -> Path:
    file = folder / "m.mar"
    with zipfile.ZipFile(file, "w") as made:
        made.writestr("model-config.yaml", to_yaml(replace(TOLD, device_ids=device_ids)))
        made.writestr("model.pt", weights)
        made.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": {"configFile": "model-config.yaml"}}))
    return file


def told_by(archive: Path, workers: int, curve: Sequence[Point], devices: Devices) -> tuple[object, dict[str, object]]:
    """What the tuned archive's own config says of GPUs, and the line of the report about it."""
    tuned = tuned_archive(archive, Setting(8, 2, workers), curve, 200.0, archive.parent, devices=devices)
    lines = [value for value in tuned.values if value.key == "deviceIds"]
    assert len(lines) <= 1
    shown: dict[str, object] = {"was": lines[0].was, "now": lines[0].now, "why": lines[0].why} if lines else {}
    return yaml.safe_load(read_mar(tuned.file).config).get("deviceIds"), shown


def test_workers_are_spread_over_both_gpus_and_the_freest_comes_first(tmp_path: Path, curve: Sequence[Point]) -> None:
    devices = Devices(seen_gpus(TWO), 4_000, "a worker took 4,000 MB")

    ids, shown = told_by(archive_of(tmp_path), 3, curve, devices)

    assert [1, 0] == ids
    assert {"was": [], "now": [1, 0], "why": "the freest first; a worker took 4,000 MB"} == shown


def test_workers_that_do_not_fit_on_both_stay_on_the_one_with_room(tmp_path: Path, curve: Sequence[Point]) -> None:
    assert [1] == told_by(archive_of(tmp_path), 2, curve, Devices(TWO.gpus(), 7_000))[0]


def test_gpus_that_the_config_states_are_kept_and_the_report_says_what_they_bound(
    tmp_path: Path, curve: Sequence[Point]
) -> None:
    ids, shown = told_by(archive_of(tmp_path, 0), 2, curve, Devices(TWO.gpus(), 2_000))

    assert [0] == ids
    assert ([0], [0]) == (shown["was"], shown["now"])
    assert str(shown["why"]).endswith("; would be [1, 0], and archive.device_ids bounds it")


def test_workers_that_fit_nowhere_are_left_to_torchserve_and_the_report_says_why(
    tmp_path: Path, curve: Sequence[Point]
) -> None:
    ids, shown = told_by(archive_of(tmp_path), 4, curve, Devices(TWO.gpus(), 7_000))

    assert (None, []) == (ids, shown["now"])
    assert str(shown["why"]).startswith("left to TorchServe: 4 worker(s) of 7,000 MB each fit on no GPU")


def test_without_gpus_nothing_is_said_and_what_is_stated_stays(tmp_path: Path, curve: Sequence[Point]) -> None:
    assert (None, {}) == told_by(archive_of(tmp_path), 2, curve, Devices())
    assert ([3], {}) == told_by(archive_of(tmp_path, 3), 2, curve, Devices())


def test_a_worker_takes_what_was_measured_of_it(tmp_path: Path) -> None:
    looks: list[int] = []

    class Loading:
        def gpus(self) -> tuple[Gpu, ...]:
            looks.append(1)
            return (BUSY, FREE if len(looks) == 1 else replace(FREE, used_mb=3_860))

    with gpu_use("service curve", Loading(), every_s=0.001) as use:
        deadline = time.monotonic() + 20
        while len(looks) < 3 and time.monotonic() < deadline:
            time.sleep(0.001)

    found = devices_of(TWO.gpus(), use, archive_of(tmp_path))

    assert (3_500.0, "a worker took 3,500 MB while the service curve was measured") == (found.worker_mb, found.why)


def test_a_worker_that_was_not_measured_is_reckoned_from_its_archive(tmp_path: Path) -> None:
    archive = archive_of(tmp_path, weights=bytes(3 << 20))

    found = devices_of(TWO.gpus(), (), archive)

    assert CUDA_MB + 6 == pytest.approx(found.worker_mb, abs=0.01)
    assert "2 × the archive and 500 MB of CUDA's own" in found.why
    assert TWO.gpus() == found.gpus
