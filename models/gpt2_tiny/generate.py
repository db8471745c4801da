"""The loop around the network: what export.method=hybrid scripts, with the traced network inside.

`FullModel(network)` runs eagerly too, so that both can be compared.
"""

import torch
from torch import nn

CONTEXT = 64  # n_positions in config.json


class Sampler(nn.Module):
    """Chooses the next token: the likeliest at temperature 0, else one of the `top_k` likeliest by chance."""

    def forward(self, logits: torch.Tensor, temperature: float, top_k: int) -> torch.Tensor:
        """Logits [B, vocabulary] to token ids [B, 1]."""
        if temperature <= 0.0:
            return logits.argmax(-1, keepdim=True)
        best = torch.topk(logits, min(top_k, logits.shape[-1]))
        drawn = torch.multinomial(torch.softmax(best.values / temperature, -1), 1)
        return best.indices.gather(1, drawn)


class FullModel(nn.Module):
    """The network's own answers, and `generate`."""

    def __init__(self, trained_model: nn.Module) -> None:
        super().__init__()
        self.model = trained_model
        self.sampler = Sampler()
        self.context = CONTEXT

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        """`logits` [B, tokens, vocabulary]."""
        return self.model(input_ids, attention_mask)  # type: ignore[no-any-return]

    @torch.jit.export
    def generate(self, input_ids: torch.Tensor, max_new_tokens: int, temperature: float, top_k: int) -> torch.Tensor:
        """Token ids [B, tokens] to [B, tokens + max_new_tokens]; no padding, as every token given is taken for text."""
        for _ in range(max_new_tokens):
            recent = input_ids[:, -self.context :]
            logits = self.model(recent, torch.ones_like(recent))["logits"][:, -1]
            input_ids = torch.cat([input_ids, self.sampler(logits, temperature, top_k)], 1)
        return input_ids
