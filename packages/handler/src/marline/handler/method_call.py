"""Calls the method of a model that the model config names, with parameters of each request's own. Goes into every archive.

    handler: {method: generate, parameters: {max_new_tokens: 20, temperature: 0.0, top_k: 1}, most: {max_new_tokens: 256}}

`parameters` are what a request may set, with their defaults; `most` bounds numbers, as a client must not decide how long a
worker is busy. A request sets them as `{"data": ..., "parameters": {...}}`, as form fields, or in the query string of
`/models/NAME/invoke`: TorchServe drops that of `/predictions/NAME`.
"""

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from collation import Collate, Sample, has_mask, tensors
from request_decoding import BadRequestError, parameters_of, shown

LARGEST = 2**63 - 1


@dataclass(frozen=True)
class MethodCall:
    """The method's name, None for the model itself, and what a request may tell it."""

    name: str | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    most: Mapping[str, float] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()  # of the method, or of the model itself, without `self`

    @classmethod
    def of(cls, told: Mapping[str, Any], model: Any) -> "MethodCall":
        """By the section `handler` of the model config; AttributeError where the model has no such method."""
        name = told.get("method")
        if name is None:
            return cls(arguments=_arguments(getattr(model, "forward", model)))
        if not callable(getattr(model, name, None)):
            told_how = "the model has no such method; export.preserve keeps one"
            raise AttributeError(f"handler.method={name!r} in the model config: {told_how}")  # noqa: TRY004 - it is none
        return cls(name, dict(told.get("parameters") or {}), dict(told.get("most") or {}), _arguments(getattr(model, name)))

    def parameters(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """A request's parameters over the defaults; BadRequestError for one that is unknown, too large or of another type."""
        if self.name is None:
            return {}
        texts = [key for key, default in self.defaults.items() if isinstance(default, str)]
        told = {**self.defaults, **parameters_of(request, texts)}
        for key, value in told.items():
            if key not in self.defaults:
                raise BadRequestError(f"unknown parameter {shown(key)}; known are {', '.join(self.defaults) or 'none'}")
            told[key] = _like(self.defaults[key], key, value)
            if key in self.most and told[key] > self.most[key]:
                raise BadRequestError(f"{key}={shown(value)} is more than {self.most[key]}")
        return told

    def groups(
        self, parameters: Mapping[int, dict[str, Any]], samples: Mapping[int, Sample], *, pads: bool
    ) -> list[tuple[dict[str, Any], dict[int, Sample]]]:
        """The samples that one call can answer, with its parameters: alike in those and, where padding would tell, in shape.

        A method that makes text takes every token for text, padding too; and where `pads` says that shorter samples are
        filled up, a sample without a mask has nothing to tell its model so.
        """
        found: dict[str, tuple[dict[str, Any], dict[int, Sample]]] = {}
        for index, told in parameters.items():
            sample = samples[index]
            alike = self.name is not None or (pads and not has_mask(sample))
            shapes = [list(one.shape) for one in tensors(self._taken(sample))] if alike else None
            found.setdefault(json.dumps([told, shapes], sort_keys=True), (told, {}))[1][index] = sample
        return list(found.values())

    def on(self, model: Any, samples: Sequence[Sample], collate: Collate) -> tuple[Any, tuple[Any, ...]]:
        """What is called, and its tensors: of named ones those that the method has an argument for."""
        if self.name is None:
            return model, collate(samples)
        return getattr(model, self.name), collate([self._taken(sample) for sample in samples])

    def ordered(self, sample: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        """Named tensors in the order of the model's arguments, where all have the name of one."""
        if not set(sample) <= set(self.arguments):
            return sample
        return {name: sample[name] for name in self.arguments if name in sample}

    def _taken(self, sample: Sample) -> Sample:
        if isinstance(sample, torch.Tensor) or self.name is None:
            return sample
        return {key: value for key, value in sample.items() if key in self.arguments}


def _arguments(method: Any) -> tuple[str, ...]:
    schema = getattr(method, "schema", None)  # of a scripted method
    try:
        names = [one.name for one in schema.arguments] if schema is not None else list(inspect.signature(method).parameters)
    except (TypeError, ValueError):  # of a function written in C, or of no function
        return ()
    return tuple(name for name in names if name != "self")


def _like(default: Any, key: str, value: Any) -> Any:
    """A value of the default's type; whole numbers are numbers."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and not -LARGEST <= value <= LARGEST:  # NaN, Infinity, and whole numbers that no tensor holds
        raise BadRequestError(f"{key}={shown(value)}: expected a number up to 2^63")
    if isinstance(default, float) and number:
        value = float(value)
    if type(value) is not type(default):
        raise BadRequestError(f"{key}={shown(value)}: expected {type(default).__name__}, as in {key}={default!r}")
    return value
