"""Imports a Python file by its path."""

import importlib.util
from pathlib import Path
from types import ModuleType


def import_file(file: Path, name: str | None = None) -> ModuleType:
    """The module that a file makes, by its own name unless told otherwise; it raises whatever the file's code raises.

    It is not kept among Python's modules, so that files of one name in two folders do not meet.
    """
    spec = importlib.util.spec_from_file_location(name or file.stem, file)
    assert spec is not None, file
    assert spec.loader is not None, file
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
