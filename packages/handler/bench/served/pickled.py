"""What NOT to do: a handler in the style of model-servers, which decodes what a stranger sends with jsonpickle.

Decoding runs any function that the request names. It is here to be measured on loopback, and nowhere else.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jsonpickle
import torch
from torchvision import transforms
from ts.torch_handler.base_handler import BaseHandler


class PickledHandler(BaseHandler):  # type: ignore[misc]  # TorchServe has no types
    """Tensors uint8 [3, height, width], or a model's input as lists, as jsonpickle's JSON; answers in the same way."""

    processing = transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ConvertImageDtype(torch.float32),
            transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
        ]
    )

    def preprocess(self, data: Sequence[Mapping[str, Any]]) -> torch.Tensor:
        """One batch, stacked."""
        decoded = [jsonpickle.decode(request.get("data") or request["body"]) for request in data]  # noqa: S301
        return torch.stack([torch.tensor(one) if isinstance(one, list) else self.processing(one) for one in decoded])

    def inference(self, data: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        """Without gradients, as there."""
        with torch.no_grad():
            output: torch.Tensor = self.model(data.to(self.device))
        return output

    def postprocess(self, data: torch.Tensor) -> list[dict[str, str]]:
        """The best class of each row and its score."""
        probabilities = data.detach().cpu().softmax(1)
        return [{"output": jsonpickle.encode((float(row.max()), int(row.argmax())))} for row in probabilities]
