"""Reports that a model was used and how it went. One file, standard library only: it is copied beside what leaves here.

Its promise to the program it lives in: it never raises, never waits inside a call, delays the end of a process by at
most two seconds, and without a collector does nothing at all: no thread, no queue, no file.

What is sent is the dictionary in `_payload` and nothing else: no environment variables, no packages, no inputs.
"""

import atexit
import functools
import hashlib
import http.client
import json
import logging
import os
import queue
import re
import threading
import time
import traceback
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar
from urllib.parse import urlsplit

P = ParamSpec("P")
R = TypeVar("R")

FILE = Path(__file__)  # what wrap and archive copy
QUEUE = 2048  # events that may wait; a megabyte or so
EXPORT_S = 2.0  # one report, from connecting to its answer
EXIT_S = 2.0  # all that is left, when the process ends
LONGEST_PAUSE_S = 60.0
LONGEST_TEXT = 4096  # characters of an error or a traceback
NO_WISH = {"", "0", "false", "no", "off"}

logger = logging.getLogger("marline.tracker")


@dataclass(frozen=True)
class Settings:
    """Where a model reports to, under which name, and whether error texts go along."""

    collector_url: str | None
    model: str
    detail: Literal["minimal", "full"]


@dataclass(frozen=True)
class Event:
    """One call, as it waits to be sent."""

    settings: Settings
    method: str
    status: str
    seconds: float
    timestamp: str
    error: str | None
    traceback: str | None


def read_settings(file: Path) -> Settings:
    """What `tracker.json` says; whatever is wrong with it turns reporting off."""
    off = Settings(collector_url=None, model="", detail="minimal")
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        settings = Settings(told["collector_url"], str(told["model"]), "full" if told["detail"] == "full" else "minimal")
    except FileNotFoundError:
        return off
    except Exception as error:
        logger.warning("%s is no tracker file (%r); nothing is reported", file, error)
        return off
    if settings.collector_url is None or is_address(settings.collector_url):
        return settings
    logger.warning("%s: collector_url %r is no http(s) address; nothing is reported", file, settings.collector_url)
    return replace(settings, collector_url=None)


def write_settings(settings: Settings, file: Path) -> None:
    """Write `tracker.json`."""
    file.write_text(json.dumps(asdict(settings), indent=2) + "\n", encoding="utf-8")


def enabled(settings: Settings, *, server: bool) -> bool:
    """Whether to report: on a server the operator's wish counts, anywhere else the user's.

    The operator says yes by configuring a collector and no by MARLINE_TELEMETRY=off. A user can also say no by
    DO_NOT_TRACK, HF_HUB_OFFLINE or HF_HUB_DISABLE_TELEMETRY.
    """
    if not is_address(settings.collector_url) or os.environ.get("MARLINE_TELEMETRY", "on").lower() in NO_WISH:
        return False
    wishes = ("DO_NOT_TRACK", "HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY")
    return server or all(os.environ.get(name, "").lower() in NO_WISH for name in wishes)


def is_address(url: object) -> bool:
    """Whether this is an http(s) address with a host and, if any, a valid port."""
    try:
        parts = urlsplit(url) if isinstance(url, str) else None
        return parts is not None and parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port or a bracket that is none
        return False


def tracked(method: Callable[Concatenate[Any, P], R]) -> Callable[Concatenate[Any, P], R]:
    """Report each outermost call of a method to the owner's `tracker`; where that is None, only call it.

    Result, exception and signature are the method's own.
    """

    @functools.wraps(method)
    def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:
        tracker = getattr(self, "tracker", None)
        if tracker is None or tracker.inside:
            return method(self, *args, **kwargs)
        tracker.inside = True
        started = time.perf_counter()
        try:
            result = method(self, *args, **kwargs)
        except Exception as error:
            tracker.report(method.__name__, "fail", time.perf_counter() - started, error)
            raise
        finally:
            tracker.inside = False
        tracker.report(method.__name__, "success", time.perf_counter() - started)
        return result

    return call


class Tracker:
    """Reports for one model. Whether there should be one at all is for `enabled` to say."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._here = threading.local()  # two threads may call one model at the same time

    @property
    def inside(self) -> bool:
        """Whether this thread is inside a tracked call already, as `forward` is when `generate` calls it."""
        return getattr(self._here, "inside", False)

    @inside.setter
    def inside(self, value: bool) -> None:
        self._here.inside = value

    def report(self, method: str, status: str, seconds: float, error: BaseException | None = None) -> None:
        """Put one event into the queue, or count it as dropped; never waits, never raises."""
        if self.settings.collector_url is None:
            return
        try:
            event = Event(self.settings, method, status, seconds, _now(), *_texts(self.settings, error))
            sender(self.settings.collector_url).put(event)
        except Exception:  # nothing that goes wrong here may reach the host
            logger.debug("a usage report was lost", exc_info=True)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy starts anew; where it is unpickled, the wishes of that place count."""
        return (_restored, (self.settings,))


class Sender:
    """Posts events to one collector from one daemon thread, which the first event starts."""

    def __init__(self, collector_url: str) -> None:
        self.address = f"{collector_url.rstrip('/')}/report"
        self.dropped = 0
        self._queue: queue.SimpleQueue[Event | None] = queue.SimpleQueue()  # reentrant: also safe in signal handlers
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._ending = threading.Event()
        self._announced: set[str] = set()

    def put(self, event: Event) -> None:
        """Queue an event without waiting, else drop and count it."""
        if self._queue.qsize() >= QUEUE:
            self._drop("the queue is full")
            return
        self._queue.put(event)
        if event.settings.model not in self._announced:
            self._announce(event.settings)
        if (self._thread is None or not self._thread.is_alive()) and self._starting.acquire(blocking=False):
            try:
                self._thread = threading.Thread(target=self._run, name="marline-tracker", daemon=True)
                self._thread.start()
            finally:
                self._starting.release()

    def end(self, deadline: float) -> None:
        """Give the thread until `deadline` (monotonic) to send what is left."""
        self._ending.set()
        self._queue.put(None)
        if self._thread is not None:
            self._thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self) -> None:
        pause = 0.0
        while (event := self._queue.get()) is not None:
            try:
                post(self.address, _payload(event), time.monotonic() + EXPORT_S)
            except Exception as error:
                self._drop(repr(error))
                pause = min(max(1.0, 2 * pause), LONGEST_PAUSE_S)
                self._ending.wait(pause)
            else:
                pause = 0.0

    def _drop(self, why: str) -> None:
        self.dropped += 1
        if self.dropped == 1:
            logger.warning("usage reports to %s are being dropped: %s", self.address, why)

    def _announce(self, settings: Settings) -> None:
        self._announced.add(settings.model)
        what = "method, outcome, duration, a random install id" + (", error texts" if settings.detail == "full" else "")
        logger.warning("%s reports its use (%s) to %s; MARLINE_TELEMETRY=off stops it", settings.model, what, self.address)


_senders: dict[str, Sender] = {}


def sender(collector_url: str) -> Sender:
    """The one sender to a collector in this process."""
    if not _senders:
        atexit.register(_at_exit)
    return _senders.get(collector_url) or _senders.setdefault(collector_url, Sender(collector_url))


def post(address: str, payload: dict[str, Any], deadline: float) -> None:
    """POST as JSON and read the status line, all before `deadline` (monotonic); OSError or the like where that fails.

    A timeout of the standard library bounds each socket operation, so a collector that answers one byte a second would
    hold urllib for minutes. Hence the loop.
    """
    parts = urlsplit(address)
    connect = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = connect(parts.hostname or "", parts.port, timeout=max(0.001, deadline - time.monotonic()))
    try:
        headers = {"Content-Type": "application/json", "Connection": "close", "User-Agent": "marline-tracker/1"}
        connection.request("POST", parts.path, json.dumps(payload), headers)
        answer = b""
        while answer.count(b" ") < 2:  # "HTTP/1.1 200 OK"
            connection.sock.settimeout(max(0.001, deadline - time.monotonic()))
            received = connection.sock.recv(64)
            if not received or len(answer) > LONGEST_TEXT:
                raise ConnectionError(f"answered {answer[:64]!r}")
            answer += received
    finally:
        connection.close()
    if not answer.split(b" ")[1].startswith(b"2"):
        raise ConnectionError(f"answered {answer[:64]!r}")


def _payload(event: Event) -> dict[str, Any]:
    """Version 1 of the report, and how long the call took."""
    optional = {"error": event.error, "traceback": event.traceback}
    return {
        "machine_id": hashlib.sha256(f"{_install_id()}:{event.settings.model}".encode()).hexdigest(),
        "status": event.status,
        "timestamp": event.timestamp,
        "method": event.method,
        "seconds": round(event.seconds, 6),
        **{key: text for key, text in optional.items() if text is not None},
    }


@functools.cache
def _install_id() -> str:
    """A random id kept in the user's data folder; where that cannot be written, one for this process alone."""
    mine = uuid.uuid4().hex
    try:
        home = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "marline"
        home.mkdir(parents=True, exist_ok=True)
        try:
            with (home / "install_id").open("x") as stream:
                stream.write(mine)
        except FileExistsError:
            kept = (home / "install_id").read_text()
            return kept if re.fullmatch("[0-9a-f]{32}", kept) else mine
    except (OSError, RuntimeError):  # RuntimeError: a user without a home
        pass
    return mine


def _texts(settings: Settings, error: BaseException | None) -> tuple[str | None, str | None]:
    if error is None or settings.detail == "minimal":
        return None, None
    return _scrubbed(str(error))[:LONGEST_TEXT], _scrubbed("".join(traceback.format_exception(error)))[-LONGEST_TEXT:]


def _scrubbed(text: str) -> str:
    """Text without the names of home folders."""
    home = os.environ.get("HOME", "")
    text = text.replace(home, "~") if len(home) > 1 else text
    return re.sub(r"(/home/|/Users/|[A-Za-z]:\\Users\\)[^/\\\s\"']+", "~", text)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat()  # noqa: UP017 - what leaves here also runs on Python 3.10


def _restored(settings: Settings) -> Tracker:
    return Tracker(settings if enabled(settings, server=False) else replace(settings, collector_url=None))


def _at_exit() -> None:
    deadline = time.monotonic() + EXIT_S
    for one in list(_senders.values()):
        one.end(deadline)
