"""A deploy section, and a server's answers without a server."""

import json
import shutil
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from marline.archive import Serving, to_yaml
from marline.core import DeployConfig, Manifest, Section, read_manifest, seal
from marline.deploy._plan import Plan

SERVING = Serving(
    batch_size=8,
    max_batch_delay_ms=5,
    workers=1,
    response_timeout_s=60,
    startup_timeout_s=120,
    job_queue_size=42,
    device="cpu",
)


@pytest.fixture
def config() -> DeployConfig:
    return DeployConfig(
        target="local",
        archive_url=None,
        image=None,
        replicas=2,
        canary_percent=10,
        ready_s=5,
        java_home=None,
        max_request_mb=16,
    )


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive with a handler that imports what the server has, what is beside it, and what nobody has."""
    file = tmp_path_factory.mktemp("archive") / "digits_cnn.mar"
    manifest = {"createdOn": "x", "runtime": "python", "model": {"modelName": "digits_cnn", "configFile": "model-config.yaml"}}
    manifest["model"] |= {"handler": "handler.py", "modelVersion": "1.3"}  # type: ignore[operator]
    handler = "import json, torch\nfrom PIL import Image\nimport beside, no_such_package\ndef f():\n    import captum\n"
    texts = {
        "MAR-INF/MANIFEST.json": json.dumps(manifest),
        "model-config.yaml": to_yaml(SERVING),
        "handler.py": handler,
        "beside.py": "from sklearn import svm\n",
        "requirements.txt": "scikit-learn==1.0.1  # the user's own\n\n",
    }
    with zipfile.ZipFile(file, "w") as mar:
        for name, text in texts.items():
            mar.writestr(name, text)
    return file


@pytest.fixture(scope="session")
def plan() -> Plan:
    return Plan(
        model="digits_cnn",
        name="digits-cnn",
        run="20260102-030405-6789",
        image="registry:5000/digits:20260102-030405-6789",
        python="3.11",
        serving=SERVING,
        slo_ms=50.0,
        cores=2,
        memory_mib=1700,
        gpu=False,
        replicas=3,
        canary_replicas=1,
        drain_s=6,
        max_request_mb=16,
    )


@pytest.fixture
def tuned(archive: Path, tmp_path: Path) -> Callable[..., Manifest]:
    """Seal the stages of a run as far as delivery reads them; returns its tune stage."""

    def make(*, weights: str = "file", profile: str = "standard", kind: str = "cpu", **chosen: Any) -> Manifest:
        run = tmp_path / "artifacts" / "digits_cnn" / "20260102-030405-6789"
        facts: dict[str, dict[str, Any]] = {
            "load": {"weights": {"kind": weights, "detail": "seed 0"}},
            "export": {"atol": 1e-4, "rtol": 1e-3},
            "tune": {
                "profile": profile,
                "accelerator": {"kind": kind, "name": "rn50"},
                "slo": {"ms": 50.0},
                "chosen": {"batch_size": 8, "max_batch_delay_ms": 5, "workers": 1, "rps": 1000.0, **chosen},
                "machine": {"cores": 2},
                "tuned": {"archive": "tuned/digits_cnn.mar", "sha256": "0"},
            },
        }
        for stage, told in facts.items():
            (run / stage).mkdir(parents=True)
            if stage == "tune":
                (run / stage / "tuned").mkdir()
                shutil.copy(archive, run / stage / "tuned" / "digits_cnn.mar")
            seal(run / stage, model="digits_cnn", config=Section(), inputs=[], facts=told, started=time.monotonic())
        return read_manifest(run / "tune")

    return make
