"""A wrong request is answered with the value, its origin and the remedy: exit code 2, no traceback, within 3 s."""

import subprocess
import sys
import time

import pytest

from marline.core import known_models, project_root

DEADLINE_S = 3.0
REFUSED = {
    "model=nope": ["model=nope is not known", *known_models(project_root())],
    "model": ["model"],
    "": ["model="],
    "model=digits_cnn tune.slo_mss=3": ["'tune.slo_mss' from the command line is not a setting", "'tune.slo_ms'"],
    "model=digits_cnn load.weights=/no/such.safetensors": ["/no/such.safetensors", "the command line", "load.weights=auto"],
    "model=digits_cnn tune.slo_ms": ["tune.slo_ms", "tune.slo_ms=200"],
    "model=digits_cnn tune.slo_ms=-5": ["tune.slo_ms = -5 from the command line", "tune.slo_ms=200"],
    "model=digits_cnn tune.slo_ms=abc": ["tune.slo_ms = 'abc' from the command line", "tune.slo_ms=200"],
    "model=digits_cnn accelerator=tpu": ["accelerator", "tpu", "cpu"],
    "model=digits_cnn accelerator=cuda": ["accelerator=cuda", "accelerator=cpu or auto"],
    "model=digits_sklearn archive.handler=models/digits_cnn/handler.py": [
        "archive.handler = 'models/digits_cnn/handler.py' from the command line has no effect",
        "load.source=handler:models/digits_sklearn/handler.py is the handler",
    ],
    "model=digits_sklearn accelerator=rn50_t4_pytorch_eager_amp": ["cannot be emulated", "write accelerator=cpu or auto"],
    "model=digits_cnn report.fail_if=p98_ms>3": ["'p98_ms' stands at character 1", "did you mean 'p99_ms'?", "report.fail_if="],
    "model=digits_cnn artifacts=/proc/none until=load": ["artifacts=/proc/none: such a folder cannot be made", "name another"],
    "model=digits_cnn profile=smok": ["profile=smok", "did you mean 'smoke'?"],
}


def pipeline(*words: str) -> tuple[subprocess.CompletedProcess[str], float]:
    began = time.monotonic()
    command = [sys.executable, "-m", "pipelines", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return done, time.monotonic() - began


@pytest.mark.parametrize(("words", "said"), REFUSED.items(), ids=lambda value: str(value)[:60])
def test_a_wrong_request_is_refused_at_once(words: str, said: list[str]) -> None:
    done, seconds = pipeline(*words.split())

    assert (2, "") == (done.returncode, done.stdout)
    assert [] == [text for text in said if text not in done.stderr], done.stderr
    assert "Traceback" not in done.stderr
    assert seconds < DEADLINE_S


def test_all_mistakes_are_told_together() -> None:
    done, _ = pipeline("model=digits_cnn", "tune.slo_ms=-5", "tune.stepz=3", "loadtest.rps=0")

    assert 2 == done.returncode
    assert all(key in done.stderr for key in ("tune.slo_ms", "tune.stepz", "loadtest.rps"))


def test_nothing_heavy_is_imported_to_refuse() -> None:
    code = "import sys; from pipelines.__main__ import main; print(main(['model=nope'])); print(*sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)

    code_and_modules = done.stdout.split()
    assert "2" == code_and_modules[0]
    assert set() == {"torch", "prefect", "numpy", "transformers"} & set(code_and_modules)
