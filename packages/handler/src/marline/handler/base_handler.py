"""The shared base handler; it goes into every archive and needs only TorchServe, torch and Pillow there.

A model's own file says what is particular to it, in functions that see one sample at a time:

    from base_handler import handler_factory
    handler = handler_factory(init_function, preprocess_function=preprocess, postprocess_function=postprocess)

`request_decoding.py` says what a preprocess function receives. It returns one tensor, or a mapping of names to tensors in
the order of the model's arguments; `collation.py` says how a batch is made of them. A postprocess function receives one row
of the model's output, on the CPU, and the sample it answers where it takes two arguments; it returns something JSON can
express.

One bad sample never fails its neighbours: it gets its own 400 (what was sent is wrong) or 500 (our function raised).
"""

import base64
import fcntl
import inspect
import json
import logging
import os
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from collation import Collate, Sample, collate, plain, row, tensors
from eager_model import load_eager
from emulated_device import EmulatedDevice
from graph_file import from_graph, load_graph, to_graph
from request_decoding import BadRequestError, decode
from ts.torch_handler.base_handler import BaseHandler

try:  # beside this file in an archive; an archive made by hand may leave it out
    from marline_tracker import Tracker, enabled, read_settings
except ImportError:
    Tracker = None

logger = logging.getLogger(__name__)

SMALL_S, WORTH = 0.005, 1.2  # a network this quick keeps all threads only where they are this much faster than one
BATCH_LOG = "MARLINE_BATCH_LOG"  # a folder; every worker appends one line per batch to <pid>.csv in it


@dataclass(frozen=True)
class Functions:
    """What is particular to one model."""

    init: Callable[..., torch.nn.Module] | None
    preprocess: Callable[[Any], Any]
    postprocess: Callable[..., Any]
    install_packages: Callable[[], None] | None
    unpack_dependencies: Callable[[], None] | None
    init_args: Sequence[Any]
    init_kwargs: Mapping[str, Any]
    collate: Collate


def handler_factory(
    init_function: Callable[..., torch.nn.Module] | None = None,
    preprocess_function: Callable[[Any], Any] = lambda data: data,
    postprocess_function: Callable[..., Any] = lambda output: output,
    install_packages: Callable[[], None] | None = None,
    unpack_dependencies: Callable[[], None] | None = None,
    *args: Any,
    collate_function: Collate = collate,
    **init_kwargs: Any,
) -> type["SharedHandler"]:
    """Make the handler class of one model; further arguments go to `init_function`.

    `collate_function` makes the model's arguments of a list of samples, `collation.collate` where nothing is said.

    TorchServe takes the one class it finds defined in the handler's module, so the class is moved into the caller's.
    """
    functions = Functions(
        init_function,
        preprocess_function,
        postprocess_function,
        install_packages,
        unpack_dependencies,
        args,
        init_kwargs,
        collate_function,
    )
    module = sys._getframe(1).f_globals["__name__"]  # noqa: SLF001 - the documented way to know one's caller
    return type("Handler", (SharedHandler,), {"functions": functions, "__module__": module})


class SharedHandler(BaseHandler):  # type: ignore[misc]  # TorchServe has no types
    """Loads the model, answers batches sample by sample, and says how long each batch took."""

    functions: Functions
    device = torch.device("cpu")
    tracker: Any = None
    batch_log: Any = None
    emulation: EmulatedDevice | None = None
    told: Mapping[str, Any] = {}  # what the exported file says of itself
    example: tuple[Sample, Any] | None = None
    error: Exception | None = None  # the newest, for whoever runs a handler outside a server

    def initialize(self, context: Any) -> None:
        """Called once by TorchServe in each worker; whatever it raises ends the deployment."""
        config = context.model_yaml_config or {}
        folder = Path(context.system_properties["model_dir"])
        gpu = context.system_properties.get("gpu_id")
        on_gpu = torch.cuda.is_available() and gpu is not None
        self.context = context
        self.device = torch.device(f"cuda:{gpu}" if on_gpu else "cpu")
        _share_the_machine(config, self.device)
        _prepare_folder(folder, config.get("system") or {}, self.functions)
        self.model, self.told = _load_model(
            folder, context.manifest["model"].get("serializedFile"), self.functions, self.device
        )
        self.tracker = _tracker(folder)
        self.batch_log = _batch_log()
        self.emulation = EmulatedDevice.read()
        self.example = self._example(folder)
        batch_size = int(context.system_properties.get("batch_size") or 1)
        self._warm_up(batch_size)
        self._settle_threads(batch_size)
        self.initialized = True

    def handle(self, data: Sequence[Mapping[str, Any]], context: Any) -> list[str]:
        """Answer one batch: exactly one JSON text per request, in order."""
        began = time.monotonic()
        answers: list[str] = [""] * len(data)
        samples: dict[int, Sample] = {}
        for index, request in enumerate(data):
            with self._own_error(index, answers, context):
                samples[index] = self.sample(request)
        preprocessed = time.monotonic()
        outputs = self._outputs(samples, answers, context)
        inferred = time.monotonic()
        for index, output in outputs.items():
            with self._own_error(index, answers, context):
                answer = {"output": plain(self._postprocess(output, samples[index]))}
                answers[index] = json.dumps(answer, separators=(",", ":"), allow_nan=False)
            context.set_response_content_type(index, "application/json")
        self._account(len(samples), began, preprocessed, inferred)
        return answers

    def inference(self, data: Sequence[Sample], *_: Any, **__: Any) -> list[Any]:
        """Run the samples as one batch; one output per sample, on the CPU."""
        if self.emulation is not None and self.example is not None:
            self.emulation.spend(len(data))
            return [row(self.example[1], 0)] * len(data)
        output = self._forward(data)
        return [row(output, index) for index in range(len(data))]

    def _forward(self, samples: Sequence[Sample]) -> Any:
        with torch.inference_mode():
            return from_graph(self.model(*to_graph(self.functions.collate(samples), self.device, self.told)))

    def _outputs(self, samples: Mapping[int, Sample], answers: list[str], context: Any) -> dict[int, Any]:
        """The outputs of all samples as one batch; where the model refuses the batch, of each that it does not refuse alone."""
        outputs: dict[int, Any] = {}
        if len(samples) > 1:
            try:
                return dict(zip(samples, self.inference(list(samples.values())), strict=True))
            except (MemoryError, torch.OutOfMemoryError):
                raise
            except Exception:  # the model is anyone's code; which sample it cannot take is found out below
                logger.warning("a batch of %d failed; its samples are tried one by one", len(samples), exc_info=True)
        for index, sample in samples.items():
            with self._own_error(index, answers, context):
                outputs[index] = self.inference([sample])[0]
        return outputs

    def sample(self, request: Mapping[str, Any]) -> Sample:
        """What the model gets for one request; BadRequestError where the request cannot be understood."""
        sample = self.functions.preprocess(decode(request))
        if isinstance(sample, Mapping) and all(isinstance(value, torch.Tensor) for value in sample.values()):
            return sample
        if not isinstance(sample, torch.Tensor):
            raise BadRequestError(f"expected an image or a list of numbers, got {type(sample).__name__}")
        expected = tensors(self.example[0])[0].shape if self.example is not None else sample.shape
        if sample.shape != expected and self.functions.collate is collate:
            raise BadRequestError(f"expected shape {list(expected)}, got {list(sample.shape)}")
        return sample

    def _postprocess(self, output: Any, sample: Sample) -> Any:
        function = self.functions.postprocess
        return function(output, sample) if len(inspect.signature(function).parameters) > 1 else function(output)

    @contextmanager
    def _own_error(self, index: int, answers: list[str], context: Any) -> Iterator[None]:
        try:
            yield
        except (MemoryError, torch.OutOfMemoryError):
            raise  # TorchServe answers 507; a smaller batch is the operator's decision
        except BadRequestError as error:
            self.error = error
            code, phrase, kind, text = 400, "Bad Request", "BadRequest", str(error)
        except Exception as error:  # whatever a model's own function raises is this sample's failure, not the batch's
            self.error = error
            logger.exception("sample %d of a batch failed", index)
            code, phrase, kind, text = 500, "Internal Server Error", "HandlerError", f"{type(error).__name__} in the handler"
        else:
            return
        context.set_response_status(code=code, phrase=phrase, idx=index)
        context.set_response_content_type(index, "application/json")
        answers[index] = json.dumps({"code": code, "type": kind, "message": text})

    def _example(self, folder: Path) -> tuple[Sample, Any] | None:
        """One preprocessed sample and the model's output for it, from the golden pairs that travel in the archive."""
        file = folder / "golden.json"
        if not file.is_file():
            return None
        pair = json.loads(file.read_text())["pairs"][0]
        sample = self.sample({"body": base64.b64decode(pair["request"])})
        return sample, self._forward([sample])

    def _warm_up(self, batch_size: int) -> None:
        """Run every power of two up to the batch size twice: TorchScript optimises a shape in its first two runs."""
        if self.example is None or self.emulation is not None:
            return
        size = 1
        while size < 2 * batch_size:
            for _ in range(2):
                self.inference([self.example[0]] * min(size, batch_size))
            size *= 2

    def _settle_threads(self, batch_size: int) -> None:
        """Keep one thread unless more are worth it: a small network loses more at OpenMP's barriers than it gains.

        With a load generator on the same two cores, digits_cnn at batch size 8 had a p99 of 33 ms on two threads, 14 on one.
        """
        many = torch.get_num_threads()
        if many == 1 or self.example is None or self.emulation is not None or self.device.type != "cpu":
            return
        if self._quickest_s(1) > SMALL_S:
            return
        fast_s = self._quickest_s(batch_size)
        torch.set_num_threads(1)
        if self._quickest_s(batch_size) > WORTH * fast_s:
            torch.set_num_threads(many)
        logger.info("%d of %d threads at batch size %d", torch.get_num_threads(), many, batch_size)

    def _quickest_s(self, batch_size: int) -> float:
        assert self.example is not None
        seconds = []
        for _ in range(5):
            began = time.monotonic()
            self.inference([self.example[0]] * batch_size)
            seconds.append(time.monotonic() - began)
        return min(seconds)

    def _account(self, size: int, began: float, preprocessed: float, inferred: float) -> None:
        ended = time.monotonic()
        if self.batch_log is not None:
            stages = (preprocessed - began, inferred - preprocessed, ended - inferred)
            print(f"{ended:.6f},{size}," + ",".join(f"{stage * 1e3:.3f}" for stage in stages), file=self.batch_log)
        if self.tracker is not None:
            for _ in range(size):
                self.tracker.report("predict", "success", ended - began)


def _share_the_machine(config: Mapping[str, Any], device: torch.device) -> None:
    """Threads are cores / workers: TorchServe lets every worker use all cores. GPU memory is capped on request."""
    workers = max(1, int(config.get("maxWorkers") or 1))
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // workers))
    limit_mb = (config.get("system") or {}).get("maxGPUMemory")
    if limit_mb and device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit_mb * 2**20 / total), device)


def _prepare_folder(folder: Path, system: Mapping[str, Any], functions: Functions) -> None:
    """Unpack extra files and run the model's two hooks, once per unpacked archive, whichever worker comes first."""
    done = folder / ".marline-prepared"
    with (folder / ".marline-lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if done.exists():
            return
        if functions.install_packages is not None:
            functions.install_packages()
        packed = folder / Path(system.get("extraFiles") or "").name
        if packed.is_file():  # not there where it was unpacked when the archive was built
            with tarfile.open(packed) as extra:
                extra.extractall(folder, filter="data")  # refuses what leaves the folder, links out of it, devices
        if functions.unpack_dependencies is not None:
            functions.unpack_dependencies()
        done.touch()


def _load_model(folder: Path, name: str | None, functions: Functions, device: torch.device) -> tuple[Any, Mapping[str, Any]]:
    """The eager model where the archive carries one, else TorchScript, else a state dict.

    An empty or absent file means that the init function brings its weights.
    """
    eager = load_eager(folder)
    if eager is not None:
        return eager.to(device), {}
    file = folder / name if name else None
    weights = None
    if file is not None and file.is_file() and file.stat().st_size:
        try:
            graph, told = load_graph(file, device)
        except RuntimeError as error:
            if functions.init is None:
                raise RuntimeError(f"{name} is not TorchScript and the handler has no init_function: {error}") from None
            weights = torch.load(file, map_location="cpu", weights_only=True)
        else:
            return graph, told
    if functions.init is None:
        raise RuntimeError("the archive has no weights and the handler has no init_function")
    model = functions.init(*functions.init_args, **functions.init_kwargs)
    if weights is not None:
        model.load_state_dict(weights)
    return model.to(device).eval(), {}


def _tracker(folder: Path) -> Any:
    file = folder / "tracker.json"
    if Tracker is None or not file.is_file():
        return None
    settings = read_settings(file)
    return Tracker(settings) if enabled(settings, server=True) else None


def _batch_log() -> Any:
    folder = os.environ.get(BATCH_LOG)
    return (Path(folder) / f"{os.getpid()}.csv").open("a", buffering=1) if folder else None
