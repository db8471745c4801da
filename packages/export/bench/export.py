"""Benchmark `export`: how much faster the exported graph is than the eager model, as the shared handler runs it.

Each model is exported as stage export does it and loaded as the handler loads it. Then both answer batches of eight in turn,
in one process, on the same threads, in eval and inference mode; a pair's ratio is eager time / graph time.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from torchvision import models

from marline.core import read_config
from marline.export._graph import prove_graph
from marline.handler import load_graph

BATCH, PAIRS, WARM = 8, 15, 3
BARS = {"resnet50": 1.3, "mobilenet_v3_large": 1.5}


def figures() -> list[dict[str, Any]]:
    """The throughput ratio of each model, and the two times behind it; random weights, float32 [8, 3, 224, 224], CPU."""
    return [row for name, bar in BARS.items() for row in _model(name, bar)]


def _model(name: str, bar: float) -> list[dict[str, Any]]:
    torch.manual_seed(0)
    eager = models.get_model(name, weights=None).eval()
    config = read_config([f"model={name}"]).config.export
    with tempfile.TemporaryDirectory(prefix="marline-") as folder:
        file = Path(folder, "model.pt")
        samples = [torch.randn(3, 224, 224) for _ in range(4)]
        proven = prove_graph(eager, samples, config.model_copy(update={"batch_sizes": (1, BATCH)}), file)
        graph, _ = load_graph(file, torch.device("cpu"))
        batch = torch.randn(BATCH, 3, 224, 224)
        pairs = _pairs(lambda: eager(batch), lambda: graph(batch))
    ratios = [eager_s / graph_s for eager_s, graph_s in pairs]
    chosen = proven.method + ", channels-last" * proven.tuned.channels_last + ", fused" * proven.tuned.fuse
    spread = f"ratios of pairs {min(ratios):.2f} to {max(ratios):.2f}, quartiles {_quartiles(ratios)}"
    note = f"{chosen}; {spread}; {torch.get_num_threads()} threads"
    return [
        _figure(f"{name}, graph against eager, B={BATCH}", median(ratios), "x", bar, note),
        _figure(f"{name}, eager", median(one for one, _ in pairs) * 1e3, "ms", None, "one batch"),
        _figure(f"{name}, graph", median(two for _, two in pairs) * 1e3, "ms", None, "one batch"),
    ]


def _pairs(first: Callable[[], Any], second: Callable[[], Any]) -> list[tuple[float, float]]:
    """Seconds of each in turn, whichever goes first, without the first few."""
    found = []
    with torch.inference_mode():
        for turn in range(PAIRS + WARM):
            if turn % 2:
                two, one = _seconds(second), _seconds(first)
            else:
                one, two = _seconds(first), _seconds(second)
            found.append((one, two))
    return found[WARM:]


def _seconds(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _quartiles(ratios: list[float]) -> str:
    low, _, high = quantiles(ratios, n=4)
    return f"{low:.2f} to {high:.2f}"


def _figure(name: str, value: float, unit: str, bar: float | None, note: str) -> dict[str, Any]:
    return {
        "name": name,
        "value": round(value, 2),
        "unit": unit,
        "bar": bar,
        "holds": None if bar is None else value >= bar,
        "samples": PAIRS,
        "note": note,
    }
