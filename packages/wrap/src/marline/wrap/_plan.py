"""What a repository will hold. Each kind of model makes a plan, which may fail; only then is anything written."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from marline.core import RequestError
from marline.telemetry import FILE

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    undefined=StrictUndefined,
    keep_trailing_newline=True,
    trim_blocks=True,
    lstrip_blocks=True,
    autoescape=False,  # noqa: S701 - Python and Markdown, not HTML; what comes from outside is inserted with tojson
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracked:
    """One class of the tracked file: `module.name`, and which of its methods report."""

    module: str
    name: str
    methods: tuple[str, ...]
    own_generate: bool = True  # else the one that transformers adds to old custom code


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A repository as it will be."""

    facts: Mapping[str, Any]
    code: Mapping[str, str]
    config: Mapping[str, Any]
    copies: Mapping[str, Path] = field(default_factory=dict)
    foreign: tuple[Path, ...] = ()  # those of the copies that are the model's own code
    write_weights: Callable[[Path], None] = lambda _: None

    def write(self, repository: Path) -> None:
        """Write all of it into an existing, empty folder."""
        for name, file in self.copies.items():
            (repository / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, repository / name)
        for name, text in self.code.items():
            (repository / name).write_text(text, encoding="utf-8")
        (repository / "config.json").write_text(json.dumps(self.config, indent=2) + "\n", encoding="utf-8")
        self.write_weights(repository)


def render(template: str, **values: Any) -> str:
    """Fill in one of `templates/`."""
    return TEMPLATES.get_template(f"{template}.jinja").render(values)


def tracked_code(stem: str, classes: Iterable[Tracked]) -> dict[str, str]:
    """The tracked file and the tracker it needs."""
    listed = list(classes)
    text = render("tracked.py", classes=listed, generating=any("generate" in one.methods for one in listed))
    return {f"tracked_{stem}.py": text, "marline_tracker.py": FILE.read_text(encoding="utf-8")}


def check_methods(methods: Sequence[str], owner: str, has: Collection[str]) -> None:
    """RequestError where `wrap.methods` names what the model lacks, or what the tracked class needs for itself."""
    if missing := [name for name in methods if name not in has]:
        raise RequestError(f"wrap.methods: {owner} has no {', '.join(missing)}; leave out what it lacks")
    if inner := [name for name in methods if name.startswith("_") or name == "save_pretrained"]:
        raise RequestError(f"wrap.methods: {', '.join(inner)} cannot be tracked; name methods that users of the model call")


def untracked(note: str) -> dict[str, Any]:
    """The facts of a model without a Python class; `note` says who reports its use instead."""
    classes = dict.fromkeys(("base_class", "tracked_class", "auto_class", "exported_module"))
    return {**classes, "methods": [], "note": note}


def without_place(told: str) -> str:
    """A source or a sentence without the folders that absolute paths in it begin with: what is published does not tell them."""
    return re.sub(r"(?<![\w./])/(?!/)(?:[^\s/]+/)*", "", told)


def digest(code: Mapping[str, str]) -> str:
    """Of the code beside a configuration file, which carries it.

    transformers tells classes of local folders apart by the bytes of one file and those it imports, so two repositories in
    folders of one name would otherwise be mixed up within a process.
    """
    return hashlib.sha256(json.dumps(dict(code), sort_keys=True).encode()).hexdigest()


def side_files(checkpoint: Path) -> dict[str, Path]:
    """All that comes along as it is: processors, tokenizers, licences, code; a card under another name beside ours."""
    files = {str(file.relative_to(checkpoint)): file for file in sorted(checkpoint.rglob("*")) if file.is_file()}
    files.pop("config.json", None)
    if "README.md" in files:
        files["README_source.md"] = files.pop("README.md")
    return files


def is_weights(name: str) -> bool:
    """Whether a file of a checkpoint holds weights or says where they are."""
    return name.endswith((".safetensors", ".safetensors.index.json"))
