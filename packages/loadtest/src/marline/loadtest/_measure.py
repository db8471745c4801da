"""Measure a server under open-loop load, or let a person load it from locust's page."""

import json
import os
import re
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from marline.core import LoadTestError, write_json
from marline.loadtest._load import Load, Target, arrival_times
from marline.loadtest._locust import locust, wait
from marline.loadtest._measurement import Measurement, read_samples

CONTENT_TYPES = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".json": "application/json",
    ".npy": "application/x-npy",
    ".txt": "text/plain",
}
ALLOWANCE_S = 20.0  # beyond the load itself and its last answer: for locust to start and to write


def measure(
    target: Target,
    payloads: Sequence[Path],
    load: Load,
    out: Path,
    *,
    html: bool = False,
    answers: bool = False,
    waited: Callable[[float], None] = lambda _: None,
) -> Measurement:
    """Send the load, payloads in turn; `out` keeps the plan, schedule, raw samples.json and locust's log and tables.

    `html` adds locust's report (1 MB), `answers` the bodies to samples.json; `waited` hears the seconds gone by. LoadTestError
    where locust leaves no samples.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / "samples.json").unlink(missing_ok=True)
    (out / "schedule.txt").write_text("".join(f"{instant:.9f}\n" for instant in arrival_times(load)))
    words = ["--headless", "--only-summary", "-u", "1", "-r", "1", "--exit-code-on-error", "0", "--csv", "locust"]
    words += ["--html", "locust.html"] * html
    deadline_s = load.warmup_s + load.seconds + load.timeout_s + ALLOWANCE_S
    plan = _write_plan(out, target, payloads, load.timeout_s, answers=answers)
    try:
        with locust("open_loop.py", words, plan) as process:
            code = wait(process, deadline_s, waited)
    finally:
        _forget_token(plan)
    if code is None:
        raise LoadTestError(f"locust was not done {deadline_s:.0f} s after it began and was ended; {_log(out)}")
    if code != 0 or not (out / "samples.json").is_file():
        raise LoadTestError(f"locust ended with code {code} and left no samples of {target.url}; {_log(out)}")
    return read_samples(out / "samples.json", load)


def browse(target: Target, payloads: Sequence[Path], timeout_s: float, out: Path, said: Callable[[str], None] = print) -> None:
    """Serve locust's page on loopback until interrupted; says its address. LoadTestError where locust ends by itself."""
    out.mkdir(parents=True, exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    plan = _write_plan(out, target, payloads, timeout_s)
    try:
        with locust("locustfile.py", ["--web-host", "127.0.0.1", "--web-port", str(port)], plan) as process:
            said(f"locust's page is at http://127.0.0.1:{port} and loads {target.url}; Ctrl-C ends it")
            code = process.wait()
    except KeyboardInterrupt:
        return
    finally:
        _forget_token(plan)
    raise LoadTestError(f"locust's page ended with code {code}; {_log(out)}")


def _write_plan(out: Path, target: Target, payloads: Sequence[Path], timeout_s: float, *, answers: bool = False) -> Path:
    plan = out.resolve() / "plan.json"
    plan.unlink(missing_ok=True)
    content = {
        "url": target.url,
        "token": target.token,
        "token_file": str(target.token_file) if target.token_file is not None else None,
        "payloads": [
            {"file": str(file.resolve()), "content_type": CONTENT_TYPES.get(file.suffix, "application/octet-stream")}
            for file in payloads
        ],
        "schedule": str(out.resolve() / "schedule.txt"),
        "timeout_s": timeout_s,
        "answers": answers,
        "out": str(out.resolve() / "samples.json"),
    }
    with os.fdopen(os.open(plan, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:  # it holds the token
        json.dump(content, stream, indent=2)
    return plan


def _forget_token(plan: Path) -> None:
    write_json(plan, json.loads(plan.read_text()) | {"token": None})


def _log(out: Path) -> str:
    log = out / "locust.log"
    said = re.findall(r"^\w*(?:Error|Exception)\b.*$", log.read_text(errors="replace"), re.MULTILINE)
    return f"read {log}" + (f", which says {said[-1]!r}" if said else "")
