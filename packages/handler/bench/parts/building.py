"""How long an archive takes to build, and to be served, beside torch-model-archiver's default format."""

import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from marline.archive import archive, read_mar
from marline.core import ArchiveConfig, project_root, read_config
from marline.deploy import serving
from marline.handler import handler_of
from packages.handler.bench.parts.archives import Life, life, theirs
from packages.handler.bench.parts.figure import figure, ratios, spread, turns

FASTER = 10.0
NOISE = 1.10  # a start to READY is read every 0.1 s and varies by more than that


def building(builds: int = 4, loads: int = 3) -> list[dict[str, Any]]:
    """resnet50: stage archive against torch-model-archiver with the same files; then from registration to READY of both."""
    made = life("resnet50")
    with tempfile.TemporaryDirectory(prefix="marline-bench-") as folder:
        ours, default = _builders(made, Path(folder))
        archives = {"ours": ours(), "default": default()}
        built = _in_turn({"ours": ours, "default": default}, builds)
        loaded = _loads(archives, loads, Path(folder, "logs"))
        sizes = {name: file.stat().st_size / 1e6 for name, file in archives.items()}
    seconds = ", ".join(f"{name} {sizes[name]:.0f} MB in {spread(built[name])} s" for name in archives)
    ready = ", ".join(f"{name} {spread(loaded[name])} s" for name in archives)
    return [
        _row("building an archive, torch-model-archiver's default against ours", built, ("default", "ours"), FASTER, seconds),
        _row("registration to READY, ours against torch-model-archiver's", loaded, ("ours", "default"), NOISE, ready),
    ]


def _builders(made: Life, folder: Path) -> tuple[Callable[[], Path], Callable[[], Path]]:
    """Stage archive as it is, reading back and hashing included, and the archiver on the files that are in its archive."""
    config = ArchiveConfig.model_validate(made.archived.config)
    handler = handler_of(project_root(), made.wrapped.model, made.wrapped.facts["task"], config.handler)

    def ours() -> Path:
        out = Path(tempfile.mkdtemp(dir=folder))
        archive(made.wrapped.model, config, made.wrapped, made.exported, handler, "cpu", out)
        return out / made.archive.name

    files = folder / "files"
    with zipfile.ZipFile(made.archive) as stored:
        stored.extractall(files)
    told = read_mar(made.archive).manifest["model"]
    serialized, written = files / told["serializedFile"], {told["serializedFile"], told["handler"], "MAR-INF"}
    extra = [file for file in files.iterdir() if file.name not in written]

    def default() -> Path:
        return theirs("default", str(files / told["handler"]), serialized, extra, folder, "default")

    return ours, default


def _in_turn(work: dict[str, Callable[[], Any]], passes: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for name in turns(list(work), passes):
        began = time.monotonic()
        work[name]()
        seconds[name].append(time.monotonic() - began)
    return seconds


def _loads(archives: dict[str, Path], passes: int, logs: Path) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in archives}
    with serving(read_config(["model=resnet50"]).config.deploy, logs) as server:
        for name in turns(list(archives), passes):
            began = time.monotonic()
            server.load(archives[name], name, batch_size=8, max_batch_delay_ms=10, workers=1)
            seconds[name].append(time.monotonic() - began)
            server.unload(name)
    return seconds


def _row(name: str, seconds: dict[str, list[float]], pair: tuple[str, str], bar: float, note: str) -> dict[str, Any]:
    found = ratios(seconds, *pair)
    value = median(found)
    holds = value >= bar if bar == FASTER else value <= bar
    return figure(name, value, "x", bar, holds, len(found), f"ratios of pairs {spread(found)}; {note}")
