import json
import os
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from marline.core import ArchiveError, DeployConfig, RequestError, ServerError
from marline.deploy import serving
from marline.deploy._preflight import check_archive, check_bodies, checks, preflight
from marline.deploy._settings import EVERYWHERE

LOOK = """
from pathlib import Path
from marline.core import read_config
from marline.deploy._preflight import checks
for finding in checks(read_config(["model=digits_cnn"]).config.deploy, Path("/tmp")):
    if not finding.good:
        print(finding.name, finding.value, finding.remedy, sep=" | ")
"""


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that this process listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def with_(config: DeployConfig, **changed: Any) -> DeployConfig:
    return config.model_copy(update=changed)


def archive_of(folder: Path, text: str = "deviceType: cpu\n", body: bytes = b"") -> Path:
    file = folder / "a.mar"
    manifest = {"model": {"modelName": "a", "handler": "h.py", "configFile": "model-config.yaml"}}
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        archive.writestr("model-config.yaml", text)
        archive.writestr("h.py", "def handle(data, context): return data\n")
        archive.writestr("weights", body)
    return file


def test_this_machine_may_start_a_server(config: DeployConfig, tmp_path: Path) -> None:
    found = list(checks(config, tmp_path))

    assert [] == [finding for finding in found if not finding.good]
    assert {"java home", "deploy.bind", "temporary folder", "socket paths", "log folder", "shared memory", "settings"} == {
        finding.name for finding in found
    }


def test_a_port_that_is_taken_is_named_with_its_holder_and_nothing_is_started(
    config: DeployConfig, taken: int, tmp_path: Path
) -> None:
    began = time.monotonic()
    with (
        pytest.raises(RequestError, match=rf"inference: port {taken} is taken by \S+ \(pid {os.getpid()}\); end it"),
        serving(with_(config, ports=(taken,)), tmp_path / "logs"),
    ):
        pass

    assert time.monotonic() - began < 2
    assert not (tmp_path / "logs").exists()


def test_all_that_is_wrong_is_said_at_once(config: DeployConfig, taken: int, tmp_path: Path) -> None:
    wrong = with_(config, ports=(taken,), java_home=str(tmp_path), tokens=False)

    with pytest.raises(RequestError) as refused:
        preflight(wrong, tmp_path)

    lines = str(refused.value).splitlines()
    assert ["java home", "deploy.ports, inference", "settings"] == [line.partition(":")[0] for line in lines]
    assert "write deploy.java_home=null" in lines[0]


def test_an_address_of_another_machine_is_refused(config: DeployConfig, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"deploy.bind: 192\.0\.2\.1 is no address of this machine"):
        preflight(with_(config, bind="192.0.2.1"), tmp_path)


def test_what_is_unsafe_is_refused_until_it_is_named(config: DeployConfig, tmp_path: Path) -> None:
    public = with_(config, bind=EVERYWHERE, tokens=False)

    with pytest.raises(RequestError, match=r"_authorization=true.*\(deploy.tokens\).*deploy.allow_unsafe=\[no_tokens\]"):
        preflight(public, tmp_path)
    with pytest.raises(RequestError, match=r"\(deploy.bind\).*deploy.allow_unsafe=\[public_without_tokens\]"):
        preflight(with_(public, allow_unsafe=("no_tokens",)), tmp_path)
    preflight(with_(public, allow_unsafe=("no_tokens", "public_without_tokens")), tmp_path)


def test_a_public_address_with_tokens_is_a_user_s_choice(config: DeployConfig, tmp_path: Path) -> None:
    preflight(with_(config, bind=EVERYWHERE), tmp_path)


def test_a_log_folder_in_which_nothing_can_be_made_is_refused(config: DeployConfig) -> None:
    with pytest.raises(ServerError, match="log folder: nothing can be written in /proc"):
        preflight(config, Path("/proc/marline/logs"))


@pytest.mark.parametrize(
    ("temp", "expected"),
    [
        ("/proc", "temporary folder | TMPDIR=/proc cannot be written | make room there\n"),
        ("long", "socket paths | "),
    ],
)
def test_a_temporary_folder_that_will_not_do_is_refused(temp: str, expected: str, tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 100) if temp == "long" else Path(temp)
    folder.mkdir(exist_ok=True)

    told = {**os.environ, "TMPDIR": str(folder)}
    shown = subprocess.run([sys.executable, "-c", LOOK], env=told, capture_output=True, text=True, check=True, timeout=60)

    assert shown.stdout.startswith(expected)


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_archive_is_refused(damage: str, tmp_path: Path) -> None:
    file = archive_of(tmp_path, body=b"1" * 1000)
    assert check_archive(file, tmp_path).sizes["weights"] == 1000
    whole = file.read_bytes()
    file.write_bytes(whole[:-50] if damage == "cut" else whole.replace(b"111", b"101", 1))
    os.utime(file, ns=(0, 0))  # as if it were the same second

    with pytest.raises(ArchiveError, match=r"a\.mar"):
        check_archive(file, tmp_path)


def test_a_gpu_that_is_not_here_is_refused(tmp_path: Path) -> None:
    file = archive_of(tmp_path, "deviceType: gpu\ndeviceIds: [0, 97]\n")

    with pytest.raises(RequestError, match=r"a\.mar says deviceType: gpu and needs GPU (0|97), and there are \d+"):
        check_archive(file, tmp_path)


def test_a_limit_below_the_model_s_own_sample_is_refused_with_the_right_one(config: DeployConfig) -> None:
    check_bodies(config, {"small": 10, "just": 16 * 2**20})

    with pytest.raises(RequestError, match=r"= 16 refuses the model's own sample large of .* write deploy.max_request_mb=17"):
        check_bodies(config, {"small": 10, "large": 16 * 2**20 + 1})
