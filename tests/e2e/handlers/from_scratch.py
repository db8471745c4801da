"""From scratch on TorchServe's BaseHandler, predictions and explanations, as its documentation writes it."""

from pathlib import Path
from typing import Any

import torch
from captum.attr import IntegratedGradients
from ts.torch_handler.base_handler import BaseHandler


class ModelHandler(BaseHandler):  # type: ignore[misc]  # TorchServe has no types
    def __init__(self) -> None:
        super().__init__()
        self.initialized = False

    def initialize(self, context: Any) -> None:
        self.manifest = context.manifest
        folder = Path(context.system_properties["model_dir"])
        self.model = torch.jit.load(str(folder / self.manifest["model"]["serializedFile"]))  # type: ignore[no-untyped-call]
        self.gradients = IntegratedGradients(self.model)
        self.initialized = True

    def preprocess(self, data: Any) -> torch.Tensor:
        body = data[0].get("data") or data[0].get("body")
        return torch.tensor([body["data"] if isinstance(body, dict) else body])

    def inference(self, data: Any, *_: Any, **__: Any) -> Any:
        return self.model.forward(data)

    def postprocess(self, data: Any) -> Any:
        return data.tolist()

    def handle(self, data: Any, context: Any) -> Any:
        self.context = context
        model_input = self.preprocess(data)
        if not self._is_explain():
            return self.postprocess(self.inference(model_input))
        return self.explain_handle(model_input, data)

    def get_insights(self, data_preprocess: Any, _: Any, target: int = 0) -> Any:
        return self.gradients.attribute(data_preprocess, target=target).tolist()
