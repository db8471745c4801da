"""Reports that a model was used and how it went. One file, standard library only: it is copied beside what leaves here.

Its promise to the program it lives in: it never raises, never waits inside a call, delays the end of a process by at
most two seconds, and without a collector does nothing at all: no thread, no queue, no file.

    a tracked call -> Tracker.report -> a bounded queue -> Sender, one daemon thread -> POST {collector_url}/reports, a batch
                                        (full: dropped, counted)        or, to byne-serve, POST {collector_url}/report, each

What is sent is made in `Tracker.report` and `_finished` and nowhere else: no environment variables, no packages, no inputs.
"""

import atexit
import collections
import contextlib
import contextvars
import email.utils
import functools
import hashlib
import inspect
import json
import logging
import os
import platform
import queue
import random
import re
import socket
import ssl
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Concatenate, Literal, NamedTuple, ParamSpec, TypeVar
from urllib.parse import urlsplit

P = ParamSpec("P")
R = TypeVar("R")

FILE = Path(__file__)  # what wrap and archive copy
SETTINGS = "tracker.json"
SDK = "marline-tracker/2"
QUEUE = 2048  # events that may wait; a megabyte or so
BATCH, BODY = 500, 48 * 1024  # events of one POST, and bytes after which none is added: a collector takes 500 and 64 KiB
SOON_S, FLUSH_S = 0.5, 5.0  # a lone event waits this long for company; a busy queue is sent this often, or with a full batch
EXPORT_S, EXIT_S = 2.0, 1.9  # one POST, from connecting to its answer; all that is left when the process ends
ATTEMPTS = 5  # then a batch is dropped: it may be what the collector stumbles over
LONGEST_PAUSE_S, LONGEST_RETRY_S = 60.0, 3600.0  # of our own back-off; what a collector may ask for
LONGEST_TEXT = 4096  # characters
NEVER = QUEUE + 1
NO_WISH = {"", "0", "false", "no", "off"}
FACTS: dict[str, Callable[[Any], Any]] = {"batch_size": int, "device": str, "dtype": str, "model_version": str}
V1 = ("machine_id", "status", "timestamp", "method", "error", "traceback", "env_info")

logger = logging.getLogger("marline.tracker")


@dataclass(frozen=True)
class Settings:
    """Where a model reports to, as what, whether error texts go along, what share of the calls counts, which version it is."""

    collector_url: str | None
    model: str
    detail: Literal["minimal", "full"]
    sample_rate: float = 1.0
    version: str | None = None


OFF = Settings(collector_url=None, model="", detail="minimal")


def read_settings(file: Path) -> Settings:
    """What `tracker.json` says; whatever is wrong with it turns reporting off."""
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        url, rate, version = told["collector_url"], float(told.get("sample_rate", 1)), told.get("version")
        detail: Literal["minimal", "full"] = "full" if told["detail"] == "full" else "minimal"
        settings = Settings(url, str(told["model"]), detail, rate, None if version is None else str(version))
    except FileNotFoundError:
        return OFF
    except Exception as error:
        logger.warning("%s is no tracker file (%r); nothing is reported", file, error)
        return OFF
    if 0 < rate <= 1 and (url is None or is_address(url)):
        return settings
    logger.warning(
        "%s: collector_url %r is no http(s) address or sample_rate %r no share; nothing is reported", file, url, rate
    )
    return replace(OFF, model=settings.model)


def write_settings(settings: Settings, file: Path) -> None:
    """Write `tracker.json`."""
    file.write_text(json.dumps(asdict(settings), indent=2) + "\n", encoding="utf-8")


def enabled(settings: Settings, *, server: bool) -> bool:
    """Whether to report: on a server the operator's wish counts, anywhere else the user's.

    The operator says yes by configuring a collector and no by MARLINE_TELEMETRY=off. A user can also say no by
    DO_NOT_TRACK, HF_HUB_OFFLINE or HF_HUB_DISABLE_TELEMETRY; tests under pytest say no unless MARLINE_TELEMETRY is on.
    """
    told = os.environ.get("MARLINE_TELEMETRY")
    if not is_address(settings.collector_url) or (told is not None and told.lower() in NO_WISH):
        return False
    tested = "PYTEST_CURRENT_TEST" in os.environ and told is None
    wishes = ("DO_NOT_TRACK", "HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY")
    return server or not (tested or any(os.environ.get(name, "").lower() not in NO_WISH for name in wishes))


def is_address(url: object) -> bool:
    """Whether this is an http(s) address with a host, and without user, query, fragment or what would need quoting."""
    try:
        parts = urlsplit(url) if isinstance(url, str) and re.fullmatch(r"[!$-&(-;=@-\[\]_a-z~]+", url) else None
        valid = parts is not None and parts.scheme in {"http", "https"} and parts.username is None and parts.port != 0
        return valid and parts is not None and bool(parts.hostname)
    except ValueError:  # a port or a bracket that is none
        return False


def tracked(method: Callable[Concatenate[Any, P], R]) -> Callable[Concatenate[Any, P], R]:
    """Report each outermost call of a method to the owner's `tracker`; where that is None, only call it.

    Result, exception and signature are the method's own.
    """
    return _observed(method, lambda owner: getattr(owner, "tracker", None))


def _observed(method: Callable[..., Any], tracker_of: Callable[[Any], "Tracker | None"]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        with _Call(self, method.__name__, (*args, *kwargs.values()), tracker_of):
            return method(self, *args, **kwargs)

    @functools.wraps(method)
    async def awaited(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        with _Call(self, method.__name__, (*args, *kwargs.values()), tracker_of):
            return await method(self, *args, **kwargs)

    return awaited if inspect.iscoroutinefunction(method) else call


_inside: contextvars.ContextVar[frozenset[int]] = contextvars.ContextVar("marline_inside", default=frozenset())


class _Call:
    """One call; reported unless its owner is inside another already, as `forward` is when `generate` calls it."""

    __slots__ = ("inputs", "method", "outer", "owner", "started", "tracker_of")

    def __init__(self, owner: Any, method: str, inputs: tuple[Any, ...], tracker_of: Callable[[Any], Any]) -> None:
        self.owner, self.method, self.inputs, self.tracker_of = owner, method, inputs, tracker_of

    def __enter__(self) -> None:
        self.outer = _inside.get()
        _inside.set(self.outer | {id(self.owner)})
        self.started = time.perf_counter()

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        seconds = time.perf_counter() - self.started
        _inside.set(self.outer)
        if id(self.owner) in self.outer or not (error is None or isinstance(error, Exception)):  # Ctrl-C is no failure
            return
        try:
            tracker = self.tracker_of(self.owner)
            if tracker is not None:
                facts = _facts(self.owner, self.inputs)
                tracker.report(self.method, "success" if error is None else "fail", seconds, error, **facts)
        except Exception:  # foreign code: no attribute of an owner or an argument may reach the host
            logger.debug("a usage report was lost", exc_info=True)


def _facts(owner: Any, inputs: tuple[Any, ...]) -> dict[str, Any]:
    """The commit a model of the hub came from, and what the first argument with a shape tells."""
    facts = {"model_version": getattr(getattr(owner, "config", None), "_commit_hash", None)}
    for value in inputs:
        shape = getattr(value, "shape", None)
        if shape is not None:
            dtype = str(getattr(value, "dtype", "")).rpartition(".")[2]  # of "torch.float32"
            size = shape[0] if len(shape) else 1
            return {**facts, "batch_size": size, "device": getattr(value, "device", None), "dtype": dtype or None}
    return facts


class Event(NamedTuple):
    """One call, as it waits to be sent; holds nothing of the host but short texts and numbers."""

    settings: Settings
    when: float  # seconds since the epoch
    method: str
    status: str
    seconds: float | None
    known: dict[str, Any]


class Tracker:
    """Reports for one model. Whether there should be one at all is for `enabled` to say."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def report(self, method: str, status: str, seconds: float | None, error: BaseException | None = None, **facts: Any) -> None:
        """Queue one event, or count it as dropped; never waits, never raises.

        Of the facts, `batch_size`, `device`, `dtype` and `model_version` are sent, and nothing else.
        """
        settings = self.settings
        try:
            if settings.collector_url is None or _random.random() >= settings.sample_rate or not _first_rank():
                return
            known = {name: kind(facts[name]) for name, kind in FACTS.items() if facts.get(name) is not None}
            if error is not None:
                known["error_class"] = type(error).__name__
                if settings.detail == "full":
                    known |= {"error": _scrubbed(str(error))[:LONGEST_TEXT], "traceback": _trace(error)[-LONGEST_TEXT:]}
            sender(settings.collector_url).put(Event(settings, time.time(), method, status, seconds, known))
        except Exception:  # nothing that goes wrong here may reach the host
            logger.debug("a usage report was lost", exc_info=True)

    def __reduce__(self) -> tuple[Any, ...]:
        """Where a tracker is unpickled, the wishes of that place count."""
        return (_restored, (self.settings,))

    def __deepcopy__(self, _: object) -> "Tracker":
        """A copy in this process reports as the original does."""
        return Tracker(self.settings)


def _restored(settings: Settings) -> Tracker:
    return Tracker(settings if enabled(settings, server=False) else replace(settings, collector_url=None))


def _first_rank() -> bool:
    """Whether this is the one process of a distributed run that reports."""
    distributed = sys.modules.get("torch.distributed")  # who does not use it has not imported it, and nor do we
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return bool(distributed.get_rank() == 0)
    return os.environ.get("RANK", "0") in {"", "0"}


@dataclass(frozen=True)
class Answer:
    """What a collector said to one POST; status 0: nothing, and nobody knows whether it has read it."""

    status: int
    why: str
    retry_after_s: float | None = None

    @property
    def accepted(self) -> bool:
        return 200 <= self.status < 300


class Sender:
    """Posts events to one collector from one daemon thread, which the first event starts."""

    def __init__(self, collector_url: str) -> None:
        self.address = collector_url.rstrip("/")
        self.dropped = 0  # and the collector does not know yet
        self._events: collections.deque[Event] = collections.deque()
        self._lock = threading.RLock()  # reentrant: a signal handler or a finalizer may report in the middle of `put`
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._ring_at = NEVER  # the thread sleeps until so many events wait
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._until: float | None = None  # monotonic; set when the process ends
        self._tried = -FLUSH_S  # when, monotonic
        self._pause_s = 0.0  # of the back-off; 0 while all is well
        self._batches = True  # until the collector turns out to know single reports alone
        self._complained = False
        self._announced: set[str] = set()

    def put(self, event: Event) -> None:
        """Queue an event without waiting, else drop and count it."""
        with self._lock:
            full = len(self._events) >= QUEUE
            if not full:
                self._events.append(event)
        if full:
            self._drop(1, "the queue is full")
            return
        if len(self._events) >= self._ring_at:
            self._ring_at = NEVER
            self._bell.put(None)
        if event.settings.model not in self._announced:
            self._announce(event.settings)
        if (self._thread is None or not self._thread.is_alive()) and self._starting.acquire(blocking=False):
            try:
                self._thread = threading.Thread(target=self._run, name="marline-tracker", daemon=True)
                self._thread.start()
            finally:
                self._starting.release()

    def end(self, until: float) -> None:
        """Give the thread until then (monotonic) to send what is left."""
        self._until = until
        self._bell.put(None)
        if self._thread is not None:
            self._thread.join(max(0.0, until - time.monotonic()))

    def _run(self) -> None:
        while self._until is None or self._going_on():
            try:
                self._wait_for(1, None)
                self._wait_for(BATCH, max(SOON_S, self._tried + FLUSH_S - time.monotonic()))
                due = len(self._events)
                while due > 0 and self._going_on():
                    events, texts = self._take(due)
                    due -= len(events)
                    self._deliver(events, texts)
            except Exception:  # the thread outlives any event
                logger.debug("usage reports were lost", exc_info=True)

    def _going_on(self) -> bool:
        """Whether there is something to send; at the end of the process only to a collector that takes it."""
        return bool(self._events) and (self._until is None or not self._pause_s)

    def _wait_for(self, count: int, seconds: float | None) -> None:
        """Sleep until so many events wait, the time is over, or the process ends."""
        until = None if seconds is None else time.monotonic() + seconds
        while self._until is None:
            self._ring_at = count
            left = None if until is None else until - time.monotonic()
            if len(self._events) >= count or (left is not None and left <= 0):
                break
            with contextlib.suppress(queue.Empty):
                self._bell.get(timeout=left)
        self._ring_at = NEVER

    def _take(self, due: int) -> tuple[list[dict[str, Any]], list[bytes]]:
        """The next batch, as events and as their JSON."""
        events: list[dict[str, Any]] = []
        texts: list[bytes] = []
        size = 0
        while len(events) < min(due, BATCH) and size < BODY:
            events.append(_finished(self._events.popleft()))
            texts.append(json.dumps(events[-1], separators=(",", ":")).encode())
            size += len(texts[-1]) + 1
            if len(events) % 16 == 0 and self._until is None:
                time.sleep(0.001)  # lets the host have the interpreter, for which it would else wait up to 5 ms
        return events, texts

    def _deliver(self, events: list[dict[str, Any]], texts: list[bytes]) -> None:
        told = self.dropped
        head = json.dumps({"version": 2, "id": f"{_random.getrandbits(128):032x}", "dropped": told})
        body = head[:-1].encode() + b', "events": [' + b",".join(texts) + b"]}"  # the same, with its ids, at each attempt
        for attempt in range(1, ATTEMPTS + 1):
            answer = self._post("reports", body) if self._batches else self._singly(events)
            if self._batches and answer.status in {404, 405}:
                logger.info("%s takes no batches (%s) and gets single reports", self.address, answer.why)
                self._batches = False
                answer = self._singly(events)
            if answer.accepted:
                self._delivered(told if self._batches else 0)
                return
            refused = 300 <= answer.status < 500 and answer.status not in {408, 425, 429}
            if refused or self._until is not None or attempt == ATTEMPTS:
                self._drop(len(events), answer.why)
            self._pause_s = min(max(1.0, 2 * self._pause_s), LONGEST_PAUSE_S)
            self._wait_for(NEVER, answer.retry_after_s or self._pause_s * (0.5 + _random.random() / 2))
            if refused or self._until is not None:
                return

    def _singly(self, events: list[dict[str, Any]]) -> Answer:
        """Version 1. It knows no ids, so a report whose fate is unknown is dropped instead of sent again."""
        answer = Answer(200, "")
        while events and answer.accepted:
            report = {name: events[0][name] for name in V1 if name in events[0]}
            if "error_class" in events[0]:
                report.setdefault("error", events[0]["error_class"])
            answer = self._post("report", json.dumps(report).encode())
            if answer.status == 0:
                self._drop(1, answer.why)
            if answer.status == 0 or answer.accepted:
                del events[0]
        return answer

    def _post(self, path: str, body: bytes) -> Answer:
        self._tried = time.monotonic()
        until = self._tried + EXPORT_S
        return post(f"{self.address}/{path}", body, until if self._until is None else min(until, self._until))

    def _delivered(self, told: int) -> None:
        self._pause_s = 0.0
        with self._lock:
            self.dropped -= told
        if self._complained and not told:
            self._complained = False
            logger.warning("usage reports to %s are no longer dropped", self.address)

    def _drop(self, count: int, why: str) -> None:
        with self._lock:
            self.dropped += count
            complained, self._complained = self._complained, self._complained or count > 0
        if complained != self._complained:
            logger.warning("usage reports to %s are being dropped: %s", self.address, why)

    def _announce(self, settings: Settings) -> None:
        self._announced.add(settings.model)
        what = "method, outcome, duration, batch size, device, a random install id" + (
            ", error texts" if settings.detail == "full" else ""
        )
        logger.warning("%s reports its use (%s) to %s; MARLINE_TELEMETRY=off stops it", settings.model, what, self.address)


_senders: dict[str, Sender] = {}
_random = random.Random()  # for ids and shares; the host's seeded generators stay as they are


def sender(collector_url: str) -> Sender:
    """The one sender to a collector in this process."""
    if not _senders:
        atexit.register(_at_exit)
        multi = sys.modules.get("multiprocessing.util")  # its forked children do not run what atexit knows
        if multi is not None:
            multi.Finalize(None, _at_exit, exitpriority=0)
    return _senders.get(collector_url) or _senders.setdefault(collector_url, Sender(collector_url))


def _at_exit() -> None:
    until = time.monotonic() + EXIT_S
    while _senders:
        _senders.popitem()[1].end(until)


def _forked() -> None:
    """In a child: what the parent queued, the parent sends, and its thread and locks are not here."""
    _senders.clear()
    _random.seed()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def post(address: str, body: bytes, until: float) -> Answer:
    """POST JSON and read the answer's head, all before `until` (monotonic).

    A timeout of the standard library bounds each socket operation, so a collector that answers one byte a second would
    hold urllib for minutes. Hence the loops. Only the lookup of the name has no deadline, and nobody waits for it.
    """
    parts = urlsplit(address)
    lines = [f"POST {parts.path} HTTP/1.1", f"Host: {parts.netloc}", f"User-Agent: {SDK}", "Content-Type: application/json"]
    head = "\r\n".join([*lines, f"Content-Length: {len(body)}", "Connection: close", "", ""]).encode("ascii")
    try:
        with _connected(parts.hostname or "", parts.port, until, secure=parts.scheme == "https") as connection:
            with contextlib.suppress(ConnectionError):  # who refuses may answer and close before all is read
                for part in (head, *(body[start : start + 16384] for start in range(0, len(body), 16384))):
                    connection.settimeout(_left(until))
                    connection.sendall(part)
            return _answer(connection, until)
    except OSError as error:
        return Answer(0, repr(error))


def _connected(host: str, port: int | None, until: float, *, secure: bool) -> socket.socket:
    failure = OSError(f"{host} has no address")
    for *_, address in socket.getaddrinfo(host, port or (443 if secure else 80), type=socket.SOCK_STREAM):
        try:
            connection = socket.create_connection((str(address[0]), address[1]), timeout=_left(until))
        except OSError as error:
            failure = error
            continue
        return _tls().wrap_socket(connection, server_hostname=host) if secure else connection
    raise failure


def _answer(connection: socket.socket, until: float) -> Answer:
    head, status = b"", None
    while b"\r\n\r\n" not in head and len(head) < 16384 and not (status and status[1].startswith(b"2")):
        connection.settimeout(_left(until))
        received = connection.recv(4096)
        if not received:
            break
        head += received
        status = re.match(rb"HTTP/1\.[01] (\d{3})[ \r]", head)
    if not status:
        raise ConnectionError(f"answered {head[:64]!r}")
    wish = re.search(rb"(?im)^retry-after:[ \t]*([^\r\n]+)", head)
    return Answer(int(status[1]), f"answered {head[:64]!r}", _asked_s(wish[1].decode("latin-1").strip()) if wish else None)


def _asked_s(retry_after: str) -> float | None:
    """Seconds from seconds or a date: RFC 9110, section 10.2.3."""
    try:
        now = time.time()
        date = None if re.fullmatch("[0-9]+", retry_after) else email.utils.parsedate_to_datetime(retry_after)
        return min(max(0.0, date.timestamp() - now if date else float(retry_after)), LONGEST_RETRY_S)
    except (ValueError, TypeError, OverflowError):
        return None


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError("the time for one report is over")
    return left


@functools.cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def _finished(event: Event) -> dict[str, Any]:
    """An event as it leaves; what costs time is done here, by the sender's thread."""
    settings, when, method, status, seconds, known = event
    finished = {
        "id": f"{_random.getrandbits(128):032x}",
        "machine_id": _machine(settings.model),
        "ephemeral": _install_id()[1] or None,
        "model": settings.model,
        "model_version": settings.version,
        "method": method,
        "status": status,
        "timestamp": datetime.fromtimestamp(when, timezone.utc).isoformat(),  # noqa: UP017 - also runs on Python 3.10
        "duration_s": None if seconds is None else round(min(max(0.0, seconds), 1e9), 6),
        "sample_rate": settings.sample_rate,
        "sdk": SDK,
        "env_info": get_env_info() if "traceback" in known else None,
    }
    told = {**known, **{name: value for name, value in finished.items() if value is not None}}
    return {name: value[:LONGEST_TEXT] if isinstance(value, str) else value for name, value in told.items()}


@functools.cache
def _machine(model: str) -> str:
    return hashlib.sha256(f"{_install_id()[0]}:{model}".encode()).hexdigest()


@functools.cache
def _install_id() -> tuple[str, bool]:
    """A random id kept in the user's data folder; where that cannot be, one for this process alone, and True."""
    mine = uuid.uuid4().hex
    try:
        home = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "marline"
        home.mkdir(parents=True, exist_ok=True)
        draft, kept = home / f"install_id.{mine}", home / "install_id"
        draft.write_text(mine)
        with contextlib.suppress(FileExistsError):
            os.link(draft, kept)  # whole or not at all, and of many processes only the first
        draft.unlink()
        found = kept.read_text()
    except (OSError, RuntimeError):  # RuntimeError: a user without a home
        return mine, True
    return (found, False) if re.fullmatch("[0-9a-f]{32}", found) else (mine, True)


GUARDED = r"token|secret|passw(?:or)?d|pwd|credential|authorization|(?:api|access|private|write)[ _-]?key"
SCRUBS = {
    r"\b[a-z][a-z0-9+.-]{0,20}://[^\s'\"<>]+": "<url>",
    r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,64}(\.[\w-]{1,64})+": "<email>",
    r"(['\"])(~|[a-z]:)?[\\/][^'\"\n]*\1": r"\1<path>\1",
    r"(?<![\w.<])(~[\w-]*|\.{0,2})(/[^\s/'\":,;()<>\[\]]+)+/?|\b[a-z]:\\[^\s'\"<>|]+|\\\\[^\s'\"<>|]+": "<path>",
    r"\b(bearer|basic)\s+[\w.~+/=-]+": r"\1 <secret>",
    rf"((?:{GUARDED})\w{{0,32}}['\"]?\s{{0,4}}[:=]\s{{0,4}}['\"]?)[^\s'\",;&)]+": r"\1<secret>",
    r"\b(hf_|sk-|pk-|gh[a-z]_|github_pat_|glpat-|xox[a-z]-|akia|aiza|eyj)[\w.~-]{6,}": "<secret>",
    r"\b(?=[a-z+/=_-]{0,64}[0-9])[\w+/=-]{24,}": "<secret>",  # long, with a digit: rarely a word
}


def _scrubbed(text: str) -> str:
    """Text without addresses, paths, what looks like a key, secrets of the environment, names of user and host."""
    text = text[: 2 * LONGEST_TEXT]
    for name, value in os.environ.items():
        if len(value) > 7 and re.search("TOKEN|SECRET|KEY|PASS|CRED", name):
            text = text.replace(value, "<secret>")
    for pattern, instead in SCRUBS.items():
        text = re.sub(pattern, instead, text, flags=re.IGNORECASE)
    for name in (Path(os.environ.get("HOME", "")).name, platform.node()):
        text = re.sub(rf"\b{re.escape(name)}\b", "<name>", text) if len(name) > 2 else text
    return text


def _trace(error: BaseException) -> str:
    """The traceback without lines of code, which may hold secrets, and with files named from their library on."""
    lines = ["Traceback (most recent call last):"]
    for frame, line in [*traceback.walk_tb(error.__traceback__)][-50:]:
        outside, _, inside = frame.f_code.co_filename.rpartition("site-packages")
        lines.append(f'  File "{inside[1:] if outside else Path(inside).name}", line {line}, in {frame.f_code.co_name}')
    return "\n".join([*lines, f"{type(error).__name__}: {_scrubbed(str(error))}"])


def get_env_info() -> dict[str, Any]:
    """System, Python and the GPUs torch is using; byne-serve's name, without its packages and variables."""
    torch = sys.modules.get("torch")
    gpus: dict[str, Any] = {"cuda_info": {"available": False}, "gpu_info": []}
    with contextlib.suppress(Exception):  # a torch that is half imported, a driver that fails
        if torch is not None and torch.cuda.is_initialized():  # to ask for more would start CUDA and break later forks
            names = [torch.cuda.get_device_properties(index).name for index in range(torch.cuda.device_count())]
            gpus = {"cuda_info": {"available": True, "version": torch.version.cuda or torch.version.hip}, "gpu_info": names}
    python = {"version": platform.python_version(), "implementation": platform.python_implementation()}
    return {
        "os_info": {name: getattr(platform, name)() for name in ("system", "release", "version", "machine")},
        "python_info": {**python, "compiler": platform.python_compiler()},
        **gpus,
    }


class TrackedMixin:
    """For a class of one's own with `@tracked` methods: `tracker.json` beside it, or where it was loaded from, counts."""

    @functools.cached_property
    def tracker_settings(self) -> Settings:
        return _settings_of(type(self).__module__, _origin(self))

    @functools.cached_property
    def tracker(self) -> Tracker | None:
        return _tracker(self.tracker_settings)

    @classmethod
    def from_pretrained(cls, name: Any, *args: Any, **kwargs: Any) -> Any:
        loaded = super().from_pretrained(name, *args, **kwargs)  # type: ignore[misc]
        hub = sys.modules.get("huggingface_hub")
        if hub is not None and not Path(name).is_dir():
            which = {key: kwargs[key] for key in ("cache_dir", "local_files_only", "revision", "token") if key in kwargs}
            with contextlib.suppress(Exception):  # the model matters, the report does not
                model = loaded[0] if isinstance(loaded, tuple) else loaded  # output_loading_info=True
                model.tracker_settings = read_settings(Path(hub.hf_hub_download(str(name), SETTINGS, **which)))
        return loaded

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> Any:
        Path(save_directory).mkdir(parents=True, exist_ok=True)
        write_settings(self.tracker_settings, Path(save_directory) / SETTINGS)
        return super().save_pretrained(save_directory, *args, **kwargs)  # type: ignore[misc]


def error_handler(method: Callable[Concatenate[Any, P], R]) -> Callable[Concatenate[Any, P], R]:
    """byne-serve's name for `tracked`, for a class that has no `tracker`: settings are found as for TrackedMixin."""
    return _observed(method, lambda owner: _tracker(_settings_of(type(owner).__module__, _origin(owner))))


def get_machine_id() -> str:
    """byne-serve's name for the id of this installation, which is another for each model."""
    return _machine(_settings_of(__name__, None).model)


def send_report(data: Mapping[str, Any]) -> None:
    """byne-serve's name for `Tracker.report`, with its dictionary; machine, time and surroundings are found out anew."""
    tracker = _tracker(_settings_of(__name__, None))
    if tracker is not None:
        error = RuntimeError(str(data["error"])) if "error" in data else None
        tracker.report(str(data.get("method", "")), str(data.get("status", "")), None, error)


def _origin(owner: Any) -> str | None:
    origin = getattr(getattr(owner, "config", None), "_name_or_path", None)
    return origin if isinstance(origin, str) else None


@functools.cache
def _settings_of(module: str, origin: str | None) -> Settings:
    """Of the folder of a module, else of this file, else of the one a configuration was read from."""
    code = getattr(sys.modules.get(module), "__file__", None)
    places = [Path(place).parent / SETTINGS for place in (code, FILE, f"{origin}/config.json" if origin else None) if place]
    return next((read_settings(place) for place in places if place.is_file()), OFF)


@functools.cache
def _tracker(settings: Settings) -> Tracker | None:
    return Tracker(settings) if enabled(settings, server=False) else None
