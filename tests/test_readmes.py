"""What a README shows works: snippets run, commands exist and say what can be said to them."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from marline.archive._words import parameters
from marline.core import read_config
from marline.report._runs import KNOWN
from pipelines.__main__ import each
from pipelines.schedule import request

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "docs" / "tuning.md", ROOT / "docs" / "scale.md"]
READMES = sorted([*PAGES, *ROOT.glob("packages/*/README.md"), *ROOT.glob("models/*/README.md")])
SNIPPETS = {
    f"{readme.relative_to(ROOT)}:{number}": code
    for readme in READMES
    if readme.is_file()
    for number, code in enumerate(re.findall(r"^```python\n(.*?)^```$", readme.read_text(), re.MULTILINE | re.DOTALL))
}
OTHER_WORDS = (
    "name=",
    "group=",
    "only=",
    "port=",
    "database=",
    "pool=",
    "inspect=",
    "config=",
    "status=",
    "list=",
    "compare=",
    "stage=",
)  # commands that read no configuration
PLACES = {"model=NAME": "model=digits_cnn"}


@pytest.mark.parametrize("code", SNIPPETS.values(), ids=SNIPPETS)
def test_a_snippet_runs_in_a_bare_process(code: str, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)

    assert 0 == done.returncode, done.stderr


def test_there_are_snippets() -> None:
    packages = {name.split("/")[1] for name in SNIPPETS if name.startswith("packages/")}

    assert {file.parent.name for file in ROOT.glob("packages/*/pyproject.toml")} <= packages


def commands() -> list[str]:
    """Every `nox -s ...` of every README, comments cut off."""
    texts = [readme.read_text() for readme in READMES if readme.is_file()]
    lines = [line for text in texts for line in re.findall(r"nox -s [^`\n]*", text)]
    return sorted({re.split(r"\s+#|\s{2,}|[,;)]", line)[0].strip() for line in lines})


def sessions() -> set[str]:
    command = [sys.executable, "-m", "nox", "-l"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout
    return {line[2:].split(" -> ")[0].strip() for line in shown.splitlines() if " -> " in line}


def test_every_command_exists_and_takes_the_words_it_is_given() -> None:
    known = sessions()

    for command in commands():
        _, _, name, *words = shlex.split(command)
        told = [PLACES.get(word, word) for word in words if word != "--"]
        assert name in known, command
        if name == "schedule" and any(word.startswith("cron=") for word in told):
            _, told = request(told)
        if name == "archive" and any(word.startswith("model_name=") for word in told):
            parameters(told)
        elif any(word.startswith("accept=") for word in told):
            assert set(KNOWN) >= {word.partition("=")[0] for word in told}
        elif told and not told[0].startswith((*OTHER_WORDS, "-")):
            for each_told in each(told):
                read_config(each_told)


def test_there_are_commands() -> None:
    assert {"nox -s pipeline -- model=resnet50", "nox -s tests"} <= set(commands())
