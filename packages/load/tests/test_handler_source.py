"""A handler from scratch as the source: no checkpoint, samples that are its owner's."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from marline.core import LoadConfig, Manifest, RequestError
from marline.load import local_files

Run = Callable[..., Manifest]


@pytest.fixture
def handler(tmp_path: Path) -> Path:
    """A file that must not be run by stage load, and one sample of no kind that it knows."""
    (tmp_path / "own.py").write_text("raise RuntimeError\n")
    (tmp_path / "requests").mkdir()
    (tmp_path / "requests" / "a.bin").write_bytes(b"\x00\x01")
    (tmp_path / "requests" / ".hidden").write_bytes(b"not this one")
    return tmp_path / "own.py"


def test_nothing_but_samples_and_facts_is_left(run: Run, handler: Path) -> None:
    manifest = run(source=f"handler:{handler}", samples=str(handler.parent / "requests"))

    assert {"sample/a.bin"} == set(manifest.outputs)
    assert ("handler", "other", "any", None) == tuple(manifest.facts[key] for key in ("kind", "task", "input", "parameters"))
    assert "file" == manifest.facts["weights"]["kind"]
    assert re.fullmatch(rf"brought by handler:{handler} itself, sha256 [0-9a-f]{{12}}", manifest.facts["weights"]["detail"])


def test_a_changed_handler_is_another_model(run: Run, handler: Path, config: Callable[..., LoadConfig]) -> None:
    told = {"source": f"handler:{handler}", "samples": str(handler.parent / "requests")}
    before = run(**told).digest

    handler.write_text("pass\n")

    assert before != run(**told).digest
    assert [handler, handler.parent / "requests"] == local_files(config(**told))


def test_a_task_brings_samples_of_its_kind(run: Run, handler: Path) -> None:
    manifest = run(source=f"handler:{handler}", task="text-classification")

    assert ("text", "text-classification") == (manifest.facts["input"], manifest.facts["task"])
    assert {".txt"} == {Path(name).suffix for name in manifest.outputs}


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({}, r"what handler:.*own\.py takes is for its owner to say; give load\.samples=FOLDER .* or load\.task=TASK"),
        ({"source": "handler:no/such.py"}, r"there is no file no/such\.py; the path is relative to the project's root"),
        ({"weights": "random"}, r"load\.weights has no effect: handler:.*own\.py brings its model itself; leave it out"),
        ({"init_kwargs": {"a": 1}, "allow_pickle": True}, r"load\.init_kwargs, load\.allow_pickle has no effect"),
        ({"device_map": "auto"}, r"load\.device_map has an effect on Hugging Face models only"),
    ],
)
def test_what_only_a_checkpoint_can_have_is_refused(run: Run, handler: Path, told: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        run(**{"source": f"handler:{handler}", **told})


def test_an_empty_folder_of_samples_is_refused(run: Run, handler: Path) -> None:
    (handler.parent / "requests" / "a.bin").unlink()

    with pytest.raises(RequestError, match=r"requests holds no file; expected one request body a file"):
        run(source=f"handler:{handler}", samples=str(handler.parent / "requests"))
