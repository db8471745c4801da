"""What must be so before a TorchServe of ours starts. `nox -s doctor` shows all of it; a start refuses by it, in milliseconds.

Knows this machine and our settings; starts nothing and leaves nothing.
"""

import errno
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import psutil
import yaml

from marline.archive import Contents, read_mar
from marline.core import DeployConfig, RequestError, ServerError, machine
from marline.deploy._risks import OUR_NAMES, parse_properties, risks
from marline.deploy._settings import Ports, java_home_of, properties

LEAST_TEMP_MB, LEAST_LOGS_MB, LEAST_SHARED_MB = 100, 20, 8
LONGEST_SOCKET = 107  # bytes of a Unix socket's path, from sys/un.h; a worker binds one below the temporary folder
SHARED = Path("/dev/shm")  # noqa: S108 - looked at, not written to by name
PORT_NAMES = tuple(Ports.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. What is not good keeps a server from starting; `asked`: by a setting of the user's."""

    name: str
    value: str
    good: bool = True
    remedy: str = ""
    asked: bool = False


def preflight(config: DeployConfig, logs: Path) -> None:
    """Refuse a start that cannot end well: RequestError where a setting is at fault, else ServerError; all reasons together."""
    bad = [finding for finding in checks(config, logs) if not finding.good]
    if bad:
        kind = RequestError if all(finding.asked for finding in bad) else ServerError
        raise kind("\n".join(f"{finding.name}: {finding.value}; {finding.remedy}" for finding in bad))


def checks(config: DeployConfig, logs: Path) -> Iterator[Finding]:
    """Everything that every start depends on."""
    yield _java_home(config)
    yield from _ports(config)
    yield from _temporary()
    yield _folder("log folder", logs, LEAST_LOGS_MB, "make room there, or name another place: artifacts=FOLDER")
    yield _shared_memory()
    yield from _unsafe(config)


def _java_home(config: DeployConfig) -> Finding:
    try:
        return Finding("java home", str(java_home_of(config)))
    except RequestError as error:
        value, _, remedy = str(error).partition("; ")
        return Finding("java home", value, good=False, remedy=remedy, asked=True)


def _ports(config: DeployConfig) -> Iterator[Finding]:
    hosts = [config.bind] + ["127.0.0.1"] * 4
    if not config.ports:
        yield _port("deploy.bind", config.bind, 0)
    for name, host, port in zip(PORT_NAMES, hosts, config.ports, strict=False):
        yield _port(f"deploy.ports, {name}", host, port)


def _port(name: str, host: str, port: int) -> Finding:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Java does: one that only lingers is free
        try:
            probe.bind((host, port))
        except OSError as error:
            return _refused_port(name, host, port, error)
    return Finding(name, f"{host}:{port} is free" if port else f"{host}, at free ports")


def _refused_port(name: str, host: str, port: int, error: OSError) -> Finding:
    if error.errno == errno.EADDRINUSE:
        told, remedy = f"port {port} is taken by {holder(port)}", "end it, or name another port, or none: deploy.ports=[]"
    elif error.errno == errno.EACCES:
        told, remedy = f"port {port} needs privileges that we have not", "name one above 1023"
    else:
        told, remedy = f"{host} is no address of this machine ({error.strerror})", "write deploy.bind=127.0.0.1 or 0.0.0.0"
    return Finding(name, told, good=False, remedy=remedy, asked=True)


def holder(port: int) -> str:
    """Who listens on a TCP port: a process by name and pid, as far as we may see it."""
    pids = [
        connection.pid
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
    ]
    pid = next((pid for pid in pids if pid is not None), None)
    try:
        return f"{psutil.Process(pid).name()} (pid {pid})" if pid is not None else "another user's process"
    except psutil.NoSuchProcess:
        return f"pid {pid}, which is ending"


def _temporary() -> Iterator[Finding]:
    """Python passes over a TMPDIR that it cannot write to, without a word; a server elsewhere is not what was said."""
    told = os.environ.get("TMPDIR")
    try:
        folder = Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        yield Finding("temporary folder", str(error), good=False, remedy="set TMPDIR to a folder with room in it")
        return
    if told is not None and folder != Path(told).absolute():
        yield Finding("temporary folder", f"TMPDIR={told} cannot be written", good=False, remedy="make room there")
        return
    yield _folder("temporary folder", folder, LEAST_TEMP_MB, "TMPDIR moves it")
    yield _socket_path(folder)


def _folder(name: str, folder: Path, least_mb: int, remedy: str) -> Finding:
    """Whether files can be made in a folder, or in the nearest one above it that there is."""
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            free_mb = shutil.disk_usage(there).free / 1e6
    except OSError as error:
        return Finding(name, f"nothing can be written in {there} ({error.strerror})", good=False, remedy=remedy)
    value = f"{free_mb:,.0f} MB free in {there}"
    return Finding(name, value, good=free_mb >= least_mb, remedy=f"a server needs {least_mb} MB; {remedy}")


def _socket_path(folder: Path) -> Finding:
    longest = f"{folder}/marline-{os.getuid()}/12345678/temp/.ts.sock.9999"
    length = len(longest.encode())
    remedy = f"a worker's socket may have a path of {LONGEST_SOCKET} bytes, not {length}: set TMPDIR to a shorter one"
    return Finding("socket paths", f"{length} bytes below {folder}", good=length <= LONGEST_SOCKET, remedy=remedy)


def _shared_memory() -> Finding:
    """PyTorch passes tensors between processes through it; containers often have little."""
    if not SHARED.is_dir():
        return Finding("shared memory", f"there is no {SHARED}", good=False, remedy="mount a tmpfs there")
    free_mb = shutil.disk_usage(SHARED).free / 1e6
    good = free_mb >= LEAST_SHARED_MB and os.access(SHARED, os.W_OK)
    remedy = f"{LEAST_SHARED_MB} MB that can be written; for a container: --shm-size=64m"
    return Finding("shared memory", f"{free_mb:,.0f} MB free in {SHARED}", good=good, remedy=remedy)


def _unsafe(config: DeployConfig) -> Iterator[Finding]:
    """The settings that our server would get, as anybody's are looked at."""
    told = parse_properties(properties(Path("/nowhere"), Ports(1, 2, 3, 4, 5), config))
    found = [risk for risk in risks(told) if risk.name]
    for risk in found:
        accepted = risk.name in config.allow_unsafe
        ours = OUR_NAMES.get(risk.setting.partition("=")[0], risk.setting)
        how = f"accepted: deploy.allow_unsafe has {risk.name}" if accepted else risk.why
        remedy = f"{risk.remedy} ({ours}), or say that it is meant: deploy.allow_unsafe=[{risk.name}]"
        yield Finding("settings", f"{risk.setting}: {how}", good=accepted, remedy=remedy, asked=True)
    if not found:
        yield Finding("settings", "tokens on, models from our store alone, workflows from nowhere")


def check_archive(archive: Path, temp: Path) -> Contents:
    """Refuse an archive that is damaged, that does not fit unpacked into `temp`, or whose device is not here.

    Raises ArchiveError, ServerError or RequestError. An archive that was looked at and has not changed is not read again.
    """
    told = archive.stat()
    contents = _read(archive, told.st_ino, told.st_size, told.st_mtime_ns)
    needed, free = sum(contents.sizes.values()) + told.st_size, shutil.disk_usage(temp).free  # unpacked, and in the store
    if needed > free:
        raise ServerError(
            f"{archive.name} needs {needed / 1e6:,.0f} MB in {temp} and {free / 1e6:,.0f} MB are free; make room or move TMPDIR"
        )
    _check_device(archive, yaml.safe_load(contents.config) or {})
    return contents


@lru_cache(maxsize=8)
def _read(archive: Path, *_: int) -> Contents:
    return read_mar(archive)


def _check_device(archive: Path, told: Mapping[str, Any]) -> None:
    """TorchServe would serve on the CPU without a word, or give a worker a GPU that is not there."""
    if str(told.get("deviceType", "")).lower() != "gpu":
        return
    here = _visible_gpus()
    beyond = [one for one in told.get("deviceIds") or [0] if one >= here]
    if beyond:
        raise RequestError(
            f"{archive.name} says deviceType: gpu and needs GPU {beyond[0]}, and there are {here} that we may use on this "
            "machine (NVIDIA's driver and CUDA_VISIBLE_DEVICES say so); build it with accelerator=cpu, or serve it elsewhere"
        )


def _visible_gpus() -> int:
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    present = len(machine()["gpus"])
    return present if named is None else min(present, len([one for one in named.split(",") if one.strip() not in {"", "-1"}]))


def check_bodies(config: DeployConfig, sizes: Mapping[str, int]) -> None:
    """Refuse a limit that the model's own requests, bytes by name, would break; TorchServe answers those with a bare 413."""
    limit = config.max_request_mb * 2**20
    name = max(sizes, key=lambda each: sizes[each], default=None)
    if name is not None and sizes[name] > limit:
        raise RequestError(
            f"deploy.max_request_mb = {config.max_request_mb} refuses the model's own sample {name} of {sizes[name]:,} bytes; "
            f"write deploy.max_request_mb={-(-sizes[name] // 2**20)}"
        )
