"""`python -m pipelines.new_model name=NAME kind=hf base=bert`: a runnable skeleton in `models/` and `configs/models/`.

It runs as it is: `nox -s pipeline -- model=NAME profile=smoke`. `flatten=NAME` writes the flat files of a modular model anew.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path

from marline.core import MarlineError, RequestError, StageError, known_models, project_root
from pipelines.skeletons.architecture import REMEDY, architecture
from pipelines.skeletons.modular import flatten
from pipelines.skeletons.skeleton import camel, skeleton

KEYS = ("name", "kind", "base", "flatten")
RUN_S = 300.0  # a skeleton's own test takes seconds; on a busy machine the import of torch alone takes longer


def main(words: Sequence[str]) -> int:
    """Exit code 2 for a request that cannot be carried out; nothing is written then."""
    try:
        root = project_root()
        told = _told(words)
        with tempfile.TemporaryDirectory(prefix="marline-") as folder:
            draft = Path(folder)
            name = _flatten(root, told["flatten"], draft) if "flatten" in told else _new(root, told, draft)
            _format(draft)
            for file in sorted(file for file in draft.rglob("*") if file.is_file()):
                place = root / file.relative_to(draft)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, place)
                print(f"new-model: wrote {place.relative_to(root)}")
    except MarlineError as error:
        print(f"new-model: {error}", file=sys.stderr)
        return error.exit_code
    todo = f"test it with nox -s unit -- models/{name}" if "flatten" in told else f"run it with nox -s pipeline -- model={name}"
    print(f"new-model: {todo}{'' if 'flatten' in told else ' profile=smoke'}")
    return 0


def _told(words: Sequence[str]) -> dict[str, str]:
    pairs = {key: value for key, _, value in (word.partition("=") for word in words)}
    for key in pairs:
        if key not in KEYS:
            near = get_close_matches(key, KEYS, n=1)
            hint = (
                f"did you mean {near[0]}=?" if near else "write name=NAME, as name=my_model, perhaps with kind=hf and base=bert"
            )
            raise RequestError(f"{key!r} is no setting of new-model; {hint}")
    if "flatten" in pairs and len(pairs) > 1:
        raise RequestError(f"{' '.join(words)!r}: flatten=NAME stands alone")
    return pairs


def _new(root: Path, told: dict[str, str], draft: Path) -> str:
    """Draft a new model; its base, which may be any, is proven by the model's own test before anything is kept."""
    name, kind, base = _name(root, told), told.get("kind", "torch"), told.get("base")
    if kind not in {"hf", "torch"}:
        raise RequestError(f"kind={kind} is no kind of skeleton; write kind=hf for a Hugging Face model, or kind=torch")
    if base is not None and kind != "hf":
        raise RequestError(
            f"base={base} needs kind=hf: only a Hugging Face model can start from an architecture of transformers"
        )
    if kind == "hf":
        _refuse_names_of_others(name)
    found = architecture(base, camel(name)) if base is not None else None
    for file, text in skeleton(name, kind, found).items():
        (draft / file).parent.mkdir(parents=True, exist_ok=True)
        (draft / file).write_text(text, encoding="utf-8")
    if found is not None:
        _flatten(draft, name, draft)
        _prove(draft, name, found.name)
    return name


def _name(root: Path, told: dict[str, str]) -> str:
    """The name asked for, if it can be one: a letter, then letters, digits and underscores, not taken."""
    name = told.get("name", "")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise RequestError(f"name={name} names no model; write name=NAME of small letters, digits and _, as name=my_model")
    if name in known_models(root) or (root / "models" / name).exists():
        raise RequestError(f"name={name} is taken: models/{name} or configs/models/{name}.yaml exists")
    return name


def _refuse_names_of_others(name: str) -> None:
    """Transformers finds a model by its type and takes a class by a name of its own for its own, whoever wrote it."""
    import transformers  # noqa: PLC0415 - takes seconds, and kind=torch does without

    ours = {f"{camel(name)}Config", f"{camel(name)}Model"}
    if name in transformers.CONFIG_MAPPING or ours & set(dir(transformers)):
        raise RequestError(f"name={name} is a model of transformers' own; write another, as name=my_{name}")
    if find_spec(name) is not None:
        raise RequestError(f"name={name} is a Python package that is installed here; write another, as name=my_{name}")


def _flatten(root: Path, name: str, draft: Path) -> str:
    file = root / "models" / name / f"modular_{name}.py"
    if not re.fullmatch(r"\w+", name) or not file.is_file():
        raise RequestError(
            f"flatten={name}: there is no models/{name}/modular_{name}.py; "
            "nox -s new-model -- name=NAME kind=hf base=bert makes a model that has one"
        )
    folder = draft / "models" / name
    folder.mkdir(parents=True, exist_ok=True)
    for called, text in flatten(file).items():
        (folder / called).write_text(text, encoding="utf-8")
    return name


def _prove(draft: Path, name: str, base: str) -> None:
    command = ["pytest", "-q", "--import-mode=importlib", "-p", "no:cacheprovider", f"models/{name}"]
    ran = _run(command, draft)
    if ran.returncode:
        told = next((line[1:].strip() for line in ran.stdout.splitlines() if line.startswith("E ")), ran.stdout[-300:])
        raise RequestError(f"base={base} does not fit the skeleton, whose own test fails: {told}; {REMEDY}")


def _format(draft: Path) -> None:
    """Names differ in length, so where lines break is known only now."""
    ran = _run(["ruff", "format", "--isolated", "--line-length", "128", "--no-cache", "."], draft)
    if ran.returncode:
        raise StageError(f"what was written is no Python: {ran.stderr.strip()}")


def _run(module: Sequence[str], draft: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        return subprocess.run(
            [sys.executable, "-m", *module],
            cwd=draft,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=RUN_S,
        )
    except subprocess.TimeoutExpired:
        raise StageError(f"{module[0]} did not end within {RUN_S:.0f} s on the new model's files; try again") from None


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
