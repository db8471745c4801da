"""Which task a Hugging Face model answers, and through which AutoClass: read off its config, or asked."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import transformers
from transformers.models.auto import modeling_auto

from marline.core import RequestError
from marline.load._source import INPUTS, Input

HEADS = (  # task, AutoClass, and where transformers lists that class's architectures; the first that knows one names its task
    ("text-classification", "AutoModelForSequenceClassification", "SEQUENCE_CLASSIFICATION"),
    ("token-classification", "AutoModelForTokenClassification", "TOKEN_CLASSIFICATION"),
    ("question-answering", "AutoModelForQuestionAnswering", "QUESTION_ANSWERING"),
    ("fill-mask", "AutoModelForMaskedLM", "MASKED_LM"),
    ("automatic-speech-recognition", "AutoModelForCTC", "CTC"),
    ("automatic-speech-recognition", "AutoModelForSpeechSeq2Seq", "SPEECH_SEQ_2_SEQ"),
    ("audio-classification", "AutoModelForAudioClassification", "AUDIO_CLASSIFICATION"),
    ("text-generation", "AutoModelForCausalLM", "CAUSAL_LM"),
    ("text-generation", "AutoModelForSeq2SeqLM", "SEQ_TO_SEQ_CAUSAL_LM"),
    ("image-classification", "AutoModelForImageClassification", "IMAGE_CLASSIFICATION"),
    ("object-detection", "AutoModelForObjectDetection", "OBJECT_DETECTION"),
    ("mask-generation", "AutoModelForMaskGeneration", "MASK_GENERATION"),
    ("image-segmentation", "AutoModelForSemanticSegmentation", "SEMANTIC_SEGMENTATION"),
    ("image-segmentation", "AutoModelForUniversalSegmentation", "UNIVERSAL_SEGMENTATION"),
    ("image-segmentation", "AutoModelForInstanceSegmentation", "INSTANCE_SEGMENTATION"),
    ("image-segmentation", "AutoModelForImageSegmentation", "IMAGE_SEGMENTATION"),
    ("video-classification", "AutoModelForVideoClassification", "VIDEO_CLASSIFICATION"),
    ("feature-extraction", "AutoModel", ""),
    ("image-feature-extraction", "AutoModel", ""),
)
MAIN_INPUTS: dict[str, Input] = {  # a model class's main_input_name
    "input_ids": "text",
    "pixel_values": "image",
    "input_values": "audio",
    "input_features": "audio",
    "pixel_values_videos": "video",
}


@dataclass(frozen=True, slots=True)
class Head:
    """The AutoClass that opens a model, what it answers, and the class of transformers behind it, if it is one."""

    task: str
    auto_class: str
    model_class: str | None


def find_head(source: str, task: str, config: Any, *, custom: bool) -> Head:
    """The head for `task`, or for `auto` the one that the architectures name; RequestError asks where none does."""
    architectures: Sequence[str] = config.architectures or []
    heads = list(_custom(config.auto_map) if custom else _native(config.model_type))
    named = [head for head in heads if head.model_class in architectures] if not custom else heads
    fitting = named if task == "auto" else [head for each in (named, heads) for head in each if head.task == task]
    if fitting:
        return fitting[0]
    known = ", ".join(sorted({head.task for head in heads})) or "none"
    if task == "auto":
        told = f"its architectures, {', '.join(architectures)}, are of no task we know" if architectures else "it names none"
        raise RequestError(f"the task of {source} cannot be inferred: {told}; set load.task=TASK, known for it are {known}")
    raise RequestError(f"load.task={task} does not fit {source} ({config.model_type}); known for it are {known}")


def _native(model_type: str) -> Iterator[Head]:
    for task, auto_class, name in HEADS:
        listed = getattr(modeling_auto, f"MODEL_FOR_{name}_MAPPING_NAMES" if name else "MODEL_MAPPING_NAMES")
        classes = listed.get(model_type, ())
        for model_class in (classes,) if isinstance(classes, str) else classes:
            yield Head(task, auto_class, model_class)


def _custom(auto_map: Mapping[str, str]) -> Iterator[Head]:
    """A repository's own code says itself which AutoClasses open it."""
    for task, auto_class, _ in HEADS:
        if auto_class in auto_map:
            yield Head(task, auto_class, None)


def input_of(head: Head, *, video: bool) -> Input | None:
    """What the head's requests carry; None where own code for features does not say."""
    if head.task in INPUTS:
        return INPUTS[head.task]
    if head.model_class is None:
        return None
    main = MAIN_INPUTS.get(getattr(transformers, head.model_class).main_input_name, "text")
    return "video" if main == "image" and video else main
