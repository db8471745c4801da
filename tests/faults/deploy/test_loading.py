"""Archives that cannot be loaded, built or trusted."""

import os
import resource
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from marline.core import DeployConfig, Manifest, Section, ServerError, StageError, WorkerError, seal
from marline.deploy import Server, deploy, serving

Until = Callable[..., float]
Make = Callable[..., Path]
LIMITED = textwrap.dedent(
    """
    import resource, sys
    from pathlib import Path
    from marline.archive import build
    from marline.core import MarlineError

    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, 64 << 10))  # SIGXFSZ is ignored by Python: writing fails
    try:
        build("full", model_file=sys.argv[1], extra_files=[sys.argv[2]], export_path=sys.argv[3])
    except MarlineError as error:
        print(error)
        sys.exit(error.exit_code)
    """
)


def refused(server: Server, archive: Path, model: str) -> tuple[ServerError, float]:
    """What loading ends with, and after how many seconds."""
    began = time.monotonic()
    with pytest.raises(ServerError) as raised:
        server.load(archive, model, batch_size=1, max_batch_delay_ms=10, workers=1)
    return raised.value, time.monotonic() - began


def no_worker_left(server: Server, model: str, starts: Callable[[], int]) -> bool:
    """Whether none is started any more: the longest of the first pauses between two tries is 3 s."""
    before = starts()
    time.sleep(4)
    return server.client.describe(model) is None and before == starts()


def starts_of(server: Server, model: str) -> int:
    lines = (server.logs / "worker.log").read_text(errors="replace").splitlines()
    return sum(f"-{model}_" in line and "Torch worker started" in line for line in lines)


@pytest.mark.faults(
    "F06", "handler's initialize raises", "its traceback within seconds; unregistered; no crash loop", seconds=30
)
def test_f06_a_handler_that_cannot_load_is_told_with_its_traceback_and_tried_no_more(server: Server, make: Make) -> None:
    error, seconds = refused(server, make("broken", {"raise": "the weights are of another model"}), "broken")

    assert isinstance(error, WorkerError)
    assert error.exit_code == 1
    assert 'raise RuntimeError(order["raise"])' in str(error)
    assert "RuntimeError: the weights are of another model" in str(error)
    assert seconds < 15
    assert no_worker_left(server, "broken", lambda: starts_of(server, "broken"))


@pytest.mark.faults("F07", "handler sleeps past startupTimeout", "deploy fails after it, a restart's time later", seconds=30)
def test_f07_a_handler_that_loads_too_long_is_given_up_after_its_startup_timeout(server: Server, make: Make) -> None:
    error, seconds = refused(server, make("sleepy", {"sleep_s": 60}, startupTimeout=3), "sleepy")

    assert "startupTimeout" in str(error)
    assert 3 <= seconds < 20
    assert no_worker_left(server, "sleepy", lambda: starts_of(server, "sleepy"))


@pytest.mark.faults("F17", "disk full while an archive is built", "a clear error, exit code 1, no partial archive", seconds=20)
def test_f17_an_archive_that_does_not_fit_leaves_nothing_behind(make: Make, tmp_path: Path) -> None:
    handler, out = Path(__file__).parent / "handlers" / "obedient.py", tmp_path / "out"
    (tmp_path / "order.json").write_text("{}" + " " * (1 << 20))
    words = [str(handler), str(tmp_path / "order.json"), str(out)]

    ran = subprocess.run([sys.executable, "-c", LIMITED, *words], capture_output=True, text=True, check=False, timeout=20)

    assert 1 == ran.returncode, ran.stderr
    assert "full.mar cannot be written: [Errno 27] File too large" in ran.stdout
    assert "make room or name another folder" in ran.stdout
    assert [] == list(out.iterdir())


@pytest.fixture
def cramped(config: DeployConfig, make: Make, tmp_path: Path) -> Iterator[Server]:
    """A server with a model, none of whose processes can write another byte to a file of more than 1 KB."""
    with serving(config, tmp_path / "logs") as server:
        server.load(make("cramped"), "cramped", batch_size=1, max_batch_delay_ms=10, workers=1)
        java = int((server.folder / "java.pid").read_text())
        resource.prlimit(java, resource.RLIMIT_FSIZE, (1024, 1024))
        yield server


@pytest.mark.faults("F17", "disk full under a server's logs", "it still answers", seconds=20)
def test_f17_a_server_whose_logs_cannot_grow_still_answers(cramped: Server) -> None:
    sizes = {file.name: file.stat().st_size for file in cramped.logs.iterdir()}

    answers = [
        cramped.client.predict("cramped", body, "application/json").status
        for body in [b'{"n": 1, "raise": "something to log"}', b'{"n": 1}'] * 10
    ]

    assert [500, 200] * 10 == answers
    assert sizes == {file.name: file.stat().st_size for file in cramped.logs.iterdir() if file.stat().st_size > 1024} | {
        name: size for name, size in sizes.items() if size <= 1024
    }


@pytest.mark.faults("F18", "truncated or bit-flipped archive", "refused for its sha256 before anything is started", seconds=5)
@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_f18_a_damaged_archive_is_refused(damage: str, make: Make, config: DeployConfig, tmp_path: Path) -> None:
    archived = sealed(tmp_path / "archive", make("damaged"))
    file = archived.path("damaged.mar")
    whole = bytearray(file.read_bytes())
    whole[len(whole) // 2] ^= 1
    file.write_bytes(whole[:-100] if damage == "truncated" else whole)

    with pytest.raises(StageError, match=r"damaged\.mar is not the file stage archive of run .* made: its sha256 differs"):
        deploy("damaged", config, archived, archived, tmp_path / "deploy")
    assert not (tmp_path / "logs").exists()


def sealed(out: Path, archive: Path) -> Manifest:
    """A finished stage that made this archive."""
    out.mkdir()
    os.link(archive, out / archive.name)
    facts: dict[str, Any] = {"archive": archive.name}
    return seal(out, model=archive.stem, config=Section(), inputs=[], facts=facts, started=time.monotonic())
