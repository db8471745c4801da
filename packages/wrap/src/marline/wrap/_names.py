"""The names a model has inside its repository."""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Names:
    """Files end in `stem`; the classes are written out."""

    stem: str
    config: str
    base: str
    tracked: str


def names(model: str) -> Names:
    """Names fit for Python: `my-model` has `modeling_my_model.py` with `MyModelForImageClassification`.

    The config class is ours by name: transformers takes a class called SwinConfig for its own, whoever wrote it.
    """
    words = re.findall(r"[0-9A-Za-z]+", model)
    camel = "".join(word[0].upper() + word[1:] for word in words)
    camel = camel if camel[:1].isalpha() else f"Model{camel}"
    base = f"{camel}ForImageClassification"
    return Names("_".join(words).lower() or "model", f"Marline{camel}Config", base, f"Tracked{base}")
