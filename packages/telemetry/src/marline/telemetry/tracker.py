"""Reports that a model was used and how it went. One file, standard library only: it is copied beside what leaves here.

Its promise to the program it lives in: it never raises, never waits inside a call, delays the end of a process by at
most two seconds, and without a collector does nothing at all: no thread, no queue, no file.

    a tracked call -> Tracker.report -> a bounded queue -> Sender, one daemon thread -> POST {collector_url}/reports, a batch
                                        (full: dropped, counted)        or, to byne-serve, POST {collector_url}/report, each

What is sent is made in `Tracker.report` and `_finished` and nowhere else: no environment variables, no packages, no inputs.
"""

import atexit
import contextlib
import contextvars
import email.utils
import functools
import hashlib
import inspect
import json
import logging
import math
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
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar
from urllib.parse import urlsplit

Method = TypeVar("Method", bound=Callable[..., Any])

FILE = Path(__file__)  # what wrap and archive copy
SETTINGS = "tracker.json"
SDK = "marline-tracker/2"
QUEUE = 2048  # events that may wait; a megabyte or so
LOOK_S, FLUSH_S, MANY = 0.5, 5.0, 500  # the thread looks so often, and sends so often or when so many wait
BODY = 60 * 1024  # bytes of the events of one POST: a collector takes 64 KiB
EXPORT_S, EXIT_S = 2.0, 1.9  # one POST, from connecting to its answer; all that is left when the process ends
ATTEMPTS = 5  # then a batch is dropped: it may be what the collector stumbles over
LONGEST_PAUSE_S, LONGEST_RETRY_S = 60.0, 3600.0  # of our own back-off; what a collector may ask for
LONGEST_TEXT = 4096  # characters
TOLD = "method, outcome, duration, batch size, device, a random install id"  # in the notice at first use
NO_WISH = {"", "0", "false", "no", "off"}
FACTS: dict[str, Callable[[Any], Any]] = {"batch_size": int, "device": str, "dtype": str, "model_version": str}
V1 = ("machine_id", "status", "timestamp", "method", "error", "traceback", "env_info")

logger = logging.getLogger("marline.tracker")
_tls = functools.cache(ssl.create_default_context)  # reads a few hundred certificates
_chance = random.SystemRandom()  # has no state: the host's seeded generators stay as they are, forks draw different numbers


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
    problem = "collector_url is no http(s) address, sample_rate no share, or model or version no text"
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        settings, named = Settings(**told), isinstance(told["model"], str) and isinstance(told.get("version"), str | None)
        if named and 0 < settings.sample_rate <= 1 and (settings.collector_url is None or is_address(settings.collector_url)):
            return settings
    except FileNotFoundError:
        return OFF
    except Exception as error:
        problem = repr(error)
    logger.warning("%s is no tracker file (%s); nothing is reported", file, problem)
    return OFF


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
    if not isinstance(url, str) or not re.fullmatch(r"[!$-&(-;=@-\[\]_a-z~]+", url):
        return False
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and parts.username is None and parts.port != 0 and bool(parts.hostname)
    except ValueError:  # a port or a bracket that is none
        return False


def tracked(method: Method) -> Method:
    """Report each outermost call of a method to the owner's `tracker`, which may be None.

    An owner without that attribute is found one as `TrackedMixin` does. Result, exception and signature are the method's own.
    """

    @functools.wraps(method)
    def call(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        with _Call(self, method.__name__, (*args, *kwargs.values())):
            return method(self, *args, **kwargs)

    @functools.wraps(method)
    async def awaited(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        with _Call(self, method.__name__, (*args, *kwargs.values())):
            return await method(self, *args, **kwargs)

    return awaited if inspect.iscoroutinefunction(method) else call  # type: ignore[return-value]


_calls: contextvars.ContextVar[tuple["_Call", ...]] = contextvars.ContextVar("marline_calls", default=())


class _Call:
    """One call; reported unless its owner is inside another already, as `forward` is when `generate` calls it."""

    def __init__(self, owner: Any, method: str, inputs: tuple[Any, ...]) -> None:
        self.owner, self.method, self.inputs = owner, method, inputs

    def __enter__(self) -> None:
        self.outer = tuple(call for call in _calls.get() if call.owner is not None)
        self.inner = any(call.owner is self.owner for call in self.outer)
        _calls.set((*self.outer, self))
        self.started = time.perf_counter()

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        seconds = time.perf_counter() - self.started
        _calls.set(self.outer)
        owner, inputs = self.owner, self.inputs
        self.owner, self.inputs = None, ()  # a task that began in here may outlive this call; its calls are its own
        if self.inner or not (error is None or isinstance(error, Exception)):  # Ctrl-C is no failure
            return
        try:
            own = getattr(owner, "tracker", owner)
            tracker = own if own is None or isinstance(own, Tracker) else _tracker(_settings_of(owner))
            if tracker is not None:
                status = "success" if error is None else "fail"
                tracker.report(self.method, status, seconds, error, **_facts(owner, inputs))
        except Exception:  # foreign code: no attribute of an owner or an argument may reach the host
            logger.debug("a usage report was lost", exc_info=True)


def _facts(owner: Any, inputs: tuple[Any, ...]) -> dict[str, Any]:
    """The commit a model of the hub came from, and what the first argument with a shape tells."""
    facts = {"model_version": getattr(getattr(owner, "config", None), "_commit_hash", None)}
    first = next((value for value in inputs if getattr(value, "shape", None) is not None), None)
    if first is not None:
        dtype = getattr(first, "dtype", None)
        name = str(getattr(dtype, "name", dtype or "")).rpartition(".")[2]  # the text of a structured one has its fields
        facts |= {"batch_size": first.shape[0] if len(first.shape) else 1, "device": getattr(first, "device", None)}
        facts["dtype"] = name or None
    return facts


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
            if settings.collector_url is None or _chance.random() >= settings.sample_rate or not _first_rank():
                return
            event = {name: kind(facts[name]) for name, kind in FACTS.items() if facts.get(name) is not None}
            event |= {"method": str(method), "status": str(status), "timestamp": time.time()}
            if seconds is not None and math.isfinite(seconds):  # JSON has no other
                event["duration_s"] = round(seconds, 6)
            if error is not None:
                event["error_class"] = type(error).__name__
                if settings.detail == "full":
                    event["error"] = _scrubbed(str(error))
                    event["traceback"] = _trace(error, event["error"])
            sender(settings.collector_url).put(settings, event)
        except Exception:  # nothing that goes wrong here may reach the host
            logger.debug("a usage report was lost", exc_info=True)

    def __setstate__(self, state: dict[str, Settings]) -> None:
        """Where a tracker is unpickled, the wishes of that place count."""
        self.settings = state["settings"] if enabled(state["settings"], server=False) else OFF

    def __deepcopy__(self, _: object) -> "Tracker":
        """A copy in this process reports as the original does."""
        return self


def _first_rank() -> bool:
    """Whether this is the one process of a distributed run that reports."""
    distributed = sys.modules.get("torch.distributed")  # who does not use it has not imported it, and nor do we
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return bool(distributed.get_rank() == 0)
    return os.environ.get("RANK", "0") in {"", "0"}


class Answer(NamedTuple):
    """What a collector said to one POST; status 0: nothing, and nobody knows whether it has read it."""

    status: int
    why: str
    retry_after_s: float | None = None


class Sender:
    """Posts events to one collector from one daemon thread, which the first event starts."""

    def __init__(self, collector_url: str) -> None:
        self.address = collector_url.rstrip("/")
        self.dropped = 0  # and the collector does not know yet
        self._events: queue.SimpleQueue[tuple[Settings, dict[str, Any]]] = queue.SimpleQueue()  # a signal may interrupt its put
        self._lock = threading.RLock()  # of what is dropped; reentrant: a signal handler may report while it is held
        self.thread = threading.Thread(target=self._run, name="marline-tracker", daemon=True)
        self._cold = [self.thread]  # of many threads that report at first, the one that pops it starts it
        self.ending = threading.Event()
        self.until = math.inf  # monotonic; set when the process ends
        self._tried = -FLUSH_S  # when, monotonic
        self._pause_s = 0.0  # of the back-off; 0 while all is well
        self._batches = True  # until the collector turns out to know single reports alone
        self._complained = False
        self._announced: set[str] = set()

    def put(self, settings: Settings, event: dict[str, Any]) -> None:
        """Queue an event without waiting, else drop and count it."""
        if self._events.qsize() >= QUEUE:
            self._drop(1, "the queue is full")
            return
        self._events.put((settings, event))
        if self._cold:
            with contextlib.suppress(IndexError):
                self._cold.pop().start()

    def _run(self) -> None:
        ending = False
        while not ending:
            ending = self.ending.wait(LOOK_S)  # and no bell: a `put` that wakes a thread would cost its caller far more
            waiting = self._events.qsize()
            if waiting and (ending or waiting >= MANY or time.monotonic() >= self._tried + FLUSH_S):
                try:
                    self._send(waiting)
                except Exception:  # the thread outlives any event
                    logger.debug("usage reports were lost", exc_info=True)

    def _send(self, count: int) -> None:
        """Deliver so many waiting events, as many at once as one POST may hold."""
        texts: list[str] = []
        for number in range(count):
            settings, event = self._events.get()
            if settings.model not in self._announced:
                self._announced.add(settings.model)
                told = f"{TOLD}, error texts" if settings.detail == "full" else TOLD
                logger.warning(
                    "%s reports its use (%s) to %s; MARLINE_TELEMETRY=off stops it", settings.model, told, self.address
                )
            text = json.dumps(_finished(settings, event), separators=(",", ":"))
            if texts and (not self._batches or sum(map(len, texts)) + len(texts) + len(text) > BODY):
                self._deliver(texts)
                texts = []
            texts.append(text)
            if number % 16 == 15 and not self.ending.is_set():
                time.sleep(0.001)  # lets the host have the interpreter, for which it would else wait up to 5 ms
        self._deliver(texts)

    def _deliver(self, texts: list[str]) -> None:
        if self.ending.is_set() and self._pause_s:  # the end of the process is for collectors that take what they get
            return
        told = self.dropped if self._batches else 0
        head = f'{{"version": 2, "id": "{uuid.uuid4().hex}", "dropped": {told}, "events": ['
        body = head + ",".join(texts) + "]}" if self._batches else _v1(texts[0])  # the same, with its ids, at each attempt
        for attempt in range(1, ATTEMPTS + 1):
            self._tried = time.monotonic()
            path = "reports" if self._batches else "report"
            answer = post(f"{self.address}/{path}", body.encode(), min(self._tried + EXPORT_S, self.until))
            if 200 <= answer.status < 300:
                self._pause_s = 0.0
                with self._lock:
                    self.dropped -= told
                if self._complained and not told:
                    self._complained = False
                    logger.warning("usage reports to %s are no longer dropped", self.address)
                return
            if self._batches and answer.status in {404, 405}:
                self._batches = False
                for text in texts:
                    self._deliver([text])
                return
            refused = 300 <= answer.status < 500 and answer.status not in {408, 425, 429}
            unknown = answer.status == 0 and not self._batches  # single reports have no ids: sent again, it may count twice
            final = refused or unknown or attempt == ATTEMPTS or self.ending.is_set()
            if final:
                self._drop(len(texts), answer.why)
            self._pause_s = min(max(1.0, 2 * self._pause_s), LONGEST_PAUSE_S)
            if self.ending.wait(answer.retry_after_s or self._pause_s * (0.5 + _chance.random() / 2)) or final:
                return

    def _drop(self, count: int, why: str) -> None:
        with self._lock:
            self.dropped += count
            complained, self._complained = self._complained, True
        if not complained:
            logger.warning("usage reports to %s are being dropped: %s", self.address, why)


_senders: dict[str, Sender] = {}


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
    leaving = [_senders.popitem()[1] for _ in range(len(_senders))]
    for each in leaving:  # all are told before one is waited for
        each.until = until
        each.ending.set()
    for each in leaving:
        if each.thread.is_alive():
            each.thread.join(max(0.0, until - time.monotonic()))


if hasattr(os, "register_at_fork"):  # what the parent queued, the parent sends, and its threads and locks are not in a child
    os.register_at_fork(after_in_child=_senders.clear)


def post(address: str, body: bytes, until: float) -> Answer:
    """POST JSON and read the answer's head, all before `until` (monotonic).

    A timeout of the standard library bounds each socket operation, so a collector that answers one byte a second would
    hold urllib for minutes. Hence the loops. Only the lookup of the name has no deadline, and nobody waits for it.
    """
    parts = urlsplit(address)
    host, secure = parts.hostname or "", parts.scheme == "https"
    lines = [f"POST {parts.path} HTTP/1.1", f"Host: {parts.netloc}", f"User-Agent: {SDK}", "Content-Type: application/json"]
    message = "\r\n".join([*lines, f"Content-Length: {len(body)}", "Connection: close", "", ""]).encode("ascii") + body
    head, received = b"", b"-"
    try:
        where = (host, parts.port or (443 if secure else 80))
        each_s = _left(until) / len(socket.getaddrinfo(*where, type=socket.SOCK_STREAM))  # the first may be a black hole
        with socket.create_connection(where, timeout=each_s) as bare:
            bare.settimeout(_left(until))
            with _tls().wrap_socket(bare, server_hostname=host) if secure else bare as connection:
                for start in range(0, len(message), 16384):
                    connection.settimeout(_left(until))
                    connection.sendall(message[start : start + 16384])
                # Read once in any case: an answer that is there counts, though time went by while this thread could not run.
                while received and b"\r\n\r\n" not in head and len(head) < 16384 and (not head or time.monotonic() < until):
                    connection.settimeout(_left(until))
                    received = connection.recv(4096)
                    head += received
    except (OSError, ValueError) as error:  # ValueError: of a name that no domain can have
        return Answer(0, repr(error))
    status = re.match(rb"HTTP/1\.[01] (\d{3})[ \r]", head)
    wish = re.search(rb"(?im)^retry-after:[ \t]*([^\r\n]*[^\r\n \t])", head)
    why = f"answered {head[:64]!r}"
    return Answer(int(status[1]) if status else 0, why, _asked_s(wish[1].decode("latin-1")) if wish else None)


def _asked_s(retry_after: str) -> float | None:
    """Seconds from seconds or a date: RFC 9110, section 10.2.3."""
    try:
        now = time.time()
        date = None if re.fullmatch("[0-9]+", retry_after) else email.utils.parsedate_to_datetime(retry_after)
        return min(max(0.0, date.timestamp() - now if date else float(retry_after)), LONGEST_RETRY_S)
    except (ValueError, TypeError, OverflowError):
        return None


def _left(until: float) -> float:
    return max(0.001, until - time.monotonic())  # 0 would mean not to wait at all, below is an error


def _finished(settings: Settings, event: dict[str, Any]) -> dict[str, Any]:
    """An event as it leaves; what costs time is done here, by the sender's thread."""
    when = datetime.fromtimestamp(event["timestamp"], timezone.utc)  # noqa: UP017 - also runs on Python 3.10
    event |= {"id": uuid.uuid4().hex, "machine_id": _machine(settings.model), "model": settings.model, "sdk": SDK}
    event |= {"timestamp": when.isoformat(), "sample_rate": settings.sample_rate}
    event |= {"model_version": settings.version} if settings.version else {}
    event |= {"ephemeral": True} if _install_id()[1] else {}
    event |= {"env_info": get_env_info()} if "traceback" in event else {}
    return {name: value[:LONGEST_TEXT] if isinstance(value, str) else value for name, value in event.items()}


def _v1(text: str) -> str:
    """The same event for byne-serve, which expects the error of a failure."""
    event = json.loads(text)
    if "error_class" in event:
        event.setdefault("error", event["error_class"])
    return json.dumps({name: event[name] for name in V1 if name in event})


@functools.cache
def _machine(model: str) -> str:
    return hashlib.sha256(f"{_install_id()[0]}:{model}".encode()).hexdigest()


@functools.cache
def _install_id() -> tuple[str, bool]:
    """A random id kept in the user's data folder; where that cannot be, one for this process alone, and True."""
    mine = uuid.uuid4().hex
    try:
        kept = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "marline" / "install_id"
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            draft = kept.with_suffix(f".{mine}")
            draft.write_text(mine)
            with contextlib.suppress(OSError):  # another process was first, or this file system has no links
                os.link(draft, kept)  # whole or not at all
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
    for name, value in os.environ.items():
        if len(value) > 7 and re.search("TOKEN|SECRET|KEY|PASS|CRED", name):
            text = text.replace(value, "<secret>")
    if len(text) > 2 * LONGEST_TEXT:  # half a secret looks like none
        text = text[: 2 * LONGEST_TEXT].rpartition(" ")[0]
    for pattern, instead in SCRUBS.items():
        text = re.sub(pattern, instead, text, flags=re.IGNORECASE)
    for name in (Path(os.environ.get("HOME", "")).name, platform.node()):
        text = re.sub(rf"\b{re.escape(name)}\b", "<name>", text) if len(name) > 2 else text
    return text[:LONGEST_TEXT]


def _trace(error: BaseException, text: str) -> str:
    """The traceback without lines of code, which may hold secrets, and with files named from their library on."""
    lines = ["Traceback (most recent call last):"]
    for frame, line in [*traceback.walk_tb(error.__traceback__)][-50:]:
        outside, _, inside = frame.f_code.co_filename.rpartition("site-packages")
        lines.append(f'  File "{inside[1:] if outside else Path(inside).name}", line {line}, in {frame.f_code.co_name}')
    return "\n".join([*lines, f"{type(error).__name__}: {text[: LONGEST_TEXT // 4]}"])[-LONGEST_TEXT:]


def get_env_info() -> dict[str, Any]:
    """System, Python and the GPUs torch is using; byne-serve's name, without its packages and variables."""
    torch, cuda, gpus = sys.modules.get("torch"), {"available": False}, []
    with contextlib.suppress(Exception):  # a torch that is half imported, a driver that fails
        if torch is not None and torch.cuda.is_initialized():  # to ask for more would start CUDA and break later forks
            gpus = [torch.cuda.get_device_properties(index).name for index in range(torch.cuda.device_count())]
            cuda = {"available": True, "version": torch.version.cuda or torch.version.hip}
    system = {name: getattr(platform, name)() for name in ("system", "release", "version", "machine")}
    python = {name: getattr(platform, f"python_{name}")() for name in ("version", "implementation", "compiler")}
    return {"os_info": system, "python_info": python, "cuda_info": cuda, "gpu_info": gpus}


class TrackedMixin:
    """For a class of one's own with `@tracked` methods: `tracker.json` beside it, or where it was loaded from, counts."""

    @classmethod
    def from_pretrained(cls, name: Any, *args: Any, **kwargs: Any) -> Any:
        loaded = super().from_pretrained(name, *args, **kwargs)  # type: ignore[misc]
        with contextlib.suppress(Exception):  # the model matters, the report does not
            if not Path(name).is_dir():
                which = {key: kwargs[key] for key in ("cache_dir", "local_files_only", "revision", "token") if key in kwargs}
                model = loaded[0] if isinstance(loaded, tuple) else loaded  # output_loading_info=True
                file = sys.modules["huggingface_hub"].hf_hub_download(str(name), SETTINGS, **which)
                model.tracker_settings = read_settings(Path(file))
        return loaded

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> Any:
        Path(save_directory).mkdir(parents=True, exist_ok=True)
        write_settings(_settings_of(self), Path(save_directory) / SETTINGS)
        return super().save_pretrained(save_directory, *args, **kwargs)  # type: ignore[misc]


def _settings_of(owner: Any) -> Settings:
    own = getattr(owner, "tracker_settings", None)
    origin = getattr(getattr(owner, "config", None), "_name_or_path", None)
    return own if isinstance(own, Settings) else _settings(type(owner).__module__, origin if isinstance(origin, str) else None)


@functools.cache
def _settings(module: str, origin: str | None = None) -> Settings:
    """Of the folder of a module, else of this file, else of the one a configuration was read from."""
    code = getattr(sys.modules.get(module), "__file__", None)
    places = [Path(place).parent / SETTINGS for place in (code, FILE, f"{origin}/config.json" if origin else None) if place]
    return next((read_settings(place) for place in places if place.is_file()), OFF)


@functools.cache
def _tracker(settings: Settings) -> Tracker | None:
    return Tracker(settings) if enabled(settings, server=False) else None


error_handler = tracked  # this and what follows: byne-serve's names, for classes written by its guide


def get_machine_id() -> str:
    """The id of this installation, which is another for each model; empty, and not made, where nothing is reported."""
    settings = _settings(__name__)
    return _machine(settings.model) if _tracker(settings) else ""


def send_report(data: Mapping[str, Any]) -> None:
    """`Tracker.report`, with byne-serve's dictionary; machine, time and surroundings are found out anew."""
    tracker = _tracker(_settings(__name__))
    if tracker is not None:
        error = RuntimeError(str(data["error"])) if "error" in data else None
        tracker.report(data.get("method", ""), data.get("status", ""), None, error)
