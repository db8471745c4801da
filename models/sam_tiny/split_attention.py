"""SAM's vision attention with its queries, keys and values as three layers in place of one."""

from typing import Any

import torch
from torch import nn
from transformers import SamVisionConfig
from transformers.models.sam.modeling_sam import SamVisionAttention


class SamVisionAttentionSplit(SamVisionAttention):
    """Answers what SamVisionAttention answers; weights of the joint layer are split as they are loaded."""

    def __init__(self, config: SamVisionConfig, window_size: int) -> None:
        super().__init__(config, window_size)
        width = config.hidden_size
        del self.qkv
        self.q = nn.Linear(width, width, bias=config.qkv_bias)
        self.k = nn.Linear(width, width, bias=config.qkv_bias)
        self.v = nn.Linear(width, width, bias=config.qkv_bias)
        self._register_load_state_dict_pre_hook(self.split)

    def split(self, state: dict[str, Any], prefix: str, *_: Any) -> None:
        """Replace `qkv.*` by `q.*`, `k.*` and `v.*`."""
        for kind in ("weight", "bias"):
            joint = state.pop(f"{prefix}qkv.{kind}", None)
            if joint is not None:
                state.update(zip((f"{prefix}{name}.{kind}" for name in "qkv"), joint.chunk(3), strict=True))

    def forward(self, hidden_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Maps float [B, H, W, C] to the same shape, and answers the attention [B * heads, H * W, H * W] too."""
        batch, height, width, _ = hidden_states.shape
        query, key, value = (self._heads(layer(hidden_states)) for layer in (self.q, self.k, self.v))
        scores = (query * self.scale) @ key.transpose(-2, -1)
        if self.use_rel_pos:
            size = (height, width)
            scores += self.get_decomposed_rel_pos(query, self.rel_pos_h, self.rel_pos_w, size, size).reshape_as(scores)
        attention = nn.functional.softmax(scores, dtype=torch.float32, dim=-1).to(query.dtype)
        mixed = nn.functional.dropout(attention, p=self.dropout, training=self.training) @ value
        mixed = mixed.view(batch, self.num_attention_heads, height, width, -1).permute(0, 2, 3, 1, 4)
        return self.proj(mixed.reshape(batch, height, width, -1)), attention

    def _heads(self, features: torch.Tensor) -> torch.Tensor:
        """Turn [B, H, W, C] into [B * heads, H * W, C / heads]."""
        batch, height, width, _ = features.shape
        split = features.reshape(batch, height * width, self.num_attention_heads, -1).transpose(1, 2)
        return split.reshape(batch * self.num_attention_heads, height * width, -1)
