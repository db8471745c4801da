"""Keeps a tuning run while it is unfinished: the service curve and every trial, each as soon as it is there.

A run that was killed is a folder without a manifest, and nobody reads it. What it measured is therefore kept beside the runs,
in `artifacts/<model>/.trials/<key>/`, where the key is everything that decides what a trial shows: the archive, what was asked,
the machine and the code. The same command finds it, asks for the same trials in the same order, and gets those that are there.
"""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from json import loads
from pathlib import Path
from typing import Any

import numpy as np

from marline.core import json_sha256, write_json
from marline.loadtest import Measurement, read_measurement
from marline.tune._batches import Batch

FOLDER, BEGAN = ".trials", "began"  # the latter names the run that began to write


@dataclass(frozen=True, slots=True, kw_only=True)
class Raw:
    """What one trial left: every request, every batch, and what was seen of the server; `run` is where it was measured."""

    measured: Measurement
    batches: tuple[Batch, ...]
    reason: str | None  # why it is invalid
    memory_mb: float | None
    gpu_share: float | None
    gpu: list[dict[str, Any]]  # what the GPUs did meanwhile; none where there is none
    run: str
    idle: bool = True  # whether the server had done all that was left of the load
    took_s: float = 0.0  # with everything: registering, load, draining


@dataclass(frozen=True, slots=True)
class Journal:
    """One unfinished tuning run; `run` is the name of the run that writes to it now."""

    folder: Path
    run: str

    @classmethod
    def of(cls, model: Path, told: Mapping[str, Any], run: str, *, fresh: bool, keep: int) -> "Journal":
        """The journal of `told`, empty where it is `fresh` or nothing was interrupted; of the others the newest `keep` stay.

        What this very run has measured stays where it is `fresh`, too: it is a stage that is tried once more.
        """
        folder = model / FOLDER / json_sha256(told)[:16]
        began = folder / BEGAN
        if fresh and not (began.is_file() and began.read_text() == run):
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        if not began.is_file():
            began.write_text(run)
        os.utime(folder)
        for old in sorted(folder.parent.iterdir(), key=lambda one: -one.stat().st_mtime)[keep:]:
            shutil.rmtree(old)
        return cls(folder, run)

    def read(self, name: str) -> Any:
        """What was written as `name`; None where nothing was."""
        file = self.folder / f"{name}.json"
        return loads(file.read_text()) if file.is_file() else None

    def write(self, name: str, content: Any) -> None:
        """Keep something that is JSON; it is there whole or not at all."""
        write_json(self.folder / f"{name}.json", content)

    def find(self, asked: Mapping[str, Any]) -> Raw | None:
        """The trial that was asked for, where it has been measured."""
        key = json_sha256(asked)[:16]
        kept = self.read(key)
        if kept is None:
            return None
        with np.load(self.folder / f"{key}-batches.npz", allow_pickle=False) as stored:
            rows = stored["batches"].tolist()
        batches = tuple(Batch(row[0], int(row[1]), *row[2:]) for row in rows)
        return Raw(measured=read_measurement(self.folder / f"{key}.npz"), batches=batches, **kept["seen"])

    def keep(self, asked: Mapping[str, Any], raw: Raw) -> None:
        """Keep a trial; its entry is written last, so that what is found is whole."""
        key = json_sha256(asked)[:16]
        raw.measured.save(self.folder / f"{key}.npz")
        rows = [(one.ended_s, one.size, one.pre_ms, one.inference_ms, one.post_ms) for one in raw.batches]
        with (self.folder / f"{key}-batches.npz").open("wb") as stream:
            np.savez_compressed(stream, batches=np.array(rows, np.float64).reshape(-1, 5))
        names = ("reason", "memory_mb", "gpu_share", "gpu", "run", "idle", "took_s")
        self.write(key, {"asked": dict(asked), "seen": {name: getattr(raw, name) for name in names}})

    def close(self) -> None:
        """The run is finished: its own folder has everything now."""
        shutil.rmtree(self.folder)
