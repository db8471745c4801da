"""Runs the exported file where nothing of ours is: in a fresh Python with torch alone, and in C++ without Python."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch.jit import _pickle

from marline.core import ParityError, progress

HERE = Path(__file__).parent
# C++ writes that a list or a dict is one of tensors as a call of these, which give it back as it is.
CONTAINERS: list[Any] = [
    _pickle.restore_type_tag,
    _pickle.build_tensorlist,
    _pickle.build_intlist,
    _pickle.build_doublelist,
    _pickle.build_boollist,
]
RUN_S, BUILD_S = 300.0, 300.0
NO_ARGUMENTS = 2  # what the program ends with when it is told nothing

Call = tuple[str, tuple[Any, ...], dict[str, Any]]  # method, arguments, keywords


def in_python(file: Path, calls: Sequence[Call], libraries: Sequence[str], folder: Path) -> list[Any]:
    """The answers of a fresh process that imports torch and `libraries` alone; ParityError with what it said where it fails."""
    words = [sys.executable, "-I", str(HERE / "_reload.py")]
    return _answers(words, file, calls, folder, f"{file.name} cannot be loaded and run in a fresh process", list(libraries))


def in_cpp(program: Path, file: Path, calls: Sequence[Call], folder: Path) -> list[Any]:
    """The answers of the C++ program, as above."""
    return _answers([str(program)], file, calls, folder, f"{file.name} cannot be loaded and run in C++", [])


def cpp_program(folder: Path) -> Path | str:
    """The built `reload.cpp`, kept in the user's cache for each torch, else in `folder`; where it cannot be built, why not."""
    compiler = next((found for name in ("c++", "g++", "clang++") if (found := shutil.which(name))), None)
    if compiler is None:
        return "there is no C++ compiler on this machine (apt install g++)"
    source = HERE / "reload.cpp"
    digest = hashlib.sha256(source.read_bytes() + torch.__version__.encode() + torch.__file__.encode()).hexdigest()[:16]
    cache = _cache(folder)
    program = cache / f"reload-{digest}"
    if not _runs(program):
        progress(0.0, "building the C++ check, once for this torch")
        partial = cache / f"{program.name}.{os.getpid()}"
        refused = _build(compiler, source, partial)
        if refused:
            return refused
        partial.replace(program)
        _runs.cache_clear()
    return program


def _cache(folder: Path) -> Path:
    """Where the program is kept: the user's cache if there is one that can be written to."""
    named = os.environ.get("XDG_CACHE_HOME") or (f"{home}/.cache" if (home := os.environ.get("HOME")) else None)
    if named is None:
        return folder
    cache = Path(named, "marline")
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError:
        return folder
    return cache if os.access(cache, os.W_OK) else folder


@cache
def _runs(program: Path) -> bool:
    """Whether a kept program is whole: without arguments it ends with 2. Asked once: a start loads all of torch's libraries."""
    try:
        return subprocess.run([program], capture_output=True, timeout=RUN_S, check=False).returncode == NO_ARGUMENTS
    except (OSError, subprocess.TimeoutExpired):
        return False


def _build(compiler: str, source: Path, program: Path) -> str:
    """Empty where it was built, else why it was not."""
    home = Path(torch.__file__).parent
    words = [
        *(compiler, "-std=c++20", "-O0", f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"),
        *(f"-I{home / 'include'}", f"-I{home / 'include/torch/csrc/api/include'}", str(source), "-o", str(program)),
        *(f"-L{home / 'lib'}", "-ltorch", "-ltorch_cpu", "-lc10", f"-Wl,-rpath,{home / 'lib'}", "-Wl,--no-as-needed"),
    ]
    failed = f"{compiler} cannot build {source.name} against torch {torch.__version__}"
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=BUILD_S, check=False)
    except subprocess.TimeoutExpired:
        return f"{failed}: not done after {BUILD_S:.0f} s"
    wrong = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
    return f"{failed}: {(wrong or ['no word why'])[0].strip()[:300]}" if done.returncode else ""


def _answers(
    words: Sequence[str], file: Path, calls: Sequence[Call], folder: Path, failure: str, more: Sequence[str]
) -> list[Any]:
    asked, answered = folder / "asked.pt", folder / "answered.pt"
    answered.unlink(missing_ok=True)  # another process may have answered before
    torch.save(list(calls), asked)
    try:
        done = subprocess.run(
            [*words, str(file), str(asked), str(answered), *more], capture_output=True, text=True, timeout=RUN_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise ParityError(f"{failure}: no answer within {RUN_S:.0f} s") from None
    if done.returncode or not answered.is_file():
        said = done.stderr.strip()[-2000:] or f"it ended with {done.returncode} and said nothing"
        raise ParityError(f"{failure}:\n{said}")
    with torch.serialization.safe_globals(CONTAINERS):
        found: list[Any] = torch.load(answered, weights_only=True)
    return found
