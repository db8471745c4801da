"""A configuration that transformers does not have."""

from typing import Any

from transformers import PreTrainedConfig


class OwnConfig(PreTrainedConfig):  # type: ignore[no-untyped-call]
    """Sizes."""

    model_type = "own"

    def __init__(self, vocabulary: int = 20, width: int = 4, **kwargs: Any) -> None:
        self.vocabulary = vocabulary
        self.width = width
        super().__init__(**kwargs)
