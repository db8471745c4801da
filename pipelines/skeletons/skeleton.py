"""Fills in the templates beside this file: every file of a new model, by its path in the project."""

import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from pipelines.skeletons.architecture import Architecture

HERE = Path(__file__).parent
TEMPLATES = Environment(
    loader=FileSystemLoader(HERE),
    undefined=StrictUndefined,
    keep_trailing_newline=True,
    trim_blocks=True,
    lstrip_blocks=True,
    autoescape=False,  # noqa: S701 - Python, JSON and Markdown, not HTML; a name is letters, digits and _
)
INHERITED = {"configuration_NAME.py", "modeling_NAME.py"}  # written by flatten where there is a base
OF_IMAGES = {"handler.py", "preprocessor_config.json"}
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SMALL = {  # so that a skeleton is quick; each where the base's configuration has it
    **dict.fromkeys(("dim", "embedding_size", "hidden_size"), 32),
    **dict.fromkeys(("hidden_dim", "intermediate_size", "image_size"), 64),
    **dict.fromkeys(("n_heads", "n_layers", "num_attention_heads", "num_hidden_layers"), 2),
    "max_position_embeddings": 128,
    "patch_size": 16,
}


def camel(name: str) -> str:
    """How the classes of a model begin: MyModel for my_model."""
    return "".join(word.capitalize() for word in name.split("_"))


def skeleton(name: str, kind: str, base: Architecture | None) -> dict[str, str]:
    """Paths in the project and texts; without the flat files where there is a base."""
    task = base.task if base else "image-classification"
    text = task == "text-classification"
    tokenizer = _tokenizer() if text else None
    chosen = {file.name: file for file in (HERE / kind).glob("*.jinja")}
    if base:
        chosen = {file: path for file, path in chosen.items() if file.removesuffix(".jinja") not in INHERITED}
        chosen |= {file.name: file for file in (HERE / "modular").glob("*.py.jinja")}
    if tokenizer:
        chosen = {file: path for file, path in chosen.items() if file.removesuffix(".jinja") not in OF_IMAGES}
        chosen["tokenizer_config.json.jinja"] = HERE / "modular" / "tokenizer_config.json.jinja"
    values = _values(name, task, base, tokenizer)
    files = {}
    for file, path in sorted(chosen.items()):
        called = file.removesuffix(".jinja").replace("NAME", name)
        folder = "configs/models" if called.endswith(".yaml") else f"models/{name}"
        files[f"{folder}/{called}"] = TEMPLATES.get_template(f"{path.parent.name}/{path.name}").render(values)
    if tokenizer:
        files[f"models/{name}/tokenizer.json"] = tokenizer.to_str(pretty=True) + "\n"
    return files


def _values(name: str, task: str, base: Architecture | None, tokenizer: Tokenizer | None) -> Mapping[str, Any]:
    """What the templates name."""
    begin = camel(name)
    suffix = base.suffix if base else "ForImageClassification"
    small: dict[str, Any] = {"channels": 16, "image_size": 64}
    if base:
        told = {**SMALL, **({"vocab_size": tokenizer.get_vocab_size(), **_ids(tokenizer)} if tokenizer else {})}
        small = {key: value for key, value in told.items() if key in base.fields}
    parents = (
        [base.model.parent, base.prefix + base.suffix, *([base.embeddings.parent] if base.embeddings else [])] if base else []
    )
    return {
        "name": name,
        "camel": begin,
        "config": f"{begin}Config",
        "model": f"{begin}Model",
        "head": begin + suffix,
        "auto_class": f"AutoModel{suffix}",
        "task": task,
        "labels": ["bad", "good"] if tokenizer else ["dark", "bright"],
        "small": small,
        "base": base,
        "imported": sorted(parents),
    }


def _ids(tokenizer: Tokenizer) -> dict[str, int]:
    vocabulary = tokenizer.get_vocab()
    words = {"pad_token_id": "[PAD]", "bos_token_id": "[CLS]", "eos_token_id": "[SEP]"}
    return {key: vocabulary[word] for key, word in words.items()}


def _tokenizer() -> Tokenizer:
    """Word pieces as BERT has them: the words of `words.txt`, and letters, digits and signs for all others."""
    signs = [*string.ascii_lowercase, *string.digits]
    words = (HERE / "modular" / "words.txt").read_text().split()
    known = dict.fromkeys([*SPECIAL, *string.punctuation, *signs, *(f"##{sign}" for sign in signs), *words])
    tokenizer = Tokenizer(models.WordPiece({word: index for index, word in enumerate(known)}, unk_token=SPECIAL[1]))
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    marks = [(word, tokenizer.token_to_id(word)) for word in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=marks
    )
    return tokenizer
