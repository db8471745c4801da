from typing import Any

from ts.torch_handler.text_classifier import TextClassifier


class LoudTextClassifier(TextClassifier):  # type: ignore[misc]  # TorchServe has no types
    """Labels in capitals."""

    def postprocess(self, data: Any) -> Any:
        return [{label.upper(): value for label, value in answer.items()} for answer in super().postprocess(data)]
