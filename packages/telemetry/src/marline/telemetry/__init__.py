"""The tracker: one stdlib-only file that reports the use of a model and is copied into what leaves here."""

from marline.telemetry import tracker
from marline.telemetry._fake import FakeCollector, fake_collector
from marline.telemetry.tracker import (
    FILE,
    Settings,
    TrackedMixin,
    Tracker,
    enabled,
    is_address,
    read_settings,
    tracked,
    write_settings,
)

__all__ = [
    "FILE",
    "FakeCollector",
    "Settings",
    "TrackedMixin",
    "Tracker",
    "enabled",
    "fake_collector",
    "is_address",
    "read_settings",
    "tracked",
    "tracker",
    "write_settings",
]
