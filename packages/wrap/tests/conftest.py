"""Checkpoints as stage load leaves them, wrapped, and used by processes without marline."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from marline.core import Manifest, WrapConfig, seal
from marline.telemetry import FakeCollector, fake_collector
from marline.wrap import wrap

TINY = """
import torch
from torch import nn


class Tiny(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.head = nn.Linear(3, classes)
        self.register_buffer("scale", torch.tensor([1.0, 2.0, SCALE]), persistent=False)
        self.shift = torch.tensor(0.5)

    def forward(self, images):
        return self.head(self.norm(images).mean((2, 3)) * self.scale + self.shift)


def init_function(classes=2):
    return Tiny(classes)
"""
LABELS = {"0": "{{ 7 * 7 }}\"'\n", "1": "plain", "2": "plain"}
PROCESSOR = {
    "image_processor_type": "BitImageProcessor",
    "size": {"shortest_edge": 36},
    "crop_size": {"height": 32, "width": 32},
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}


@dataclass(frozen=True)
class Seen:
    """What one bare process saw, and what the collector got from all of them."""

    told: dict[str, Any]
    log: str
    reports: list[dict[str, Any]]


@pytest.fixture(scope="session")
def loaded() -> Callable[..., Manifest]:
    """Make the manifest of stage load in RUN/load: of a tiny custom model, or of a torchvision one."""

    def make(
        run: Path, model: str = "tiny", source: str = "python:models/tiny/model.py:init_function", scale: str = "4.0"
    ) -> Manifest:
        checkpoint = run / "load" / "checkpoint"
        checkpoint.mkdir(parents=True)
        (run / "wrap").mkdir()
        torch.manual_seed(7)
        kind, _, rest = source.partition(":")
        if kind == "torchvision":
            module, init_kwargs = torchvision.models.get_model(rest, weights=None), {}
            (checkpoint / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
        else:
            code: dict[str, Any] = {}
            text = TINY.replace("SCALE", scale)
            exec(text, code)  # noqa: S102 - as load does with the file
            module, init_kwargs = code["init_function"](classes=3), {"classes": 3}
            module.norm.running_mean.copy_(torch.tensor([0.1, 0.2, 0.3]))
            (checkpoint / "source.py").write_text(text)
        save_file(module.state_dict(), checkpoint / "model.safetensors", metadata={"format": "pt"})
        identity = {"source": source, "task": "image-classification", "init_kwargs": init_kwargs}
        (checkpoint / "config.json").write_text(json.dumps({**identity, "id2label": LABELS}))
        facts = {**identity, "weights": {"kind": "random", "detail": "seed 7"}, "parameters": 42}
        config = WrapConfig(collector_url=None, detail="minimal")  # any section: wrap does not read it
        return seal(run / "load", model=model, config=config, inputs=[], facts=facts, started=time.monotonic())

    return make


@pytest.fixture(scope="session")
def seen(tmp_path_factory: pytest.TempPathFactory, loaded: Callable[..., Manifest]) -> tuple[Seen, Seen]:
    """Two processes at the same moment, with one empty module cache: (reporting, other), and the same in the other order.

    `reporting` and `other` are both named tiny, in folders of one name, and differ in code alone.
    """
    root = tmp_path_factory.mktemp("bare")
    with fake_collector() as collector:
        reporting = WrapConfig(collector_url=collector.url, detail="minimal")
        silent = WrapConfig(collector_url=None, detail="minimal")
        stages = []
        for name, config, scale in (("one", reporting, "4.0"), ("two", silent, "8.0")):
            wrap("tiny", config, loaded(root / name, scale=scale), root / name / "wrap")
            stages.append(root / name / "wrap")
        mobile = loaded(root / "mobile", "mobile-v3", "torchvision:mobilenet_v3_small")
        wrap("mobile-v3", silent, mobile, root / "mobile" / "wrap")
        processes = [_start(root, [*stages, root / "mobile" / "wrap"]), _start(root, stages[::-1])]
        first, second = (_finish(process, collector) for process in processes)
    return first, second


def _start(root: Path, stages: list[Path]) -> "subprocess.Popen[str]":
    env = {"HOME": str(root), "PATH": os.environ["PATH"], "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-W", "error", str(Path(__file__).with_name("bare.py")), *map(str, stages)]
    return subprocess.Popen(command, env=env, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _finish(process: "subprocess.Popen[str]", collector: FakeCollector) -> Seen:
    out, log = process.communicate(timeout=120)
    assert 0 == process.returncode, log
    return Seen(json.loads(out), log, collector.reports)
