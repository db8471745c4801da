"""The names a model has inside its repository."""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Names:
    """Files end in `stem`; classes of our own begin with `camel`."""

    stem: str
    camel: str

    @property
    def config(self) -> str:
        """A configuration class of ours: transformers takes one called SwinConfig for its own, whoever wrote it."""
        return f"Marline{self.camel}Config"


def names(model: str) -> Names:
    """Names fit for Python: `my-model` has `modeling_my_model.py` with classes that begin with `MyModel`."""
    words = re.findall(r"[0-9A-Za-z]+", model)
    camel = "".join(word[0].upper() + word[1:] for word in words)
    return Names("_".join(words).lower() or "model", camel if camel[:1].isalpha() else f"Model{camel}")
