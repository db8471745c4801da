"""One word per thing, the same in code, config, command, folder and prose."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from marline.core import STAGES, Config, read_config
from pipelines import tasks

ROOT = Path(__file__).parents[1]
PACKAGES = sorted(file.parent for file in (ROOT / "packages").glob("*/pyproject.toml"))
COMMANDS = {
    *STAGES,
    *(
        "pipeline",
        "config",
        "serve",
        "swap",
        "loadtest",
        "schedule",
        "prefect",
        "fetch",
        "worker",
        "new-model",
        "doctor",
        "bench",
        "unit",
        "tests",
        "faults",
        "lint",
    ),
}


@pytest.fixture(scope="module")
def listed() -> dict[str, str]:
    """What `nox -l` lists: name and help."""
    command = [sys.executable, "-m", "nox", "-l"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout
    lines = [line[2:].split(" -> ", 1) for line in shown.splitlines() if " -> " in line]
    return {name.strip(): told for name, told in lines}


def test_a_stage_has_one_name_everywhere(listed: dict[str, str]) -> None:
    sections = yaml.safe_load((ROOT / "configs" / "default.yaml").read_text())

    assert set(STAGES) <= {package.name for package in PACKAGES}
    assert list(STAGES) == [key for key in sections if key in STAGES]
    assert list(STAGES) == [name for name in Config.model_fields if name in STAGES]
    assert list(STAGES) == [name for name in listed if name in STAGES]
    assert all(listed[stage].startswith(f"Stage {number}: ") for number, stage in enumerate(STAGES, 1))


def test_a_stage_is_a_function_of_its_package_and_a_task_of_the_pipeline() -> None:
    for stage in STAGES:
        assert callable(getattr(import_module(f"marline.{stage}"), stage))
        assert stage == getattr(tasks, stage).__name__


def test_every_command_is_listed_with_its_help(listed: dict[str, str]) -> None:
    assert set() == COMMANDS - listed.keys()
    assert all(listed[name] for name in COMMANDS)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_a_package_is_one_portion_of_the_namespace(package: Path) -> None:
    source = package / "src" / "marline"

    assert [package.name] == [folder.name for folder in source.iterdir() if folder.name != "__pycache__"]
    assert f'name = "marline-{package.name}"' in (package / "pyproject.toml").read_text()
    assert (source / package.name / "py.typed").is_file()
    assert (package / "README.md").is_file()
    assert list((package / "tests").glob("test_*.py"))


def fields(model: type[BaseModel], prefix: str = "") -> dict[str, Any]:
    """Every dotted key and its field."""
    found: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= fields(field.annotation, f"{prefix}{name}.")
        else:
            found[prefix + name] = field
    return found


@pytest.mark.parametrize(("key", "field"), fields(Config).items(), ids=list(fields(Config)))
def test_a_setting_is_described_and_the_example_in_its_error_is_accepted(key: str, field: Any) -> None:
    words = [f"{key}={field.examples[0]}"]

    assert field.description
    assert read_config(words if key == "model" else ["model=digits_cnn", *words]).config.model
