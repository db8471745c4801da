"""One batch on its way through the handler: every request gets its own answer or its own error. Goes into every archive."""

import json
import logging
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from collation import plain
from open_inference import answered, refused
from request_decoding import BadRequestError
from ts.utils.util import PredictionException

logger = logging.getLogger(__name__)


def _forget(error: BaseException | None) -> None:
    """Let go of the values in the functions that raised: an error is kept, the request that caused it may be large."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


@dataclass
class Batch:
    """The answers of a batch, as JSON texts by place; `handler.error` keeps the newest error for whoever asks."""

    context: Any
    answers: list[str]
    handler: Any
    opened: Sequence[
        Mapping[str, Any] | None
    ]  # by place, the body of a request that is to be answered in the Open Inference Protocol

    def answer(self, index: int, key: str, value: Any) -> None:
        """The answer to one request, encoded once."""
        body, found = self.opened[index], plain(value)
        told = {key: found} if body is None else answered(body, self._model, key, found)
        self.answers[index] = json.dumps(told, separators=(",", ":"), allow_nan=False)
        self.context.set_response_content_type(index, "application/json")

    @contextmanager
    def own_error(self, index: int) -> Iterator[None]:
        """What is raised inside becomes the answer to this request, and to no other.

        Out of memory stays what it is: TorchServe answers 507, and a smaller batch is the operator's decision.
        """
        try:
            yield
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except BadRequestError as error:
            self._refuse(index, error, error.code, error.phrase, error.phrase.replace(" ", ""), str(error))
        except PredictionException as error:  # TorchServe's way to a code of one's own
            self._refuse(index, error, int(error.error_code), "Prediction Error", "PredictionException", str(error.message))
        except Exception as error:  # whatever a model's own function raises is this sample's failure, not the batch's
            logger.exception("sample %d of a batch failed", index)
            text = f"{type(error).__name__} in the handler"
            self._refuse(index, error, 500, "Internal Server Error", "HandlerError", text)

    def each(self, function: Callable[[list[Any]], Sequence[Any]], values: Mapping[int, Any]) -> dict[int, Any]:
        """What a function of many makes of the values, by place; where it refuses all of them, of each it takes alone."""
        if len(values) > 1:
            try:
                return dict(zip(values, function(list(values.values())), strict=True))
            except (MemoryError, torch.OutOfMemoryError):
                raise
            except Exception:  # anyone's code; which value it cannot take is found out below
                logger.warning("a batch of %d failed; its samples are tried one by one", len(values), exc_info=True)
        found = {}
        for index, value in values.items():
            with self.own_error(index):
                (found[index],) = function([value])
        return found

    def _refuse(self, index: int, error: Exception, code: int, phrase: str, kind: str, text: str) -> None:
        _forget(error)
        self.handler.error = error
        self.context.set_response_status(code=code, phrase=phrase, idx=index)
        self.context.set_response_content_type(index, "application/json")
        body, told = self.opened[index], {"code": code, "type": kind, "message": text}
        self.answers[index] = json.dumps(told if body is None else refused(body, self._model, told))

    @property
    def _model(self) -> Mapping[str, Any]:
        return dict(self.context.manifest["model"])
