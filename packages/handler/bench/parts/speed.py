"""Throughput of the shared handler on real TorchServe, beside the bare graph and beside what else users would take."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch

from marline.archive import extract
from marline.core import Accelerator, MarlineError, accelerator_of, project_root, read_config
from marline.deploy import Server, serving
from marline.handler import load_graph
from marline.tune._batches import Batch, read_batches
from packages.handler.bench.parts import lit
from packages.handler.bench.parts.archives import JSONPICKLE, SERVED, Life, life, photos, pickled, stock
from packages.handler.bench.parts.closed_loop import USERS, Pace, answers_per_s, compare, target
from packages.handler.bench.parts.environments import packages
from packages.handler.bench.parts.figure import failed, ratio

BATCH, DELAY_MS = 8, 10
CURVE = "rn50_t4_pytorch_eager_amp"
EMULATED = Path(__file__).parents[2] / "src" / "marline" / "handler" / "emulated_device.py"
PICKLE = """
import sys, jsonpickle
from pathlib import Path
from torchvision.io import read_image
for name in sys.argv[1:]:
    Path(name).with_suffix(".txt").write_text(jsonpickle.encode(read_image(name)))
"""
FULL = Pace()
SETTING = f"{USERS} closed-loop users, 39 kB JPEGs, B={BATCH}, D={DELAY_MS} ms"


def near_the_graph(pace: Pace = FULL) -> list[dict[str, Any]]:
    """resnet50: what is served against the raw loop over the graph that the handler runs."""
    made = life("resnet50")
    with _server(made) as (server, folder, sent):
        _load(server, made.archive, "ours")
        _load(server, stock(made, "stock", folder), "stock")
        (folder / "model.pt").write_bytes(extract(made.archive, "model.pt"))
        raw = _raw(folder / "model.pt", pace.seconds)
        contenders = {name: partial(answers_per_s, target(server, name), sent, pace) for name in ("ours", "stock")}
        began = time.monotonic()
        rates = compare({"raw loop": raw, **contenders}, pace.passes)
        spent = _spent(server, began, rates["ours"])
    name = f"resnet50, served against the raw loop, B={BATCH}"
    note = f"stock image_classifier {median(rates['stock']) / median(rates['raw loop']):.2f}; {SETTING}; {spent}"
    return [ratio(name, rates, "ours", "raw loop", 0.90, note)]


def against_others(pace: Pace = FULL) -> list[dict[str, Any]]:
    """mobilenet_v3_large: the shared handler, TorchServe's own, LitServe, and one that decodes pickles."""
    made = life("mobilenet_v3_large")
    with _server(made) as (server, folder, sent):
        archives = {"ours": made.archive, "stock": stock(made, "stock", folder), "pickled": pickled(made, "pickled", folder)}
        for name, archive in archives.items():
            _load(server, archive, name)
        bodies = {"ours": sent, "stock": sent, "pickled": _pickle(sent)}
        contenders = {name: partial(answers_per_s, target(server, name), bodies[name], pace) for name in archives}
        began = time.monotonic()
        missing = ""
        try:
            with lit.lit_serving(folder / "mobilenet_v3_large.scripted.pt", BATCH, DELAY_MS, folder) as lit_target:
                contenders["LitServe"] = partial(answers_per_s, lit_target, lit.bodies(sent, folder), pace)
                rates = compare(contenders, pace.passes)
        except MarlineError as error:
            if "LitServe" in contenders:  # it ran: whatever failed, its figure is not the only one
                raise
            missing = str(error)
            rates = compare(contenders, pace.passes)
        spent = _spent(server, began, rates["ours"])
    name = "mobilenet_v3_large against "
    return [
        ratio(f"{name}stock image_classifier", rates, "ours", "stock", 1.8, f"{SETTING}; {spent}"),
        failed(f"{name}{lit.LITSERVE}", 1.4, missing)
        if missing
        else ratio(f"{name}{lit.LITSERVE}", rates, "ours", "LitServe", 1.4, "its thread pool and fast queue, base64 in JSON"),
        ratio(
            f"{name}jsonpickle", rates, "ours", "pickled", 5, "uint8 tensors of the same photos, as model-servers sends them"
        ),
    ]


def emulated(pace: Pace = FULL) -> list[dict[str, Any]]:
    """An emulated T4 behind real decoding: the shared handler against TorchServe's own."""
    made = life("resnet50")
    device = accelerator_of(read_config(["model=resnet50", f"accelerator={CURVE}"]).config, project_root())
    with _server(made, device) as (server, folder, sent):
        _load(server, made.archive, "ours")
        handler = str(SERVED / "emulated_classifier.py")
        _load(server, stock(made, "stock", folder, handler, [EMULATED]), "stock")
        began = time.monotonic()
        rates = compare(
            {name: partial(answers_per_s, target(server, name), sent, pace) for name in ("ours", "stock")}, pace.passes
        )
        spent = _spent(server, began, rates["ours"])
    note = f"EMULATED, time scale {device.time_scale:g}; {SETTING}; {spent}"
    return [ratio(f"{CURVE} against stock image_classifier", rates, "ours", "stock", 2, note)]


@contextmanager
def _server(made: Life, device: Accelerator | None = None) -> Iterator[tuple[Server, Path, list[Path]]]:
    """A TorchServe, a folder to work in, and photos to send."""
    with tempfile.TemporaryDirectory(prefix="marline-bench-") as folder:
        config = read_config([f"model={made.archived.model}"]).config.deploy
        with serving(config, Path(folder, "logs"), accelerator=device) as server:
            yield server, Path(folder), photos(made.loaded, Path(folder))


def _load(server: Server, archive: Path, name: str) -> None:
    server.load(archive, name, batch_size=BATCH, max_batch_delay_ms=DELAY_MS, workers=1)


def _raw(file: Path, seconds: float) -> Any:
    """Images a second of the graph alone, on the threads a single worker gets."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    graph, told = load_graph(file, torch.device("cpu"))
    first = told["inputs"][0]
    shape = [BATCH, *first["shape"][1:]]
    pixels = torch.randint(256, shape, dtype=torch.uint8) if first["dtype"] == "uint8" else torch.randn(shape)

    def images_per_s() -> float:
        with torch.inference_mode():
            for _ in range(3):
                graph(pixels)
            began, count = time.monotonic(), 0
            while time.monotonic() - began < seconds:
                graph(pixels)
                count += BATCH
            return count / (time.monotonic() - began)

    return images_per_s


def _pickle(sent: Sequence[Path]) -> list[Path]:
    """What model-servers' clients send for these photos; jsonpickle is not installed with us."""
    there = {**os.environ, "PYTHONPATH": str(packages("jsonpickle", [JSONPICKLE]))}
    told = [sys.executable, "-W", "ignore", "-c", PICKLE, *map(str, sent)]
    subprocess.run(told, env=there, check=True, timeout=60)
    return [photo.with_suffix(".txt") for photo in sent]


def _spent(server: Server, began: float, rates: Sequence[float]) -> str:
    """Where the shared handler's worker spends its time, by its own batch log."""
    batches: list[Batch] = [one for one in read_batches(server.batches) if one.ended_s >= began and one.size]
    if not batches:
        return "the worker logged no batch"
    stages = [mean(getattr(one, stage) for one in batches) for stage in ("pre_ms", "inference_ms", "post_ms")]
    size = mean(one.size for one in batches)
    busy = median(rates) * sum(stages) / size / 1e3
    told = " + ".join(f"{stage:.1f}" for stage in stages)
    return f"worker: {told} ms before, in and after the model per batch of {size:.1f}, {busy:.0%} of the time"
