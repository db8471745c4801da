"""What all kinds of sources have in common: what they are, what their requests carry, how they write a checkpoint."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from marline.core import LoadConfig, RequestError

Input = Literal["image", "text", "audio", "video", "tensor", "any"]

INPUTS: dict[str, Input] = {
    "audio-classification": "audio",
    "automatic-speech-recognition": "audio",
    "fill-mask": "text",
    "image-classification": "image",
    "image-feature-extraction": "image",
    "image-segmentation": "image",
    "mask-generation": "image",
    "object-detection": "image",
    "question-answering": "text",
    "text-classification": "text",
    "text-generation": "text",
    "token-classification": "text",
    "video-classification": "video",
    "voice-activity-detection": "audio",
}  # feature-extraction is missing: features are made of anything


@dataclass(frozen=True, slots=True, kw_only=True)
class Expects:
    """What a request of one model carries, as far as it is known."""

    input: Input
    sampling_rate: int = 16_000  # Hz; what speech models are trained on
    frames: int = 16  # of one video
    shape: tuple[int, ...] | None = None  # of one tensor, without the batch
    mask: str | None = None  # stands for the word to be guessed
    question: bool = False  # a text comes with a question about it


@dataclass(frozen=True, slots=True)
class Weights:
    """Where the weights of a loaded model came from."""

    kind: str  # published | file | random
    detail: str


@dataclass(frozen=True, slots=True)
class Written:
    """What became known while the checkpoint was written."""

    weights: Weights
    parameters: int | None  # None: nobody but the model's own handler could count them
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One model that was found; `write` makes its checkpoint folder, given sample files that may settle random weights."""

    kind: str  # module | transformers | torchscript | handler
    task: str
    init_kwargs: Mapping[str, Any]
    expects: Expects
    write: Callable[[Path, Sequence[Path]], Written]


def random_weights(seed: int) -> Weights:
    return Weights("random", f"seed {seed}: answers mean nothing, speed does")


def told_task(config: LoadConfig) -> str:
    """The task, where nothing but the user can know it."""
    if config.task == "auto":
        known = ", ".join([*INPUTS, "feature-extraction"])
        raise RequestError(f"load.source={config.source} does not say what it answers; set load.task=TASK, known are {known}")
    return config.task


def only_transformers(config: LoadConfig) -> None:
    """Refuse settings that would have no effect on a source that is not from Hugging Face."""
    settings = {
        "load.device_map": config.device_map is not None,
        "load.offload_folder": config.offload_folder is not None,
        "load.trust_remote_code": config.trust_remote_code,
        "load.torch_dtype": config.torch_dtype not in {"auto", "float32"},
    }
    idle = [name for name, is_set in settings.items() if is_set]
    if idle:
        raise RequestError(f"{', '.join(idle)} has an effect on Hugging Face models only, not on {config.source}; leave it out")
