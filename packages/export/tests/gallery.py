"""Modules that must be refused or diagnosed. Their source is read, and quoted to the user, so they live in a file.

They are written as their users would write them, without a comment: the compiler reads some.
"""
# mypy: ignore-errors

from typing import Any

import numpy as np
import torch
from torch import nn

CALLS: list[int] = []


class BakedBatch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, x: Any) -> Any:
        rows = [self.linear(x[index]) for index in range(int(x.shape[0]))]
        return torch.stack(rows)


class BakedLength(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 4)
        self.position = nn.Parameter(torch.randn(16, 4))

    def forward(self, ids: Any) -> Any:
        length = int(ids.shape[1])
        return (self.words(ids) + self.position[:length]).mean(1)


class BakedDevice(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        ramp = torch.arange(4, device="cpu")
        return x * ramp


class FrozenBranch(nn.Module):
    def forward(self, x: Any) -> Any:
        if x.sum() > 0:
            return x * 2
        return x - 1


class RareBranch(nn.Module):
    def forward(self, x: Any) -> Any:
        if x.abs().max() > 1000:
            x = x.clamp(-1000, 1000) * 3
        return x + 1


class BranchBySize(nn.Module):
    def forward(self, x: Any) -> Any:
        large = x[x > 1000]
        if large.numel() > 0:
            x = x.clamp(-1000, 1000) * 3
        return x + 1


class BranchByNumpy(nn.Module):
    def forward(self, x: Any) -> Any:
        if np.abs(x.numpy()).max() > 1000:
            x = x.clamp(-1000, 1000) * 3
        return x + 1


class DropoutLeftOn(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(x, 0.5)


class StaysInTraining(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def train(self, mode: bool = True) -> "StaysInTraining":
        return super().train(True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x)


class BatchNormInTraining(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("var", torch.ones(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = torch.cat([x, x + 1])
        return nn.functional.batch_norm(wide, self.mean, self.var, training=True)[: x.shape[0]]


class NestedFunction(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        def double(y: torch.Tensor) -> torch.Tensor:
            return y * 2

        return double(x)


class NumpyInForward(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(np.tanh(x.detach().numpy()))


class UntypedList(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        sizes = []
        for size in x.shape:
            sizes.append(size)
        return x * sizes[1]


class MissingHint(nn.Module):
    def forward(self, x, times=2):
        for _ in range(times):
            x = x + 1
        return x


class VariableArguments(nn.Module):
    def forward(self, *xs: torch.Tensor) -> torch.Tensor:
        return xs[0] + 1


class MissingReturn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = 2.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.scale > 1:
            return x * self.scale


class SetOfLabels(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.skipped = {1, 3}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * len(self.skipped)


class TriesFirst(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        try:
            return x.view(-1, 2, 2).sum(1)
        except RuntimeError:
            return x


class WrongType(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.double() if torch.jit.is_scripting() else x


class InPlace(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x.mul_(2)
        return x


class RandomNumbers(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.rand_like(x)


class AnswersNan(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - 1000).log()


class GlobalState(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        CALLS.append(1)
        return x + len(CALLS)


class OwnState(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += 1
        return x * 2
