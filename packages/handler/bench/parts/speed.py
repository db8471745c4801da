"""Throughput of the shared handler on real TorchServe, beside the bare graph and beside what else users would take."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from marline.archive import extract
from marline.core import Accelerator, MarlineError, accelerator_of, project_root, read_config
from marline.deploy import Server, serving
from marline.handler import load_graph
from marline.tune._batches import Batch, read_batches
from packages.handler.bench.parts import lit
from packages.handler.bench.parts.archives import JSONPICKLE, SERVED, Life, life, photos, pickled, stock
from packages.handler.bench.parts.closed_loop import Pace, answers_per_s, compare, target
from packages.handler.bench.parts.environments import packages
from packages.handler.bench.parts.figure import Compared, ratio

BATCH, DELAY_MS = 8, 10
CURVE = "rn50_t4_pytorch_eager_amp"
EMULATED = Path(__file__).parents[2] / "src" / "marline" / "handler" / "emulated_device.py"
PICKLE = """
import sys, jsonpickle
from pathlib import Path
from torchvision.io import read_image
for name in sys.argv[1:]:
    photo, pixels = Path(name), read_image(name)
    photo.with_suffix(".txt").write_text(jsonpickle.encode(pixels))
    numbers = (pixels[:, :224, :224] / 255 - 0.45) / 0.225
    photo.with_suffix(".numbers.txt").write_text(jsonpickle.encode(numbers.tolist()))
"""
FULL, THREE = Pace(), Pace(passes=3)  # the second has six contenders
MANY, LARGE, PART = Pace(users=128), 64, 16  # batches for an accelerator, and users to fill them


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
        found = compare({"raw loop": raw, **contenders}, pace.passes)
        spent = _spent(server, began, found)
    name = f"resnet50, served against the raw loop, B={BATCH}"
    note = f"stock image_classifier {found.middle('stock') / found.middle('raw loop'):.2f}; {_setting(pace)}; {spent}"
    return [ratio(name, found, "ours", "raw loop", 0.90, note)]


def against_others(pace: Pace = THREE) -> list[dict[str, Any]]:
    """mobilenet_v3_large: the shared handler, TorchServe's own, LitServe, and one that decodes pickles."""
    made = life("mobilenet_v3_large")
    with _server(made) as (server, folder, sent):
        archives = {"ours": made.archive, "stock": stock(made, "stock", folder), "pickled": pickled(made, "pickled", folder)}
        for name, archive in archives.items():
            _load(server, archive, name)
        tensors, numbers = _pickle(sent)
        bodies = {"ours": sent, "stock": sent, "pickled": tensors}
        contenders = {name: partial(answers_per_s, target(server, name), bodies[name], pace) for name in archives}
        contenders["numbers"] = partial(answers_per_s, target(server, "pickled"), numbers, pace)
        (folder / "model.pt").write_bytes(extract(made.archive, "model.pt"))
        contenders["raw loop"] = _raw(folder / "model.pt", pace.seconds)
        began = time.monotonic()
        with ExitStack() as stack:
            try:
                there = stack.enter_context(lit.lit_serving(folder / "mobilenet_v3_large.scripted.pt", BATCH, DELAY_MS, folder))
            except MarlineError as error:
                missing = {"LitServe": str(error)}
            else:
                missing = {}
                contenders["LitServe"] = partial(answers_per_s, there, lit.bodies(sent, folder), pace)
            found = compare(contenders, pace.passes)
        found.problems.update(missing)
        spent = _spent(server, began, found)
    name = "mobilenet_v3_large against "
    ceiling = f"the graph alone reaches {found.middle('raw loop') / found.middle('pickled'):.1f} times as many"
    return [
        ratio(f"{name}stock image_classifier", found, "ours", "stock", 1.8, f"{_setting(pace)}; {spent}"),
        ratio(f"{name}{lit.LITSERVE}", found, "ours", "LitServe", 1.4, "its thread pool and fast queue, base64 in JSON"),
        ratio(f"{name}jsonpickle", found, "ours", "numbers", 5, "the model's input: 150,528 numbers as JSON"),
        ratio(f"{name}jsonpickle of tensors", found, "ours", "pickled", None, f"pickles in base64 in JSON; {ceiling}"),
    ]


def emulated(pace: Pace = MANY) -> list[dict[str, Any]]:
    """An emulated T4 behind real decoding: the shared handler against TorchServe's own."""
    made = life("resnet50", f"archive.micro_batch_size={PART}")
    device = accelerator_of(read_config(["model=resnet50", f"accelerator={CURVE}"]).config, project_root())
    with _server(made, device) as (server, folder, sent):
        _load(server, made.archive, "ours", LARGE)
        handler = str(SERVED / "emulated_classifier.py")
        _load(server, stock(made, "stock", folder, handler, [EMULATED]), "stock", LARGE)
        began = time.monotonic()
        found = compare(
            {name: partial(answers_per_s, target(server, name), sent, pace) for name in ("ours", "stock")}, pace.passes
        )
        spent = _spent(server, began, found)
    note = f"in parts of {PART}; EMULATED, time scale {device.time_scale:g}; {_setting(pace, LARGE)}; {spent}"
    return [ratio(f"{CURVE} against stock image_classifier", found, "ours", "stock", 2, note)]


@contextmanager
def _server(made: Life, device: Accelerator | None = None) -> Iterator[tuple[Server, Path, list[Path]]]:
    """A TorchServe, a folder to work in, and photos to send."""
    with tempfile.TemporaryDirectory(prefix="marline-bench-") as folder:
        config = read_config([f"model={made.archived.model}"]).config.deploy
        with serving(config, Path(folder, "logs"), accelerator=device) as server:
            yield server, Path(folder), photos(made.loaded, Path(folder))


def _setting(pace: Pace, batch_size: int = BATCH) -> str:
    return f"{pace.users} closed-loop users, 39 kB JPEGs, B={batch_size}, D={DELAY_MS} ms"


def _load(server: Server, archive: Path, name: str, batch_size: int = BATCH) -> None:
    server.load(archive, name, batch_size=batch_size, max_batch_delay_ms=DELAY_MS, workers=1)


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


def _pickle(sent: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """What model-servers' client sends for these photos, and the model's input as numbers; jsonpickle is elsewhere."""
    there = {**os.environ, "PYTHONPATH": str(packages("jsonpickle", [JSONPICKLE]))}
    told = [sys.executable, "-W", "ignore", "-c", PICKLE, *map(str, sent)]
    subprocess.run(told, env=there, check=True, timeout=60)
    return [photo.with_suffix(".txt") for photo in sent], [photo.with_suffix(".numbers.txt") for photo in sent]


def _spent(server: Server, began: float, found: Compared) -> str:
    """Where the shared handler's worker spends its time, by its own batch log."""
    batches: list[Batch] = [one for one in read_batches(server.batches) if one.ended_s >= began and one.size]
    if not batches:
        return "the worker logged no batch"
    stages = [mean(getattr(one, stage) for one in batches) for stage in ("pre_ms", "inference_ms", "post_ms")]
    size = mean(one.size for one in batches)
    busy = found.middle("ours") * sum(stages) / size / 1e3
    told = " + ".join(f"{stage:.1f}" for stage in stages)
    return f"worker: {told} ms before, in and after the model per batch of {size:.1f}, {busy:.0%} of the time"
