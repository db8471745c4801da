"""The keys TorchServe writes to `key_file.json`, and their renewal before they expire.

A renewed key replaces the old one at once: TorchServe 0.12 knows one key of a kind. So whoever sends is told of the new one,
and what was refused meanwhile, which TorchServe does before it looks at a request, is sent once more.
"""

import json
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from marline.core import MarlineError

SHARE = 2 / 3  # of its life, after which a key is renewed
AGAIN_S = 1.0  # after a renewal that failed
LOOK_S = 30.0  # between looks at the clock of the day, which goes on while a machine sleeps
REFUSED = "InvalidKeyException"  # TorchServe's type of a 400 for a key that is wrong or expired


@dataclass(slots=True, repr=False)
class Tokens:
    """The keys as they are now; never shown. `file` is where TorchServe writes new ones, None where nobody can renew them."""

    management: str
    inference: str
    api: str = ""
    expires_s: float = math.inf  # seconds since 1970: the first of the two to go
    file: Path | None = None
    followers: list[Callable[[], None]] = field(default_factory=list, compare=False)  # called when they have changed
    renewals: int = field(default=0, compare=False)
    lock: Any = field(default_factory=threading.RLock, compare=False)

    def take(self, newer: "Tokens") -> None:
        """Be as `newer`, and tell the followers where that is a change."""
        with self.lock:
            changed = (self.management, self.inference) != (newer.management, newer.inference)
            self.management, self.inference, self.expires_s = newer.management, newer.inference, newer.expires_s
            if changed:
                self.renewals += 1
                for follower in self.followers:
                    follower()

    def newer(self, kind: str, refused: str) -> str | None:
        """The key to send again with, once a renewal that is under way is done; None where there is none but the refused."""
        with self.lock:
            if getattr(self, kind) == refused and self.file is not None:  # perhaps another process has renewed it
                try:
                    self.take(read_tokens(self.file))
                except (OSError, ValueError, KeyError):  # gone with its server, or being written
                    return None
            now: str = getattr(self, kind)
            return now if now != refused else None


def read_tokens(file: Path) -> Tokens:
    """Read key_file.json; ValueError or KeyError where it is not there whole."""
    keys = json.loads(file.read_text())
    expiries = [keys[kind].get("expiration time") for kind in ("management", "inference")]
    first = min((datetime.fromisoformat(expiry).timestamp() for expiry in expiries if expiry), default=math.inf)
    return Tokens(keys["management"]["key"], keys["inference"]["key"], keys.get("API", {}).get("key", ""), first, file)


def write_private(file: Path, text: str) -> None:
    """Write a file that only its owner can read; it is there whole or not at all."""
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(text)
    partial.replace(file)


@contextmanager
def renewing(tokens: Tokens, life_s: float, renew: Callable[[], None]) -> Iterator[None]:
    """While inside, a thread calls `renew` whenever two thirds of the tokens' life are over."""
    done = threading.Event()

    def keep() -> None:
        while not done.wait(min(LOOK_S, max(0.0, _due_in_s(tokens, life_s)))):
            if _due_in_s(tokens, life_s) > 0:
                continue
            try:
                renew()
            except MarlineError:  # a server that does not answer now may do so later; that it ended is others' business
                done.wait(min(AGAIN_S, life_s / 10))

    thread = threading.Thread(target=keep, name="marline-tokens", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _due_in_s(tokens: Tokens, life_s: float) -> float:
    return tokens.expires_s - time.time() - (1 - SHARE) * life_s
