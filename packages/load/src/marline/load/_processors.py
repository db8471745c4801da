"""What stands beside a Hugging Face model's weights: processors, own code, licences. Copied, not saved anew.

Bytes that are copied tokenise as they did; saving anew would translate them to the version of transformers at hand.
"""

import json
import re
import shutil
from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import transformers
from transformers.dynamic_module_utils import get_relative_import_files

from marline.core import RequestError, StageError
from marline.load._hub import Place

TOKENIZER = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
    "spiece.model",
    "sentencepiece*.model",
    "source.spm",
    "target.spm",
    "*.tiktoken",
    "chat_template*",
)
OTHERS = ("preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json", "audio_tokenizer_config.json")
SENTENCE = ("modules.json", "*sentence_*.json", "[0-9]_*/config.json")  # how sentence-transformers pools a model's answer
LICENCES = ("LICENSE*", "NOTICE*", "COPYING*", "README.md")


def matching(place: Place, patterns: Iterable[str]) -> list[str]:
    """Names of the source's files in the places where loaders look: at the top, or where the pattern has a folder.

    What they are is copied on, so RequestError for a link that leads out of the folder.
    """
    alike = {name for name in place.files for each in patterns if name.count("/") == each.count("/") and fnmatch(name, each)}
    found = sorted(name for name in alike if (place.folder / name).is_file())
    home = place.folder.resolve()
    homes = (home, home.parents[1] / "blobs") if home.parent.name == "snapshots" else (home,)  # as the hub's cache has it
    for name in found:
        file = (place.folder / name).resolve()
        if not any(map(file.is_relative_to, homes)):
            raise RequestError(
                f"{name} in {place.folder} is a link to {file}, which would be published; put a copy in its place"
            )
    return found


def processor_files(place: Place) -> list[str]:
    return matching(place, (*TOKENIZER, *OTHERS, *SENTENCE))


def opened(place: Place, *, trust: bool) -> dict[str, Any]:
    """Every processor the source has files for, by its AutoClass; StageError where one cannot be opened."""
    wanted = ["AutoTokenizer"] if matching(place, TOKENIZER) else []
    several, single = (_told(place, name) for name in ("processor_config.json", "preprocessor_config.json"))
    if "feature_extractor" in several or "sampling_rate" in single:
        wanted.append("AutoFeatureExtractor")
    if "image_processor" in several or (single and "sampling_rate" not in single):
        wanted.append("AutoImageProcessor")
    if "video_processor" in several or "video_preprocessor_config.json" in place.files:
        wanted.append("AutoVideoProcessor")
    if several:
        wanted.append("AutoProcessor")
    found = {}
    for name in wanted:
        try:
            auto = getattr(transformers, name)
            found[name] = auto.from_pretrained(place.folder, trust_remote_code=trust, local_files_only=True)
        except Exception as error:  # foreign code, and foreign files
            reason = " ".join(str(error).split())[:300]
            raise StageError(f"the {name.removeprefix('Auto')} of {place.folder} cannot be opened: {reason}") from error
    return found


def code_files(place: Place) -> list[str]:
    """The repository's own Python files that its JSON files name, and what those import; RequestError for another's."""
    names: set[str] = set()
    for name in ["config.json", *matching(place, (*TOKENIZER, *OTHERS))]:
        for reference in _references(_told(place, name).get("auto_map", {})):
            if not re.fullmatch(r"\w+\.\w+", str(reference)):  # ORG/NAME--module.Class
                raise RequestError(f"{name} of {place.folder} runs {reference}, which lies elsewhere; no commit pins that")
            module = place.folder / f"{reference.partition('.')[0]}.py"
            try:
                files = [module, *map(Path, get_relative_import_files(module))]
            except OSError as error:
                raise StageError(f"{name} of {place.folder} names {reference}, which is not complete: {error}") from None
            names |= {file.relative_to(place.folder).as_posix() for file in files}
    return sorted(names)


def copy_files(place: Place, names: Iterable[str], folder: Path, *, with_code: bool) -> None:
    """Copy files; without the code that they name where that code does not come along."""
    for name in names:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        told = {} if with_code or not name.endswith(".json") else _told(place, name)
        if "auto_map" in told:
            target.write_text(json.dumps({key: value for key, value in told.items() if key != "auto_map"}, indent=2) + "\n")
        else:
            shutil.copyfile(place.folder / name, target)


def _told(place: Place, name: str) -> Mapping[str, Any]:
    """A JSON file's object; empty where there is none."""
    if name not in place.files or not name.endswith(".json"):
        return {}
    try:
        told = json.loads((place.folder / name).read_text(encoding="utf-8"))
    except ValueError as error:
        raise StageError(f"{place.folder / name} is no JSON: {error}") from None
    return told if isinstance(told, dict) else {}


def _references(auto_map: Any) -> list[str]:
    """The `module.Class` in an auto_map, whose values are one each, or a slow and a fast tokenizer with null for none."""
    values = auto_map.values() if isinstance(auto_map, dict) else [auto_map]
    return [each for value in values for each in (value if isinstance(value, list) else [value]) if each is not None]
