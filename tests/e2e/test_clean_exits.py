"""However we end, nothing of ours stays: no process, no port, no folder."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from marline.core import read_config
from marline.deploy import serving

pytestmark = pytest.mark.e2e

DEADLINE_S = 10.0
HOLD = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    from marline.core import read_config
    from marline.deploy import serving

    config = read_config(["model=digits_cnn"]).config.deploy
    with serving(config, Path(sys.argv[1])) as server:
        server.load(Path(sys.argv[2]), "digits_cnn", batch_size=1, max_batch_delay_ms=100, workers=1)
        print(server.folder, server.guard.pid, flush=True)
        sys.stdin.readline()  # until its processes have been looked at
        if sys.argv[3] == "wait":
            time.sleep(600)
        if sys.argv[3] == "raise":
            raise RuntimeError("inside")
    """
)


@pytest.fixture
def hold(place: Any, stage: Any, tmp_path: Path) -> Iterator[Callable[[str], "Held"]]:
    archived = stage("archive")
    archive = archived.path(archived.facts["archive"])
    started: list[subprocess.Popen[str]] = []

    def start(then: str) -> Held:
        command = [sys.executable, "-c", HOLD, str(tmp_path / "logs"), str(archive), then]
        process = subprocess.Popen(
            command,
            env=place.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return Held(process)

    yield start
    for process in started:
        with process:
            process.kill()


def listening(connections: Iterable[Any]) -> set[int]:
    """The ports on which somebody waits for connections."""
    return {found.laddr.port for found in connections if found.status == psutil.CONN_LISTEN}


class Held:
    """A process inside the `serving` context, with a loaded model."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        folder, guard = process.stdout.readline().split()
        self.process, self.folder, self.guard = process, Path(folder), int(guard)
        below = psutil.Process(self.guard).children(recursive=True) if psutil.pid_exists(self.guard) else []
        self.tree = [*([psutil.Process(self.guard)] if below else []), *below]
        self.ports = listening(found for one in below for found in one.net_connections("tcp"))
        process.stdin.write("\n")
        process.stdin.flush()

    def processes(self) -> list[int]:
        named = [one.pid for one in psutil.process_iter(["cmdline"]) if str(self.folder) in " ".join(one.info["cmdline"] or [])]
        return [*named, *(one.pid for one in self.tree if _runs(one))]

    def gone(self) -> bool:
        return not self.processes() and not self.ports & listening(psutil.net_connections("tcp"))


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize(("then", "code"), [("stop", 0), ("raise", 1)])
def test_after_the_block_nothing_is_left(hold: Callable[[str], Held], then: str, code: int) -> None:
    held = hold(then)

    assert code == held.process.wait(60)
    assert held.gone()
    assert not held.folder.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_after_a_signal_to_its_holder_nothing_is_left(
    hold: Callable[[str], Held], until: Callable[..., float], number: signal.Signals
) -> None:
    held = hold("wait")
    assert len(held.tree) >= 3  # the guard, Java, a worker
    assert len(held.ports) >= 3

    os.kill(held.process.pid, number)

    held.process.wait(60)
    until(lambda: held.gone() and not held.folder.exists(), DEADLINE_S, f"{held.processes()} ended, {held.folder} removed")


def test_after_a_kill_of_the_guard_java_is_gone_and_the_next_start_removes_the_folder(
    hold: Callable[[str], Held], until: Callable[..., float]
) -> None:
    held = hold("wait")

    os.kill(held.guard, signal.SIGKILL)

    until(held.gone, DEADLINE_S, f"{held.processes()} ended")
    next_one = hold("stop")
    assert 0 == next_one.process.wait(60)
    assert not held.folder.exists()


def test_two_servers_do_not_disturb_each_other(stage: Any, tmp_path: Path) -> None:
    config, archived = read_config(["model=digits_cnn"]).config.deploy, stage("archive")
    archive, sample = archived.path(archived.facts["archive"]), next(stage("load").path("sample").iterdir())
    body = sample.read_bytes()
    with serving(config, tmp_path / "first") as first:
        first.load(archive, "digits_cnn", batch_size=1, max_batch_delay_ms=100, workers=1)
        with serving(config, tmp_path / "second") as second:
            second.load(archive, "digits_cnn", batch_size=4, max_batch_delay_ms=2, workers=1)
            answers = [server.client.predict("digits_cnn", body, "image/png").body for server in (first, second)]
            sizes = [server.client.describe("digits_cnn").batch_size for server in (first, second)]  # type: ignore[union-attr]
        alone = first.client.predict("digits_cnn", body, "image/png")

    assert [1, 4] == sizes
    assert answers[0] == answers[1] == alone.body
    assert 200 == alone.status


def test_a_pipeline_killed_in_a_trial_leaves_nothing(killed: Any) -> None:
    assert [] == killed.processes
    assert [] == killed.servers


def test_the_next_run_goes_on_in_that_trial(killed: Any, pair: dict[str, Any]) -> None:
    """Its accelerator and its objective are others than the smoke run's: that alone makes tune and report run again."""
    again = pair["emulated"]

    print(f"the run with another objective took {again.seconds:.0f} s")
    assert (0, "") == (again.code, again.err)
    assert ["load", "wrap", "export", "archive", "deploy"] == again.cached
    result = json.loads((again.run / "tune" / "result.json").read_text())
    earlier = [trial for trial in result["trials"] if trial["run"] is not None]
    assert [killed.run] * 2 == [trial["run"] for trial in earlier]  # the pair before the trial that was killed
    assert earlier == result["trials"][:2]
    sent = {plan.parent.name for plan in again.run.glob("logs/tune/trial-*/plan.json")}
    assert {f"trial-{place:03d}" for place in range(3, len(result["trials"]) + 1)} == sent
    assert any("trials 1 to 2 were measured in run" in told for told in result["warnings"])
    assert not list((again.run.parent / ".trials").glob("*/*.npz"))  # it is finished, and everything is in its own folder


@pytest.mark.parametrize("line", ["  run", "  archive"])
def test_ctrl_c_in_a_terminal_ends_a_pipeline_within_seconds_and_leaves_nothing(
    place: Any,
    smoke: Any,
    quick: tuple[str, ...],
    program: Callable[..., subprocess.Popen[str]],
    until: Callable[..., float],
    line: str,
) -> None:
    """A terminal interrupts every process of the group: Prefect's server as well, if it could hear it."""
    assert 0 == smoke.code
    pipeline = program("pipelines", "model=digits_cnn", *quick, "until=deploy", "fresh=deploy")
    assert pipeline.stdout is not None
    assert any(said.startswith(line) for said in iter(pipeline.stdout.readline, ""))

    os.killpg(pipeline.pid, signal.SIGINT)

    assert 130 == pipeline.wait(20)
    assert pipeline.stderr is not None
    assert ["pipeline: interrupted; finished stages are kept and the next run goes on from there"] == (
        pipeline.stderr.read().strip().splitlines()
    )
    until(lambda: not place.ours(), DEADLINE_S, "no process of ours")
    until(lambda: not place.servers, DEADLINE_S, "no folder of a server")
