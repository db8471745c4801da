"""The shared base handler; it goes into every archive and needs only TorchServe, torch and Pillow there.

A model's own file says what is particular to it, in functions that see one sample at a time:

    from base_handler import handler_factory
    handler = handler_factory(init_function, preprocess_function=preprocess, postprocess_function=postprocess)

`request_decoding.py` says what a preprocess function receives. It returns one tensor, or a mapping of names to tensors in
the order of the model's arguments; `collation.py` says how a batch is made of them. A postprocess function receives one row
of the model's output, on the CPU, and the sample it answers where it takes two arguments; it returns something JSON can
express. Functions that see a whole batch are there where one sample at a time is too slow.

One bad sample never fails its neighbours: it gets its own 400 (what was sent is wrong), the code of a PredictionException,
or 500 (our function raised).
"""

import base64
import inspect
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
from batch_facts import BatchFacts
from collation import Collate, Sample, collate, plain, row, tensors
from device_use import DeviceUse, one_thread, settle_threads
from emulated_device import EmulatedDevice
from explanation import Explainer
from graph_file import from_graph, to_graph
from method_call import MethodCall
from model_loading import Functions, load_model, prepare_folder
from one_batch import Batch
from request_decoding import BadRequestError, content_type, decode, open_body, parameters_of, parsed, shown
from ts.torch_handler.base_handler import BaseHandler


def handler_factory(
    init_function: Callable[..., torch.nn.Module] | None = None,
    preprocess_function: Callable[..., Any] = lambda data: data,
    postprocess_function: Callable[..., Any] = lambda output: output,
    install_packages: Callable[..., None] | None = None,
    unpack_dependencies: Callable[..., None] | None = None,
    *args: Any,
    init_kwargs: Mapping[str, Any] | None = None,
    preprocess_kwargs: Mapping[str, Any] | None = None,
    postprocess_kwargs: Mapping[str, Any] | None = None,
    install_kwargs: Mapping[str, Any] | None = None,
    unpack_kwargs: Mapping[str, Any] | None = None,
    preprocess_batch_function: Callable[[list[Any]], Sequence[Any]] | None = None,
    postprocess_batch_function: Callable[[list[Any]], Sequence[Any]] | None = None,
    collate_function: Collate = collate,
    explain_function: Callable[..., Any] | None = None,
    preprocess_in_threads: bool = False,
    **more_init_kwargs: Any,
) -> type["SharedHandler"]:
    """Make the handler class of one model; arguments that are not named here go to `init_function`.

    `init_kwargs` go there too, and settle a clash of names. The other `_kwargs` go to the function of their name.
    `preprocess_batch_function` gets the list of what `preprocess_function` returned and returns one sample for each;
    `postprocess_batch_function` gets the list of the outputs, before `postprocess_function`, and returns one for each.
    `collate_function` makes the model's arguments of a list of samples, `collation.collate` where nothing is said.
    `explain_function` gets (model, sample, target) and answers /explanations in place of Captum (`explanation.py`).
    `preprocess_in_threads` lets the samples of a batch be preprocessed beside each other: the function must bear it.

    TorchServe takes the one class it finds defined in the handler's module, so the class is moved into the caller's.
    """
    answer = partial(postprocess_function, **(postprocess_kwargs or {}))
    functions = Functions(
        init=init_function and partial(init_function, *args, **{**more_init_kwargs, **(init_kwargs or {})}),
        preprocess=partial(preprocess_function, **(preprocess_kwargs or {})),
        postprocess=answer,
        takes_sample=_takes_sample(answer),
        install_packages=install_packages and partial(install_packages, **(install_kwargs or {})),
        unpack_dependencies=unpack_dependencies and partial(unpack_dependencies, **(unpack_kwargs or {})),
        preprocess_batch=preprocess_batch_function,
        postprocess_batch=postprocess_batch_function,
        collate=collate_function,
        explain=explain_function,
        in_threads=preprocess_in_threads,
    )
    module = sys._getframe(1).f_globals["__name__"]  # noqa: SLF001 - the documented way to know one's caller
    return type("Handler", (SharedHandler,), {"functions": functions, "__module__": module})


class SharedHandler(BaseHandler):  # type: ignore[misc]  # TorchServe has no types
    """Loads the model, answers batches sample by sample, and says how long each batch took."""

    functions: Functions
    use = DeviceUse()
    facts = BatchFacts()
    method = MethodCall()
    explainer: Explainer | None = None
    emulation: EmulatedDevice | None = None
    pool: ThreadPoolExecutor | None = None
    part = 0  # samples of a batch that the model begins with while the others are still preprocessed; 0: none
    told: Mapping[str, Any] = {}  # what the exported file says of itself
    example: tuple[Sample, Any] | None = None
    error: Exception | None = None  # the newest, for whoever runs a handler outside a server

    def initialize(self, context: Any) -> None:
        """Called once by TorchServe in each worker; whatever it raises ends the deployment."""
        config = context.model_yaml_config or {}
        folder = Path(context.system_properties["model_dir"])
        self.context = context
        self.use = DeviceUse.of(config, context.system_properties.get("gpu_id"))
        self.device = self.use.device
        prepare_folder(folder, config.get("system") or {}, self.functions)
        name = context.manifest["model"].get("serializedFile")
        model, told = load_model(folder, name, self.functions, self.device)
        self.take(self.use.laid_out(model), told, config.get("handler") or {})
        self.facts = BatchFacts.of(folder, context)
        self.explainer = Explainer(folder, self.device, self.functions.explain, self.model)
        self.emulation = EmulatedDevice.read()
        self.part = int((config.get("handler") or {}).get("micro_batch_size") or 0)
        if self.functions.in_threads and (self.part or torch.get_num_threads() > 1):
            self.pool = ThreadPoolExecutor(torch.get_num_threads(), initializer=one_thread)
        self.example = self._example(folder)
        batch_size = min(int(context.system_properties.get("batch_size") or 1), self.part or 2**31)
        if self.example is not None and self.emulation is None:
            self._warm_up(batch_size)
            settle_threads(self._run, batch_size, self.device)
        self.initialized = True

    def take(self, model: Any, told: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        """Answer with this model, whose file says `told`, and with the method that the section `handler` names, if it does."""
        self.model, self.told = model, told
        self.method = MethodCall.of(config, model)

    def handle(self, data: Sequence[Mapping[str, Any]], context: Any) -> list[str]:
        """Answer one batch: exactly one JSON text per request, in order."""
        began = time.monotonic()
        self.context = context
        if self._is_describe():  # GET /models/NAME?customized=true, which comes alone
            return [json.dumps(plain(self.describe_handle()))]
        answers = [""] * len(data)
        data = [parsed(request, content_type(context, index, request)) for index, request in enumerate(data)]
        batch = Batch(context, answers, self, [open_body(request) for request in data])
        samples: dict[int, Sample] = {}
        outputs: dict[int, Any] = {}
        explained: dict[int, Sample] = {}
        preprocessed = inferred = began
        for ready in self._samples(data, batch):
            explained |= {index: ready.pop(index) for index in list(ready) if _asks_why(context, index)}
            preprocessed += self.use.now() - inferred
            outputs |= self._outputs(data, ready, batch)
            samples |= ready
            inferred = self.use.now()
        if self.functions.postprocess_batch is not None:
            outputs = batch.each(self.functions.postprocess_batch, outputs)
        for index, output in outputs.items():
            with batch.own_error(index):
                batch.answer(index, "output", self._postprocess(output, samples[index]))
        if samples:
            self.facts.record(len(samples), began, preprocessed, inferred)
        for index, sample in explained.items():
            with batch.own_error(index):
                batch.answer(index, "explanation", self.explain_handle(sample, [data[index]]))
        return answers

    def inference(self, data: Sequence[Sample], *_: Any, **parameters: Any) -> list[Any]:
        """Run the samples as one batch; one output per sample, on the CPU."""
        if self.emulation is not None and self.example is not None:
            self.emulation.spend(len(data))
            return [row(self.example[1], 0)] * len(data)
        output = self._forward(data, parameters)
        return [row(output, index) for index in range(len(data))]

    def sample(self, request: Mapping[str, Any]) -> Sample:
        """What the model gets for one request; BadRequestError where the request cannot be understood."""
        value = self.functions.preprocess(decode(request))
        if self.functions.preprocess_batch is not None:
            (value,) = self.functions.preprocess_batch([value])
        return self._checked(value)

    def explain_handle(self, data_preprocess: Sample, raw_data: Sequence[Mapping[str, Any]]) -> Any:
        """The answer to one request for an explanation; `target` in the request names the output to explain, 0 by default."""
        target = parameters_of(raw_data[0]).get("target", 0)
        if type(target) is not int:
            raise BadRequestError(f"target={shown(target)}: expected the index of an output")
        return self.get_insights(data_preprocess, raw_data, target)

    def describe_handle(self) -> dict[str, Any]:
        """What GET /models/NAME?customized=true adds: which worker answers, for whoever must hear from each."""
        return {"worker": os.getpid()}

    def get_insights(self, data_preprocess: Sample, raw_data: Any, target: int) -> Any:  # noqa: ARG002 - TorchServe's contract
        """How much each part of a sample speaks for the output `target`; a subclass may say it otherwise."""
        if self.explainer is None:
            raise RuntimeError("the handler is not initialised")
        return self.explainer.insights(data_preprocess, target)

    def _samples(self, data: Sequence[Mapping[str, Any]], batch: Batch) -> Iterator[dict[int, Sample]]:
        """One sample for each request that can be understood, by its place in the batch; the batch whole, or part by part."""

        def value(index: int) -> Any:
            return self.functions.preprocess(decode(data[index], content_type(batch.context, index, data[index])))

        beside = self.pool is not None and len(data) > 1
        waiting = {index: self.pool.submit(value, index) for index in range(len(data))} if beside else {}  # type: ignore[union-attr]
        step = self.part if beside and self.part else len(data)
        for begin in range(0, len(data), step):
            ready = {}
            for index in range(begin, min(begin + step, len(data))):
                with batch.own_error(index):
                    ready[index] = waiting[index].result() if beside else value(index)
            if self.functions.preprocess_batch is not None:
                ready = batch.each(self.functions.preprocess_batch, ready)
            samples = {}
            for index, one in ready.items():
                with batch.own_error(index):
                    samples[index] = self._checked(one)
            yield samples

    def _checked(self, sample: Any) -> Sample:
        if isinstance(sample, Mapping) and sample and all(isinstance(value, torch.Tensor) for value in sample.values()):
            return self.method.ordered(sample)
        if not isinstance(sample, torch.Tensor):
            raise BadRequestError(f"expected numbers (a JSON list, .npy or safetensors), got {type(sample).__name__}")
        expected = tensors(self.example[0])[0].shape if self.example is not None else sample.shape
        if sample.shape != expected and self.functions.collate is collate:
            raise BadRequestError(f"expected shape {list(expected)}, got {list(sample.shape)}")
        return sample

    def _outputs(self, data: Sequence[Mapping[str, Any]], samples: dict[int, Sample], batch: Batch) -> dict[int, Any]:
        """The outputs of all samples: of one call, or of one for each set of parameters where requests have some."""
        told = {}
        for index in samples:
            with batch.own_error(index):
                told[index] = self.method.parameters(data[index])
        found: dict[int, Any] = {}
        for parameters, members in self.method.groups(told, samples, pads=self.functions.collate is collate):
            found |= batch.each(partial(self.inference, **parameters), members)
        return found

    def _forward(self, samples: Sequence[Sample], parameters: Mapping[str, Any]) -> Any:
        function, arguments = self.method.on(self.model, samples, self.functions.collate)
        with torch.inference_mode(), self.use.autocast():
            return from_graph(function(*to_graph(self.use.pinned(arguments), self.device, self.told), **parameters))

    def _postprocess(self, output: Any, sample: Sample) -> Any:
        if self.emulation is not None and self.example is not None:
            sample = self.example[0]  # whose output it is
        return self.functions.postprocess(output, sample) if self.functions.takes_sample else self.functions.postprocess(output)

    def _example(self, folder: Path) -> tuple[Sample, Any] | None:
        """One preprocessed sample and the model's output for it, from the golden pairs that travel in the archive."""
        file = folder / "golden.json"
        if not file.is_file():
            return None
        pair = json.loads(file.read_text())["pairs"][0]
        sample = self.sample({"body": base64.b64decode(pair["request"])})
        return sample, self._forward([sample], self.method.defaults)

    def _warm_up(self, batch_size: int) -> None:
        """Run every power of two up to the batch size twice: TorchScript optimises a shape in its first two runs."""
        size = 1
        while size < 2 * batch_size:
            for _ in range(2):
                self._run(min(size, batch_size))
            size *= 2

    def _run(self, size: int) -> None:
        assert self.example is not None
        self.inference([self.example[0]] * size, **self.method.defaults)


def _asks_why(context: Any, index: int) -> bool:
    """Whether a request came to /explanations; the frontend says so in a header of its own."""
    return str(context.get_request_header(index, "explain")) == "True"


def _takes_sample(function: Callable[..., Any]) -> bool:
    try:
        needed = [one for one in inspect.signature(function).parameters.values() if one.default is one.empty]
    except ValueError:  # as for `str`: written in C, without a signature
        return False
    return sum(one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD) for one in needed) > 1
