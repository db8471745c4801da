"""A model that transformers does not have."""

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput

from .configuration_own import OwnConfig

try:
    import a_library_nobody_has  # type: ignore[import-not-found]
except ImportError:
    a_library_nobody_has = None


class OwnModel(PreTrainedModel):  # type: ignore[no-untyped-call]
    """Looks words up."""

    config_class = OwnConfig
    base_model_prefix = "own"

    def __init__(self, config: OwnConfig) -> None:
        super().__init__(config)
        self.embed = nn.Embedding(config.vocabulary, config.width)
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(self, input_ids: torch.Tensor, **_: Any) -> BaseModelOutput:
        """Answers one vector for each word."""
        return BaseModelOutput(last_hidden_state=self.embed(input_ids))

    def summary(self) -> str:
        """Name a method beside forward."""
        return "a summary"


class OwnForSequenceClassification(PreTrainedModel):  # type: ignore[no-untyped-call]
    """Classifies their mean."""

    config_class = OwnConfig
    base_model_prefix = "own"

    def __init__(self, config: OwnConfig) -> None:
        super().__init__(config)
        self.own = OwnModel(config)
        self.head = nn.Linear(config.width, 3)
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor | None = None) -> SequenceClassifierOutput:
        """Answers logits, and the loss where labels are given."""
        logits = self.head(self.own(input_ids).last_hidden_state.mean(1))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)
