"""Runs a handler from scratch outside a server: found as TorchServe finds it, given what TorchServe's own context gives.

Such a handler brings its model itself. What it does with a request is its own business; what it answers is looked at.
"""

import inspect
import json
import mimetypes
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import ts
from ts.context import Context
from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl
from ts.service import Service

from marline.core import RequestError, StageError
from marline.handler._assemble import imported

Handle = Callable[[Any, Any], Any]
Ask = Callable[[Sequence[Path]], list[Any]]


@contextmanager
def answering(folder: Path, handler: str, model: str) -> Iterator[Ask]:
    """A function from files, sent as one batch, to the parsed JSON answers of `handler`.py in an assembled folder.

    The handler has loaded its model by then. RequestError where TorchServe would find no handler in the file, StageError where
    it cannot load its model, or a request gets no answer of its own.
    """
    with imported(folder, handler) as module:
        handle, initialize = _entry(module)
        context = _context(folder, handler, model)
        try:
            initialize(context)
        except Exception as error:  # anyone's code
            raise StageError(f"the handler {handler}.py cannot load its model: {type(error).__name__}: {error}") from error
        yield partial(_ask, handle, context)


def _entry(module: ModuleType) -> tuple[Handle, Callable[[Any], Any]]:
    """What TorchServe calls for a batch and at load: the function `handle`, else those methods of a class."""
    name = f"{module.__name__}.py"
    if callable(function := getattr(module, "handle", None)):
        return function, partial(function, None)
    classes = [one for one in vars(module).values() if inspect.isclass(one) and one.__module__ == module.__name__]
    able = [one for one in classes if callable(getattr(one, "handle", None))]
    if not able:
        raise RequestError(
            f"{name} defines no handler: no function `handle`, and none of its {len(classes)} classes has such a method; write "
            "one with `initialize` and `handle`, or the function"
        )
    instance: Any = able[0]()  # the archive has TorchServe take the first of several
    if not callable(getattr(instance, "initialize", None)):
        raise RequestError(f"the class {able[0].__name__} in {name} has no initialize, which TorchServe calls first")
    return instance.handle, instance.initialize


def _context(folder: Path, handler: str, model: str) -> Any:
    """TorchServe's own, as in a worker on a CPU whose archive has no serialized file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # TorchServe leaves its file of metrics open
        metrics = MetricsCacheYamlImpl(str(Path(ts.__file__).parent / "configs" / "metrics.yaml"))
    metrics.initialize_cache()
    metrics.model_name = model
    manifest = {"model": {"modelName": model, "handler": f"{handler}.py"}}
    return Context(model, str(folder), manifest, 1, None, version("torchserve"), True, metrics, {})


def _ask(handle: Handle, context: Any, files: Sequence[Path]) -> list[Any]:
    batch = [{"requestId": str(index).encode(), "parameters": [_body(file)]} for index, file in enumerate(files)]
    context.request_processor, requests, context.request_ids = Service.retrieve_data_for_inference(batch)
    context.metrics.set_request_ids(",".join(context.request_ids.values()))
    try:
        answers = handle(requests, context)
    except Exception as error:  # anyone's code
        raise _unanswered(files, f"{type(error).__name__}: {error}") from error
    if not isinstance(answers, list) or len(answers) != len(files):
        got = f"a list of {len(answers)}" if isinstance(answers, list) else type(answers).__name__
        raise _unanswered(files, f"the handler returned {got} where TorchServe wants a list with one answer per request")
    statuses = [context.get_response_status(index) for index in range(len(files))]
    return [_parsed(file, answer, *status) for file, answer, status in zip(files, answers, statuses, strict=True)]


def _body(file: Path) -> dict[str, Any]:
    """A request's body as TorchServe hands it on: JSON parsed, text decoded, anything else as bytes."""
    kind, body = mimetypes.guess_type(file.name)[0] or "application/octet-stream", file.read_bytes()
    value = json.loads(body) if kind == "application/json" else body.decode() if kind.startswith("text") else bytearray(body)
    return {"name": "body", "contentType": kind, "value": value}


def _parsed(file: Path, answer: Any, status: int, phrase: str | None) -> Any:
    said = bytes(answer).decode(errors="replace") if isinstance(answer, bytes | bytearray) else answer
    if status != 200:
        raise _unanswered([file], f"{status} {phrase or ''}".strip() + f": {said}")
    try:
        return json.loads(said if isinstance(said, str) else json.dumps(said, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise _unanswered([file], f"its answer is no JSON, which golden pairs are compared in: {error}") from error


def _unanswered(files: Sequence[Path], why: str) -> StageError:
    told = (
        f"the sample {files[0].name} gets" if len(files) == 1 else f"{', '.join(file.name for file in files)} as one batch get"
    )
    return StageError(f"{told} no answer: {why}; see load.samples and the handler")
