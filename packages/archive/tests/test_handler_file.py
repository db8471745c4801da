"""Which class of a handler file serves, against TorchServe's own way of finding one."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from marline.archive._handler_file import ENTRY, class_count, entry_of, imported, parsed, refuse_shadow
from marline.core import RequestError

BASE = "class Base:\n    def initialize(self, context): ...\n    def handle(self, data, context): return [self.name]\n"
SEVERAL = {  # source: the name that serves
    f"{BASE}class Second(Base):\n    name = 2\n": "Base",
    f"from torch.nn import Module\nclass Net(Module): ...\n{BASE}": "Base",
    f"class Told(Exception): ...\n{BASE}": "Base",
    f"from collections import namedtuple\nPoint = namedtuple('Point', 'x')\n{BASE}": "Base",
    f"{BASE}alias = Base\n": "Base",
    "class Helper: ...\nif True:\n    class Real(Helper):\n        handle = print\n": "Real",
    f"def handler_factory(i): return type('Handler', (), {{'handle': i, '__module__': __name__}})\n{BASE}"
    "made = handler_factory(print)\n": "made",
    "def handler_factory(i): return type('Handler', (), {'handle': i, '__module__': __name__})\n"
    "made = handler_factory(print)\nclass Mine(made): ...\nclass Other: ...\n": "Mine",
    "import factories\nclass Other: ...\nclass Mine(factories.handler_factory(print)): ...\n": "Mine",
}


@pytest.fixture
def module(tmp_path: Path) -> Iterator[Path]:
    """A file whose module, and those beside it, can be imported and are forgotten."""
    (tmp_path / "factories.py").write_text("def handler_factory(i): return type('Handler', (), {'handle': i})\n")
    sys.path.insert(0, str(tmp_path))
    before = set(sys.modules)
    yield tmp_path / "several_classes.py"
    sys.path.remove(str(tmp_path))
    for name in set(sys.modules) - before:
        del sys.modules[name]


def found(file: Path) -> list[type]:
    """What TorchServe finds in a module."""
    from ts.utils.util import list_classes_from_module

    importlib.invalidate_caches()
    imported_module: ModuleType = importlib.import_module(file.stem)
    classes: list[type] = list_classes_from_module(imported_module)
    return classes


@pytest.mark.parametrize(
    ("source", "name"), SEVERAL.items(), ids=[f"{name}-{place}" for place, name in enumerate(SEVERAL.values())]
)
def test_of_several_classes_the_right_one_serves(source: str, name: str, module: Path) -> None:
    module.write_text(source)

    entry = entry_of(module, None)

    assert ENTRY == entry.handler
    assert entry.generated is not None
    (module.parent / ENTRY).write_text(entry.generated)
    assert len(found(module)) > 1
    assert class_count(module.read_bytes()) == len(found(module))
    (served,) = found(module.parent / ENTRY)
    assert getattr(sys.modules[module.stem], name) is served.__mro__[1]
    assert callable(served.handle)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "source",
    [
        BASE,
        "from ts.torch_handler.image_classifier import ImageClassifier\nclass Mine(ImageClassifier): ...\n",
        "from base_handler import handler_factory\nhandler = handler_factory(print)\n",
        "from base_handler import handler_factory\nhandler: type = handler_factory(print)\n",
        "def handle(data, context): ...\n",
        f"{BASE}class Second: ...\ndef handle(data, context): ...\n",
        "from elsewhere import handle\n",
        "try:\n    from fast import handle\nexcept ImportError:\n    handle = print\n",
        "from elsewhere import *\n",
    ],
)
def test_what_torchserve_finds_itself_needs_no_entry(source: str, module: Path) -> None:
    module.write_text(source)

    entry = entry_of(module, None)

    assert (module.name, None) == (entry.handler, entry.generated)
    assert class_count(source.encode()) <= 1


def test_a_class_that_is_named_serves(module: Path) -> None:
    module.write_text(f"{BASE}class Second(Base): ...\n")

    entry = entry_of(module, "Second")

    assert ENTRY == entry.handler
    assert "('several_classes').Second" in str(entry.generated)


def test_a_function_of_any_name_serves(module: Path) -> None:
    module.write_text("def answer(data, context): ...\nclass A: ...\nclass B: ...\n")

    entry = entry_of(module, "answer")

    assert ("several_classes.py:answer", None) == (entry.handler, entry.generated)


@pytest.mark.parametrize(
    ("source", "function", "why"),
    [
        ("def answer(data, context): ...", "anwser", "defines no 'anwser'; did you mean 'answer'"),
        ("def answer(data, context): ...", None, "neither a function handle nor a class with such a method"),
        ("class A: ...", None, "nor a class with such a method"),
        ("class A: ...", "A", "A has no handle method"),
        ("def answer(:", None, "line 1: .*could not be imported"),
        ("x = '\0'", None, "source code"),
        ("", None, "neither a function handle"),
    ],
)
def test_what_cannot_serve_is_refused(source: str, function: str | None, why: str, module: Path) -> None:
    module.write_text(source)

    with pytest.raises(RequestError, match=why):
        entry_of(module, function)


def test_imports_are_found_wherever_they_are(module: Path) -> None:
    module.write_text("import a.b, c as d\nfrom e.f import g\nfrom . import h\ndef late():\n    import i\n")

    assert {"a", "c", "e", "i"} == imported(parsed(module))


@pytest.mark.parametrize("name", ["json.py", "torch.py", "ts.py", "numpy.py", "signal.py"])
def test_a_handler_that_would_hide_a_module_is_refused(name: str) -> None:
    with pytest.raises(RequestError, match=f"{name} would take the place of the module"):
        refuse_shadow(Path(name))


@pytest.mark.parametrize("name", ["handler.py", "waveglow_handler.py", "handler_model.py", "model.py"])
def test_usual_names_hide_nothing(name: str) -> None:
    refuse_shadow(Path(name))


@pytest.mark.parametrize("source", [b"def (", b"\0", b"(" * 100_000])
def test_what_is_no_python_has_no_classes(source: bytes) -> None:
    assert 0 == class_count(source)
