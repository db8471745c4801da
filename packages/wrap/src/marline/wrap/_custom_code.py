"""A repository with code of its own: the classes its auto_map names, tracked by subclasses in one file more.

What is not understood is refused. The code is read here as text and run in a bare child process alone.
"""

import ast
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers.dynamic_module_utils import get_relative_import_files

from marline.core import Manifest, RequestError, StageError, WrapConfig
from marline.wrap._names import names
from marline.wrap._plan import Plan, Tracked, check_methods, side_files, tracked_code

PROBE = Path(__file__).with_name("_probe.py")
PROBE_S = 180.0  # importing torch and transformers from a cold disk included


def plan_custom_code(model: str, config: WrapConfig, loaded: Manifest) -> Plan:
    """The checkpoint as it is, and a tracked class for each model in its auto_map; StageError says what is not understood."""
    if config.components:
        raise RequestError("wrap.components: a model with code of its own has its layers there; change them there")
    called, checkpoint = names(model), loaded.path("checkpoint")
    told = json.loads((checkpoint / "config.json").read_text())
    copies = side_files(checkpoint)
    if taken := sorted({f"tracked_{called.stem}.py", "marline_tracker.py"} & set(copies)):
        raise _refused(f"it has {', '.join(taken)} already; wrap what it was made from")
    references = _references(told.get("auto_map") or {}, checkpoint)
    found = probed(checkpoint, list(dict.fromkeys(references.values())))
    if problems := [f"{reference} {one['problem']}" for reference, one in found.items() if one["problem"]]:
        raise _refused("; ".join(problems))
    auto_class = loaded.facts["auto_class"] if loaded.facts["auto_class"] in references else next(iter(references))
    base = references[auto_class]
    check_methods(config.methods, base, found[base]["methods"])
    entries = {auto: f"tracked_{called.stem}.{reference.partition('.')[2]}" for auto, reference in references.items()}
    return Plan(
        facts={
            "base_class": base,
            "tracked_class": entries[auto_class],
            "auto_class": auto_class,
            "exported_module": None,
            "methods": list(_tracked(base, found[base], config.methods).methods),
        },
        code=tracked_code(called.stem, [_tracked(reference, one, config.methods) for reference, one in found.items()]),
        config={**told, "auto_map": {**told["auto_map"], **entries}},
        copies=copies,
        foreign=tuple(_code(references.values(), checkpoint)),
    )


def _refused(why: str) -> StageError:
    return StageError(
        f"this model's own code cannot be tracked automatically: {why}; README.md of marline.wrap says how to do it by hand"
    )


def _references(auto_map: Mapping[str, Any], checkpoint: Path) -> dict[str, str]:
    """AutoClasses of models and their `module.Class`; configuration and tokenizer stay as they are."""
    found = {auto: reference for auto, reference in auto_map.items() if auto.startswith("AutoModel") or auto == "AutoBackbone"}
    if not found:
        raise _refused("its auto_map names no model")
    for auto, reference in found.items():
        _look(auto, reference, checkpoint)
    distinct = set(found.values())
    if len({reference.partition(".")[2] for reference in distinct}) < len(distinct):
        raise _refused(f"classes of one name in different files: {', '.join(sorted(distinct))}")
    return found


def _look(auto: str, reference: Any, checkpoint: Path) -> None:
    """Refuse an entry whose class is not to be found, after a look at the file as text."""
    if isinstance(reference, str) and "--" in reference:
        raise _refused(f"{auto} is {reference!r}, code of another repository")
    module, _, name = reference.partition(".") if isinstance(reference, str) else ("", "", "")
    if not (module.isidentifier() and name.isidentifier()):
        raise _refused(f"{auto} is {reference!r}, which is no MODULE.CLASS")
    file = checkpoint / f"{module}.py"
    if not file.is_file():
        raise _refused(f"{auto} is {reference!r}, but there is no {file.name}")
    try:
        nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    except (SyntaxError, ValueError) as error:
        raise _refused(f"{file.name} is no Python: {error}") from None
    defined = {node.name for node in nodes if isinstance(node, ast.ClassDef)}
    imports = [alias for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names]
    if name not in defined | {alias.asname or alias.name for alias in imports}:
        raise _refused(f"{file.name} defines no class {name!r}")


def _code(references: Iterable[str], checkpoint: Path) -> list[Path]:
    """The files of the classes, and those they import from beside them; a repository may hold other scripts too."""
    named = {checkpoint / f"{reference.partition('.')[0]}.py" for reference in references}
    return sorted(named | {Path(file) for one in named for file in get_relative_import_files(one)})


def _tracked(reference: str, found: Mapping[str, Any], methods: Sequence[str]) -> Tracked:
    module, _, name = reference.partition(".")
    generates = ("generate",) if found["generates"] or found["will_generate"] else ()
    more = tuple(one for one in methods if one in found["methods"] and one not in {"forward", "generate"})
    return Tracked(module=module, name=name, methods=("forward", *generates, *more), own_generate=found["generates"])


def probed(checkpoint: Path, references: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What a bare process finds the classes to be, by reference; it has an empty home and none of our environment."""
    with tempfile.TemporaryDirectory(prefix="marline-") as home:
        result = Path(home, "found.json")
        log = run([str(PROBE), str(checkpoint), str(result), *references], home, PROBE_S)
        if not result.is_file():
            raise _refused(f"it cannot be imported: {(log.strip().splitlines() or ['it ended without a word'])[-1][:400]}")
        found: dict[str, dict[str, Any]] = json.loads(result.read_text())
    return found


def run(arguments: Sequence[str], home: str, seconds: float) -> str:
    """What Python, given these arguments, wrote to stderr; after so many seconds it is ended, with whatever it started."""
    environment = {"HOME": home, "HF_HOME": home, "TMPDIR": home, "PATH": os.environ.get("PATH", ""), "HF_HUB_OFFLINE": "1"}
    child = subprocess.Popen(
        [sys.executable, "-I", "-W", "ignore", *arguments],
        cwd=home,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with child:
        try:
            return child.communicate(timeout=seconds)[1]
        except subprocess.TimeoutExpired:
            raise _refused(f"importing it took more than {seconds:g} s") from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
