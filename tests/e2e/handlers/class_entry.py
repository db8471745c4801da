"""Entry by a class that derives from nothing; it is the first of several."""

from typing import Any

from ts.utils.util import PredictionException


class Zebra:
    """The handler, though the last by name: what TorchServe itself would sort by."""

    def initialize(self, context: Any) -> None:
        self.factor = Factor(context.model_yaml_config["mine"]["factor"])

    def handle(self, data: Any, context: Any) -> list[Any]:
        numbers = [(row.get("data") or row.get("body"))["data"] for row in data]
        if "raise" in numbers:
            raise PredictionException("Some Prediction Error", 513)
        return [self.factor.of(number) for number in numbers]


class Factor:
    def __init__(self, value: int) -> None:
        self.value = value

    def of(self, number: Any) -> Any:
        return {"product": self.value * number}


class Ape:
    def initialize(self, context: Any) -> None:
        raise RuntimeError("Ape is not the first")

    def handle(self, data: Any, context: Any) -> list[Any]:
        raise RuntimeError("Ape is not the first")
