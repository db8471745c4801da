"""Stage 3: TorchScript, proven equal to the eager model. The only home of torch.jit."""

from marline.export._check import check
from marline.export._export import export

__all__ = ["check", "export"]
