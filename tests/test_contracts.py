"""What may import what, what may be used where, and what must never be committed; each rule is also seen to say no."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = sorted(file.parent for file in (ROOT / "packages").glob("*/pyproject.toml"))
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
FORBIDDEN = sorted({name for contract in CONTRACTS for name in contract.get("forbidden_modules", [])})
HEAVY = {"torch", "torchvision", "transformers", "numpy", "scipy", "prefect", "locust", "gevent", "matplotlib", "PIL", "ts"}
MUST_BREAK = """
[tool.importlinter]
root_packages = ["marline"]
[[tool.importlinter.contracts]]
name = "an import that exists on purpose"
type = "forbidden"
source_modules = ["marline.load"]
forbidden_modules = ["marline.core"]
"""


def program(name: str, *words: str | Path, given: str | None = None) -> subprocess.CompletedProcess[str]:
    """A tool of the environment that this Python is of."""
    command = [Path(sys.executable).with_name(name), *words]
    return subprocess.run(command, cwd=ROOT, input=given, capture_output=True, text=True, check=False, timeout=120)


def tracked() -> list[Path]:
    """Every file that is, or would be, committed."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_the_arrows_point_one_way() -> None:
    done = program("lint-imports", "--no-logo")

    assert 0 == done.returncode, done.stdout


def test_the_linter_can_say_no(tmp_path: Path) -> None:
    config = tmp_path / "broken.toml"
    config.write_text(MUST_BREAK)

    done = program("lint-imports", "--no-cache", "--config", config)

    assert 1 == done.returncode
    assert "BROKEN" in done.stdout


@pytest.mark.parametrize("name", FORBIDDEN)
def test_a_forbidden_module_is_spelt_right(name: str) -> None:
    """A name the linter does not find in its graph is skipped without a word."""
    assert find_spec(name.removesuffix(".*")), name


def test_every_package_has_its_layer() -> None:
    layers = " | ".join(next(contract for contract in CONTRACTS if contract.get("containers"))["layers"])

    assert sorted(package.name for package in PACKAGES) == sorted(name.strip("() ") for name in layers.split("|"))


def imported_siblings(package: Path) -> set[str]:
    trees = (ast.parse(file.read_text()) for file in (package / "src").rglob("*.py") if "templates" not in file.parts)
    nodes = [node for tree in trees for node in ast.walk(tree)]
    names = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    names += [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    return {name.split(".")[1] for name in names if name.startswith("marline.")} - {package.name}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_siblings_are_declared(package: Path) -> None:
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    prefix = "marline-"
    declared = {name.removeprefix(prefix) for name in project["dependencies"] if name.startswith(prefix)}

    assert imported_siblings(package) == declared


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_siblings_are_imported_by_their_full_name(package: Path) -> None:
    """`from marline import x` is invisible to the test above."""
    sources = [file.read_text() for file in (package / "src").rglob("*.py")]

    assert not [source for source in sources if re.search(r"^\s*from marline import", source, re.MULTILINE)]


@pytest.mark.parametrize("code", ["import torch.jit\n", "from torch.jit import script\n", "import torch\n\ntorch.jit.load\n"])
def test_torchscript_is_refused_outside_its_home(code: str) -> None:
    words = ["check", "--no-cache", "--select", "TID251", "--stdin-filename"]

    planted = program("ruff", *words, "packages/tune/src/marline/tune/_planted.py", "-", given=code)
    at_home = program("ruff", *words, "packages/export/src/marline/export/_planted.py", "-", given=code)

    assert (1, 0) == (planted.returncode, at_home.returncode)
    assert "TorchScript lives in marline.export" in planted.stdout


def test_core_imports_nothing_heavy() -> None:
    command = [sys.executable, "-c", "import marline.core, sys; print(*sys.modules)"]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()

    assert set() == HEAVY & set(loaded)


def test_the_constraints_are_pins_and_nothing_else() -> None:
    """No hosts, hashes or paths: they install from whatever index a machine has."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [pin for line in lines if (pin := line.partition("#")[0].strip())]

    assert [] == [line for line in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!]+", line)]
    assert len(pins) == len({line.partition("==")[0].lower().replace("_", "-") for line in pins})
    assert not [line for line in pins if line.startswith("marline")]


def test_no_file_names_this_machine_or_a_package_index() -> None:
    """The patterns are put together here, so that this file does not hold what it looks for."""
    machine = {"work", "root", *(str(path).strip("/") for path in (ROOT, Path.home()) if len(path.parts) > 1)}
    places = [rf"(?<![\w.~$}}-])/{re.escape(name)}/" for name in machine]
    hosts = [rf"\b{name}\.[a-z]" for name in ("py" + "pi", r"files\.python" + "hosted", r"download\.py" + "torch")]
    wanted = re.compile("|".join([*places, *hosts]))

    found = {
        str(file.relative_to(ROOT)): match.group()
        for file in tracked()
        if (match := wanted.search(file.read_bytes().decode(errors="replace")))
    }

    assert {} == found
