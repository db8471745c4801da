"""Prepares an unpacked archive and loads its model: TorchScript, an eager model, or weights. Goes into every archive."""

import contextlib
import fcntl
import logging
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from collation import Collate
from eager_model import load_eager
from graph_file import load_graph

MOST_ENTRIES, MOST_BYTES = 100_000, 8 << 30  # of extra files

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Functions:
    """What is particular to one model, with its arguments bound; what each receives says `base_handler.handler_factory`."""

    init: Callable[[], torch.nn.Module] | None
    preprocess: Callable[[Any], Any]
    postprocess: Callable[..., Any]
    takes_sample: bool  # whether `postprocess` takes the sample too
    install_packages: Callable[[], None] | None
    unpack_dependencies: Callable[[], None] | None
    preprocess_batch: Callable[[list[Any]], Any] | None
    postprocess_batch: Callable[[list[Any]], Any] | None
    collate: Collate
    explain: Callable[..., Any] | None
    in_threads: bool


def prepare_folder(folder: Path, system: Mapping[str, Any], functions: Functions) -> None:
    """Run the model's two hooks inside the folder, and unpack extra files between them, as model-servers does.

    Once per unpacked archive, whichever worker comes first; what raises here ends the deployment, and the next try begins anew.
    """
    done = folder / ".marline-prepared"
    with (folder / ".marline-lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if done.exists():
            return
        with _inside(folder):
            if functions.install_packages is not None:
                functions.install_packages()
            if system.get("extraFiles"):
                _unpack(folder, Path(system["extraFiles"]).name)
            if functions.unpack_dependencies is not None:
                functions.unpack_dependencies()
        done.touch()


def load_model(folder: Path, name: str | None, functions: Functions, device: torch.device) -> tuple[Any, Mapping[str, Any]]:
    """The model in eval mode on the device, and what its file says of itself.

    The eager model where the archive describes one, else TorchScript, else a state dict (safetensors, or torch's format with
    `weights_only=True`) for the module of the init function. An empty or absent file means that it brings its weights.
    """
    eager = load_eager(folder)
    if eager is not None:
        return eager.to(device), {}
    file = folder / name if name else None
    weights = None
    if file is not None and file.is_file() and file.stat().st_size:
        if file.suffix == ".safetensors":
            weights = _safetensors(file)
        else:
            try:
                graph, told = load_graph(file, device)
            except RuntimeError as error:
                if functions.init is None:
                    raise RuntimeError(f"{name} is not TorchScript and the handler has no init_function: {error}") from None
                weights = torch.load(file, map_location="cpu", weights_only=True)
            else:
                return graph, told
    if functions.init is None:
        raise RuntimeError("the archive has no weights and the handler has no init_function")
    model = functions.init()
    if weights is not None:
        model.load_state_dict(weights)
    return model.to(device).eval(), {}


def _safetensors(file: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file  # noqa: PLC0415 - an archive without such weights does without

    return load_file(file)


def _unpack(folder: Path, name: str) -> None:
    """A tar of any compression; an archive built by marline has it unpacked already, so that its modules can be imported."""
    if not (folder / name).is_file():
        logger.info("system.extraFiles: %s is not in the archive; its contents are taken to be", name)
        return
    with tarfile.open(folder / name) as extra:
        size = 0
        for count, member in enumerate(extra, 1):  # a bomb is not read to its end
            size += member.size
            if count > MOST_ENTRIES or size > MOST_BYTES:
                raise ValueError(f"{name} holds more than {MOST_ENTRIES} files or {MOST_BYTES} bytes")
        extra.extractall(folder, filter="data")  # refuses what leaves the folder, links out of it, devices


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
