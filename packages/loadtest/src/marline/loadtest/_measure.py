"""Measure a server under load, or let a person load it from locust's page."""

import json
import mimetypes
import os
import re
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from marline.core import LoadTestError, project_root, write_json
from marline.loadtest._load import Load, Target, arrival_times
from marline.loadtest._locust import locust, wait
from marline.loadtest._measurement import Measurement, read_samples

ALLOWANCE_S = 20.0  # beyond the load itself and its last answer: for locust to start and to write
JOIN_S = 300.0  # for workers that somebody starts elsewhere; ours are there in seconds
OURS_S = 30.0
MASTER_PORT = 5557  # locust's own, which firewalls may be open for


def measure(
    target: Target,
    payloads: Sequence[Path],
    load: Load,
    out: Path,
    *,
    html: bool = False,
    answers: bool = False,
    processes: int = 1,
    expect_workers: int = 0,
    join_s: float = JOIN_S,
    port: int = MASTER_PORT,
    waited: Callable[[float], None] = lambda _: None,
    said: Callable[[str], None] = print,
) -> Measurement:
    """Send the load, payloads in turn; `out` keeps the plan, schedule, raw samples.json and locust's log and tables.

    `html` adds locust's report (1 MB), `answers` the bodies to samples.json; `waited` hears the seconds gone by. With several
    `processes`, or `expect_workers` that join from elsewhere in their place, locust's master merges all rows. LoadTestError
    where locust leaves no samples, or not all workers join within `join_s` (at `port`, or a free one where that is taken).
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / "samples.json").unlink(missing_ok=True)
    (out / "schedule.txt").write_text("".join(f"{instant:.9f}\n" for instant in arrival_times(load)))
    words = ["--headless", "--only-summary", "-u", "1", "-r", "1", "--exit-code-on-error", "0", "--csv", "locust"]
    words += ["--html", "locust.html"] * html
    workers = expect_workers or (processes if processes > 1 else 0)
    told = {"users": load.users, "seconds": load.end_s, "answers": answers, "workers": workers}
    plan = _write_plan(out, target, payloads, load.timeout_s, **told)
    join_s = join_s if expect_workers else OURS_S
    deadline_s = load.end_s + load.timeout_s + ALLOWANCE_S + join_s * (workers > 0)
    try:
        with ExitStack() as stack:
            if workers:
                words += _gather(stack, out, workers, join_s, said, port if expect_workers else None)
            code = wait(stack.enter_context(locust("sender.py", words, out, plan)), deadline_s, waited)
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
    port = _free_port("127.0.0.1", 0)
    plan = _write_plan(out, target, payloads, timeout_s)
    try:
        with locust("locustfile.py", ["--web-host", "127.0.0.1", "--web-port", str(port)], out, plan) as process:
            said(f"locust's page is at http://127.0.0.1:{port} and loads {target.url}; Ctrl-C ends it")
            code = process.wait()
    except KeyboardInterrupt:
        return
    finally:
        _forget_token(plan)
    raise LoadTestError(f"locust's page ended with code {code}; {_log(out)}")


def content_type(file: Path) -> str:
    """What a payload is, by its name: the rule by which `nox -s serve` prints curl lines, and the golden pairs are asked."""
    return mimetypes.guess_type(file.name)[0] or "application/octet-stream"


def _gather(
    stack: ExitStack, out: Path, workers: int, join_s: float, said: Callable[[str], None], wanted: int | None
) -> list[str]:
    """Start the workers or, where a port is wanted, say how others are started; returns the words for their master."""
    ours = wanted is None
    # Who reaches the master's port is told the token: from elsewhere only where that was asked for.
    host = "127.0.0.1" if ours else "0.0.0.0"  # noqa: S104
    port = _free_port(host, wanted or 0)
    for number in range(1, workers + 1) if ours else ():
        words = ["--worker", "--master-host", host, "--master-port", str(port)]
        stack.enter_context(locust("sender.py", words, out, None, f"worker-{number}.log"))
    if not ours:
        file, here = project_root() / "loadtests" / "sender.py", socket.gethostname()
        command = f"locust --worker --master-host {here} --master-port {port} -f {file}"
        said(f"waiting up to {join_s:.0f} s for {workers} worker(s), which must reach the server too: {command}")
    bind = ["--master-bind-host", host, "--master-bind-port", str(port)]
    return ["--master", *bind, "--expect-workers", str(workers), "--expect-workers-max-wait", str(round(join_s))]


def _free_port(host: str, wanted: int) -> int:
    try:
        with socket.create_server((host, wanted)) as free:
            return int(free.getsockname()[1])
    except OSError:
        if not wanted:
            raise
        return _free_port(host, 0)


def _write_plan(out: Path, target: Target, payloads: Sequence[Path], timeout_s: float, **told: Any) -> Path:
    plan = out.resolve() / "plan.json"
    plan.unlink(missing_ok=True)
    content = {
        "url": target.url,
        "token": target.token if target.token_file is None else None,  # what is killed leaves its plan behind
        "token_file": str(target.token_file) if target.token_file is not None else None,
        "payloads": [{"file": str(file.resolve()), "content_type": content_type(file)} for file in payloads],
        "schedule": str(out.resolve() / "schedule.txt"),
        "timeout_s": timeout_s,
        "out": str(out.resolve() / "samples.json"),
    }
    with os.fdopen(os.open(plan, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:  # it holds the token
        json.dump(content | told, stream, indent=2)
    return plan


def _forget_token(plan: Path) -> None:
    write_json(plan, json.loads(plan.read_text()) | {"token": None})


def _log(out: Path) -> str:
    """Where to read on, and the last word of locust's that names an error, a worker's where the master has none."""
    log = out / "locust.log"
    logs = [file.read_text(errors="replace") for file in (log, *sorted(out.glob("worker-*.log"))) if file.is_file()]
    errors = re.compile(r"^\w*(?:Error|Exception)\b.*$|(?<=/ERROR/)\S+: .*$", re.MULTILINE)
    said = [found for text in logs for found in errors.findall(text)]
    return f"read {log}" + (f", which says {said[-1]!r}" if said else "")
