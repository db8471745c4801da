"""Hugging Face sources, `hf:ORG/NAME@REVISION`, a folder, or one inside a package: what is there, and what it expects."""

import json
from collections.abc import Mapping
from difflib import get_close_matches
from functools import partial
from typing import Any

from transformers import CONFIG_MAPPING, AutoConfig

from marline.core import LoadConfig, RequestError, StageError
from marline.load._checkpoint import Found, write_checkpoint
from marline.load._head import Head, find_head, input_of
from marline.load._hub import Place, find_place
from marline.load._processors import code_files, opened
from marline.load._source import Expects, Input, Source

PROCESSORS: dict[Input, tuple[str, ...]] = {  # any of these turns a request into tensors
    "text": ("AutoTokenizer",),
    "audio": ("AutoFeatureExtractor",),
    "image": ("AutoImageProcessor",),
    "video": ("AutoVideoProcessor", "AutoImageProcessor"),
}


def from_transformers(config: LoadConfig) -> Source:
    """The model of a repository or folder, opened by its config; weights are not touched yet."""
    if config.offload_folder is not None and config.device_map is None:
        raise RequestError("load.offload_folder has no effect without load.device_map")
    place = find_place(config)
    code = code_files(place) if config.trust_remote_code else []
    own_code = _own_code(config, place)
    told = _config(config, place, own_code=own_code)
    head = find_head(config.source, config.task, told, custom=own_code)
    processors = opened(place, trust=config.trust_remote_code)
    expects = _expects(config, told, head, processors)
    image_features = (head.task, config.task, expects.input) == ("feature-extraction", "auto", "image")
    return Source(
        kind="transformers",
        task="image-feature-extraction" if image_features else head.task,
        init_kwargs=config.init_kwargs,
        expects=expects,
        write=partial(write_checkpoint, Found(config, place, told, head, code, own_code)),
    )


def _own_code(config: LoadConfig, place: Place) -> bool:
    """Whether the model's own code is run; RequestError where it cannot do without and nobody trusts it."""
    try:
        content: Any = json.loads((place.folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise RequestError(f"config.json of {config.source} is no JSON: {error}") from None
    if not isinstance(content, dict):
        raise RequestError(f"config.json of {config.source} is no JSON object, so it is no model of transformers")
    known = content.get("model_type")
    if "auto_map" in content and (config.trust_remote_code or known in CONFIG_MAPPING):
        return config.trust_remote_code
    if "auto_map" in content:
        raise RequestError(
            f"{config.source} runs code of its own; read it, then set load.trust_remote_code=true with a local folder, "
            "or with load.source=hf:ORG/NAME@COMMIT (40 hex digits)"
        )
    if known not in CONFIG_MAPPING:
        near = get_close_matches(str(known), list(CONFIG_MAPPING.keys()), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise RequestError(f"config.json of {config.source} has model_type {known!r}, which transformers does not know{hint}")
    return False


def _config(config: LoadConfig, place: Place, *, own_code: bool) -> Any:
    """The source's config with `load.init_kwargs` laid over it."""
    try:
        told, idle = AutoConfig.from_pretrained(
            str(place.folder),
            trust_remote_code=own_code,
            local_files_only=True,
            return_unused_kwargs=True,
            **config.init_kwargs,
        )
    except Exception as error:  # foreign code, and foreign values in config.json
        raise StageError(f"config.json of {config.source} cannot be opened: {' '.join(str(error).split())[:300]}") from error
    unknown = sorted(idle.keys() & config.init_kwargs.keys())
    if unknown:
        raise RequestError(f"load.init_kwargs: the config of {config.source} ({told.model_type}) has no {', '.join(unknown)}")
    if not own_code and hasattr(told, "auto_map"):
        del told.auto_map  # the class of transformers is taken, and the code stays behind
    return told


def _expects(config: LoadConfig, told: Any, head: Head, processors: Mapping[str, Any]) -> Expects:
    video = "AutoVideoProcessor" in processors or hasattr(told, "num_frames")
    named = input_of(head, video=video)
    found = [kind for kind, names in PROCESSORS.items() if not processors.keys().isdisjoint(names)]
    kind: Input = named or (found[0] if found else "tensor")
    if kind != "tensor" and kind not in found and config.samples is None:
        wanted = " or ".join(name.removeprefix("Auto") for name in PROCESSORS[kind])
        raise RequestError(
            f"{config.source} takes {kind}, and has no files of a {wanted} that would turn it into tensors; put them into "
            "the folder, or give load.samples=FOLDER with .json requests for a handler of your own"
        )
    return Expects(
        input=kind,
        sampling_rate=getattr(processors.get("AutoFeatureExtractor"), "sampling_rate", Expects(input=kind).sampling_rate),
        frames=getattr(told, "num_frames", Expects(input=kind).frames),
        mask=getattr(processors.get("AutoTokenizer"), "mask_token", None) if head.task == "fill-mask" else None,
        question=head.task == "question-answering",
    )
