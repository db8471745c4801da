"""Every model that comes with the project, as its repository is used where marline is not installed."""

import json
import os
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from marline.core import Manifest, known_models, project_root, read_config
from marline.load import load
from marline.telemetry import fake_collector
from marline.wrap import wrap

BARE_S = 300.0
TORCHSCRIPT = "silero_vad"
FROM_SCRATCH = "digits_sklearn"  # which is a handler and no model
MODELS = [name for name in known_models(project_root()) if name not in {TORCHSCRIPT, FROM_SCRATCH}]


@dataclass
class Seen:
    """What a bare process saw of each model, and what the collector got from it: (method, status) of each report."""

    models: dict[str, dict[str, Any]]
    reports: dict[str, Counter[tuple[str, str]]]


def taken_through(name: str, folder: Path, *words: str) -> Manifest:
    """Load and wrap one model into FOLDER/NAME."""
    config = read_config([f"model={name}", *words]).config
    stages = [folder / name / stage for stage in ("load", "wrap")]
    for stage in stages:
        stage.mkdir(parents=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what foreign libraries say at import is not the question here
        loaded = load(name, config.load, stages[0])
        return wrap(name, config.wrap, loaded, stages[1])


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    root = tmp_path_factory.mktemp("models")
    with fake_collector("", batches=True) as collector:
        for name in MODELS:
            words = [f"wrap.collector_url={collector.url}/reports/{name}", "load.weights=random"]
            known = name in {"digits_cnn", "efficientnet_lite0", "minilm"}  # whose weights are on this machine
            taken_through(name, root, *(words[:1] if known else words))
        quiet = {"DO_NOT_TRACK", "HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"}
        environment = {key: value for key, value in os.environ.items() if key not in quiet}
        environment |= {"HF_HOME": str(root.parent / "home"), "XDG_DATA_HOME": str(root.parent), "MARLINE_TELEMETRY": "on"}
        words = [sys.executable, str(Path(__file__).with_name("bare_models.py")), str(root)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=BARE_S, check=False, env=environment)
        assert 0 == done.returncode, done.stderr[-3000:]
        models = json.loads(done.stdout.splitlines()[-1])
        sent = [(one["model"], one["method"], one["status"]) for one in collector.reports]
        yield Seen(models, {name: Counter((how, end) for model, how, end in sent if model == name) for name in MODELS})


@pytest.mark.parametrize("name", MODELS)
def test_a_tracked_model_answers_like_its_base_and_each_call_is_reported_once(seen: Seen, name: str) -> None:
    found = seen.models[name]

    assert found["equal"]
    assert all(found["tensors"])
    assert found["signature"]
    assert found["errors"][0] == found["errors"][1]
    expected = {(method, "success"): 1 for method in found["methods"]} | {("forward", "fail"): 1}
    assert expected == seen.reports[name]


def test_the_cat_is_called_a_cat(seen: Seen) -> None:
    astronaut, chelsea = seen.models["efficientnet_lite0"]["labels"]

    assert "cat" in chelsea
    assert "cat" not in astronaut


def test_torchscript_has_no_class_to_track_and_wrap_says_so(tmp_path: Path) -> None:
    wrapped = taken_through(TORCHSCRIPT, tmp_path)

    assert "torchscript" == wrapped.facts["kind"]
    assert wrapped.facts["base_class"] is None
    assert "no Python class to subclass" in wrapped.facts["note"]
