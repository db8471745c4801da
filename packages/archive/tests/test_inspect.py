"""What the inspect command says of any archive, and the words of the build command."""

import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from marline.archive import build, describe, read_mar, warnings_of
from marline.archive._words import parameters
from marline.core import RequestError, file_sha256

SEVERAL = "class Mine:\n    def initialize(self, context): ...\n    def handle(self, data, context): ...\nclass Other: ...\n"


def mar(
    file: Path, model: dict[str, str], entries: dict[str, bytes], *, runtime: str = "python3", deflated: bool = False
) -> Path:
    """An archive of somebody else's."""
    manifest = {"runtime": runtime, "model": {"modelName": "theirs", **model}}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED) as archive:
        for name, content in {"MAR-INF/MANIFEST.json": json.dumps(manifest).encode(), **entries}.items():
            archive.writestr(name, content)
    return file


GOOD = {"handler.py": b"def handle(data, context): ...\n", "c.yaml": b"batchSize: 4\nmaxBatchDelay: 5\n"}
NAMED = {"handler": "handler.py", "configFile": "c.yaml"}


def test_nothing_is_said_of_a_usual_archive(tmp_path: Path) -> None:
    file = mar(tmp_path / "a.mar", NAMED, GOOD)

    assert [] == warnings_of(file, read_mar(file))


@pytest.mark.parametrize(
    ("model", "entries", "said"),
    [
        ({"handler": "gone.py"}, {}, "handler gone.py is neither in the archive nor one that TorchServe ships"),
        ({"handler": "gone.py:entry"}, {}, "handler gone.py is neither"),
        ({"serializedFile": "gone.pt"}, {}, "serializedFile gone.pt is not in the archive"),
        ({"modelFile": "gone.py"}, {}, "modelFile gone.py is not in the archive"),
        ({"requirementsFile": "gone.txt"}, {}, "requirementsFile gone.txt is not in the archive"),
        ({"configFile": ""}, {}, "there is no model-config.yaml: TorchServe's defaults hold"),
        ({"handler": "image_classifier"}, {}, "image_classifier needs weights"),
        ({}, {"handler.py": SEVERAL.encode()}, "handler.py defines 2 classes and TorchServe refuses more than one"),
        ({"handler": "handler"}, {"handler.py": SEVERAL.encode()}, "handler.py defines 2 classes"),
        ({}, {"c.yaml": b"batchsize: 4"}, "did you mean batchSize?"),
        ({}, {"c.yaml": b"batchSize: '4'"}, "batchSize: '4' is refused"),
        ({}, {"c.yaml": b"a: &a [1]\nb: *a"}, "aliases are not read"),
        ({}, {"c.yaml": b"batchSize: 8\nmaxBatchDelay: 4000"}, "waits 4 s"),
        ({}, {"requirements.txt": b"einops==1"}, "requirements.txt (1 lines) is carried but not installed"),
        ({"requirementsFile": "r.txt"}, {"r.txt": b"einops"}, "r.txt: 'einops' is not name==version"),
        ({"requirementsFile": "r.txt"}, {"r.txt": b"torch==2.0"}, "the server brings torch"),
        ({"requirementsFile": "r.txt"}, {"r.txt": b"einops==1"}, "r.txt is installed at every registration"),
        ({"serializedFile": "m.pt"}, {"m.pt": b"\x80\x02}q\x00."}, "m.pt is a pickle"),
    ],
)
def test_what_will_surprise_is_said(model: dict[str, str], entries: dict[str, bytes], said: str, tmp_path: Path) -> None:
    file = mar(tmp_path / "a.mar", {**NAMED, **model}, {**GOOD, **entries})

    assert said in "\n".join(warnings_of(file, read_mar(file)))


@pytest.mark.parametrize(
    "content", [b"", b"P", b"PK\x03\x04 no zip", b"12345678{}"], ids=["empty", "a byte", "a broken zip", "other"]
)
def test_weights_that_are_no_pickle_are_not_called_one(content: bytes, tmp_path: Path) -> None:
    file = mar(tmp_path / "a.mar", {**NAMED, "serializedFile": "m.pt"}, {**GOOD, "m.pt": content})

    assert [] == warnings_of(file, read_mar(file))


def test_the_stock_archivers_archive_is_described_with_hashes_and_warnings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "handler.py").write_text(SEVERAL)
    torch.save({"weight": torch.zeros(500_000)}, tmp_path / "model.pt")
    (tmp_path / "needs.txt").write_text("numpy\n")
    words = "--model-name stock --version 1.0 --serialized-file model.pt --handler handler.py --requirements-file needs.txt"
    command = [sys.executable, "-m", "model_archiver.model_packaging", *words.split()]
    subprocess.run(command, check=True, capture_output=True, timeout=60)

    told = describe(Path("stock.mar"))

    for name in ("handler.py", "model.pt", "needs.txt"):
        content = (tmp_path / name).read_bytes()
        assert f"{len(content):>15,}  {hashlib.sha256(content).hexdigest()}  {name}" in told
    warnings = [line for line in told.splitlines() if line.startswith("warning: ")]
    assert [
        "there is no",
        "handler.py defines 2",
        "needs.txt: 'numpy'",
        "needs.txt is inst",
        "model.pt is a p",
        "model.pt (2,00",
    ] == [
        warning.removeprefix("warning: ")[:length] for warning, length in zip(warnings, (11, 20, 18, 17, 15, 14), strict=True)
    ]
    assert f"sha256 {file_sha256(tmp_path / 'stock.mar')}" == told.splitlines()[-1]
    assert '"modelName": "stock"' in told


def test_words_are_the_parameters_of_build() -> None:
    told = parameters(["model_name=x", "handler=a b.py", "extra_files=a,b c.zip, d", "version=2=0"])

    assert {"model_name": "x", "handler": "a b.py", "extra_files": ["a", "b c.zip", "d"], "version": "2=0"} == told


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["modelname=x"], "'modelname' is not known; did you mean model_name=?"),
        (["model_name=x", "checkpoint=y"], "did you mean checkpoint_file=?"),
        (["--handler=x", "model_name=x"], "did you mean handler=?"),
        (["modle=x"], "did you mean model=?"),
        (["model_name=x", "q=1"], "'q' is not known; known: model_name, version"),
        (["model_name=x", "handler"], "'handler' says nothing; write handler=VALUE"),
        (["model_name=x", "handler="], "'handler=' says nothing"),
        (["model_name=x", "model_name=y"], "model_name is said twice"),
        (["handler=x"], "no model_name is said"),
    ],
)
def test_a_wrong_word_is_refused_with_the_nearest(words: list[str], said: str) -> None:
    with pytest.raises(RequestError) as refused:
        parameters(words)

    assert said in str(refused.value)


def run(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "marline.archive", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)


def test_the_command_builds_warns_and_refuses(tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    (folder / "my handler.py").write_text("def handle(data, context): ...\n")
    (folder / "needs.txt").write_text("einops==0.8.0\n")

    built = run(tmp_path, "model_name=x", "handler=a folder/my handler.py", "requirements_file=a folder/needs.txt")
    wrong = run(tmp_path, "model_name=x", "handlr=a folder/my handler.py")
    alone = run(tmp_path, "inspect=x.mar", "model_name=x")

    assert (0, f"archive: x.mar sha256 {file_sha256(tmp_path / 'x.mar')}\n") == (built.returncode, built.stdout)
    assert "archive: warning: requirements.txt (1 lines) is carried but not installed" in built.stderr
    assert (2, "archive: 'handlr' is not known; did you mean handler=?\n") == (wrong.returncode, wrong.stderr)
    assert 2 == alone.returncode
    assert "my handler.py" in read_mar(tmp_path / "x.mar").sizes
    assert build("x", handler=folder / "my handler.py", requirements_file=folder / "needs.txt", export_path=folder).sha256 == (
        file_sha256(tmp_path / "x.mar")
    )
