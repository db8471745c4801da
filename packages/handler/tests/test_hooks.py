"""The two hooks of a model: where, when and how often they run."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from marline.handler import FakeContext

Open = Callable[..., Any]
BRINGING = """
import os
from pathlib import Path

import torch
from base_handler import handler_factory

def install_packages():
    with open("steps.txt", "a") as file:
        file.write("install\\n")
    Path("late_module.py").write_text("BIAS = False\\n")

def unpack_dependencies():
    with open("steps.txt", "a") as file:
        file.write("unpack\\n")
    os.rename("hidden.pth", "model.pth")
    if os.path.exists("fail"):
        os.rename("model.pth", "hidden.pth")
        os.remove("fail")
        raise OSError("try again")

def init_function():
    with open(Path(__file__).parent / "steps.txt", "a") as file:
        file.write("init\\n")
    from late_module import BIAS
    return torch.nn.Linear(2, 1, bias=BIAS)

handler = handler_factory(init_function, install_packages=install_packages, unpack_dependencies=unpack_dependencies)
"""


@pytest.fixture
def folder(own: Open, tmp_path: Path) -> Path:
    """An archive whose weights and a module appear only once its hooks have run."""
    torch.save({"weight": torch.tensor([[2.0, 3.0]])}, tmp_path / "hidden.pth")
    folder = tmp_path / "archive"
    folder.mkdir()
    (tmp_path / "hidden.pth").rename(folder / "hidden.pth")
    return folder


def steps(folder: Path) -> list[str]:
    return (folder / "steps.txt").read_text().split()


def test_hooks_run_in_the_models_folder_before_its_weights_are_loaded(own: Open, folder: Path) -> None:
    here = Path.cwd()
    instance = own(BRINGING)

    instance.initialize(FakeContext(folder, "model.pth"))

    assert ["install", "unpack", "init"] == steps(folder)
    assert [[2.0, 3.0]] == instance.model.weight.tolist()
    assert here == Path.cwd()


def test_a_hook_that_fails_is_tried_again_and_leaves_the_working_folder_as_it_was(own: Open, folder: Path) -> None:
    here = Path.cwd()
    instance = own(BRINGING)
    (folder / "fail").touch()

    with pytest.raises(OSError, match="try again"):
        instance.initialize(FakeContext(folder, "model.pth"))
    assert here == Path.cwd()
    type(instance)().initialize(FakeContext(folder, "model.pth"))

    assert ["install", "unpack", "install", "unpack", "init"] == steps(folder)


SLOW = """
import time
import torch
from base_handler import handler_factory

def install_packages():
    with open("steps.txt", "a") as file:
        file.write("begin\\n")
        file.flush()
        time.sleep(0.2)
        file.write("end\\n")

handler = handler_factory(torch.nn.Identity, install_packages=install_packages)
"""


def test_workers_that_come_at_once_wait_for_the_first(own: Open, folder: Path) -> None:
    made = type(own(SLOW))

    def worker() -> list[str]:
        made().initialize(FakeContext(folder))
        return steps(folder)

    with ThreadPoolExecutor(3) as workers:
        seen = [each.result() for each in [workers.submit(worker) for _ in range(3)]]

    assert [["begin", "end"]] * 3 == seen
