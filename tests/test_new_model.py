"""The skeletons of new models: each passes ruff and its own test, and a request that cannot be carried out writes nothing."""

import contextlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from marline.core import RequestError
from pipelines import new_model
from pipelines.skeletons.architecture import architecture
from pipelines.skeletons.modular import flatten
from pipelines.skeletons.skeleton import camel, skeleton

ROOT = Path(__file__).parents[1]
BASES = ("distilbert", "roberta", "vit")  # and bert, through the command itself


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with one model of each kind."""
    root = tmp_path_factory.mktemp("project")
    (root / "configs" / "models").mkdir(parents=True)
    shutil.copy(ROOT / "configs" / "default.yaml", root / "configs")
    shutil.copy(ROOT / "pyproject.toml", root)
    with contextlib.chdir(root):
        assert [0, 0, 0] == [
            new_model.main(["name=bulb"]),
            new_model.main(["name=lamp", "kind=hf"]),
            new_model.main(["name=my_bert", "kind=hf", "base=bert"]),
        ]
    for base in BASES:
        name = f"my_{base}"
        for file, text in skeleton(name, "hf", architecture(base, camel(name))).items():
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            (root / file).write_text(text)
        folder = root / "models" / name
        for called, text in flatten(folder / f"modular_{name}.py").items():
            (folder / called).write_text(text)
    return root


def test_every_skeleton_passes_its_own_test(project: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "models"]
    ran = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False, timeout=300)

    assert (0, "") == (ran.returncode, ran.stderr), ran.stdout
    assert "25 passed" in ran.stdout  # torch 1, hf 4, modular 5 for each of 4 bases


def test_every_skeleton_is_written_as_the_project_is(project: Path) -> None:
    for words in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *words, "--no-cache", "models/bulb", "models/lamp", "models/my_bert"]
        ran = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False, timeout=60)
        assert 0 == ran.returncode, ran.stdout


def test_a_flat_file_needs_no_architecture_of_transformers(project: Path) -> None:
    flat = [file.read_text() for file in project.glob("models/*/*ing_my_*.py")]

    assert 4 == len(flat)
    assert [] == [text for text in flat if re.search(r"^\s*(from|import) transformers\.models", text, re.MULTILINE)]
    assert all("Licensed under the Apache License" in text for text in flat)


def test_flattening_again_follows_the_modular_file(project: Path) -> None:
    folder = project / "models" / "my_bert"
    modular = folder / "modular_my_bert.py"
    before, written = (folder / "modeling_my_bert.py").read_text(), modular.read_text()
    modular.write_text(written.replace("nn.Dropout(config.embedding_dropout_prob)", "nn.Identity()"))
    with contextlib.chdir(project):
        assert 0 == new_model.main(["flatten=my_bert"])
    after = (folder / "modeling_my_bert.py").read_text()
    modular.write_text(written)
    with contextlib.chdir(project):
        assert 0 == new_model.main(["flatten=my_bert"])

    assert before.replace("nn.Dropout(config.embedding_dropout_prob)", "nn.Identity()") == after
    assert before == (folder / "modeling_my_bert.py").read_text()


@pytest.fixture
def edited(project: Path, tmp_path: Path) -> Callable[[str, str], Path]:
    """The modular file of my_bert with one text replaced by another."""

    def edit(old: str, new: str) -> Path:
        text = (project / "models" / "my_bert" / "modular_my_bert.py").read_text()
        assert old in text
        (tmp_path / "modular_my_bert.py").write_text(text.replace(old, new))
        return tmp_path / "modular_my_bert.py"

    return edit


METHOD = "        self.post_init()\n\n\nclass MyBertForSequenceClassification"
POOLED = """        self.post_init()

    def forward(self, input_ids, attention_mask=None, **kwargs):
        {}


class MyBertForSequenceClassification"""


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("del self.dropout", "kept = super().forward", "but as one statement"),
        (
            "super().__init__(config, add_pooling_layer=add_pooling_layer)",
            "super().__init__(config)\n        super().eval()",
            "one",
        ),
        (
            "super().__init__(config, add_pooling_layer=add_pooling_layer)",
            "super().__init__(config, add_pooling_layer=False)",
            "own",
        ),
        (", add_pooling_layer: bool = True", "", "the parent's parameters (config, add_pooling_layer)"),
        (METHOD, POOLED.format("super().forward(input_ids)"), "the parent's parameters"),
        ("MyBertConfig(BertConfig)", "MyBertConfig(PreTrainedConfig)", "its configuration included"),
        ("MyBertModel(BertModel)", "MyBertModel(BertModel, Mixin)", "2 parents"),
        ("BertEmbeddings", "eager_attention_forward", "no class that bert itself defines"),
        ("class MyBertModel", "class", "line "),
    ],
)
def test_what_cannot_be_written_out_is_refused(edited: Callable[[str, str], Path], old: str, new: str, told: str) -> None:
    file = edited(old, new)

    with pytest.raises(RequestError) as caught:
        flatten(file)
    assert told in str(caught.value)
    assert "modular_my_bert.py" in str(caught.value)


def test_classes_and_functions_of_ones_own_come_along(edited: Callable[[str, str], Path]) -> None:
    own = "class Gate(nn.Module):\n    pass\n\n\nclass Unused(nn.Module):\n    pass\n\n\nclass MyBertModel("
    file = edited("class MyBertModel(", own)
    file.write_text(file.read_text().replace("nn.Dropout(config.embedding_dropout_prob)", "Gate()"))

    flat = flatten(file)["modeling_my_bert.py"]
    assert flat.index("class Gate(") < flat.index("class MyBertEmbeddings(")
    assert "self.dropout = Gate()" in flat
    assert "Unused" not in flat


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["name=Two Words"], "name=my_model"),
        (["lamp"], "name=my_model"),
        ([], "name=my_model"),
        (["name=x", "knd=hf"], "did you mean kind=?"),
        (["name=lamp"], "name=lamp is taken"),
        (["name=x", "kind=onnx"], "kind=hf"),
        (["name=x", "base=bert"], "base=bert needs kind=hf"),
        (["name=x", "kind=hf", "base=brt"], "did you mean bert?"),
        (["name=x", "kind=hf", "base=clip"], "start from bert"),
        (["name=x", "kind=hf", "base=whisper"], "start from bert"),
        (["name=bert", "kind=hf"], "name=my_bert"),
        (["name=pre_trained", "kind=hf"], "name=my_pre_trained"),
        (["name=json", "kind=hf"], "name=my_json"),
        (["flatten=lamp"], "there is no models/lamp/modular_lamp.py"),
        (["flatten=lamp", "kind=hf"], "flatten=NAME stands alone"),
    ],
)
def test_a_request_that_cannot_be_carried_out_is_refused_with_a_remedy(
    project: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    before = sorted(project.rglob("*"))
    with contextlib.chdir(project):
        code = new_model.main(words)

    assert 2 == code
    assert told in capsys.readouterr().err
    assert before == sorted(project.rglob("*"))
