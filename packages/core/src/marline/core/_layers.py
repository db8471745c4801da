"""Reads a configuration: default.yaml < models/NAME.yaml < profiles/NAME.yaml < command line.

Keeps where each value came from, refuses every mistake at once, and imports nothing heavy, so that a wrong request is
answered in well under a second.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError

from marline.core._config import Config
from marline.core._errors import RequestError

COMMAND_LINE = "the command line"
ACCELERATORS = ("auto", "cpu", "cuda")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A valid configuration and, for every dotted key, the file (or command line) its value came from."""

    config: Config
    origins: Mapping[str, str]


def project_root() -> Path:
    """The folder that holds `configs/default.yaml`: the current one or the nearest above it."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "configs" / "default.yaml").is_file():
            return folder
    raise RequestError(f"{here} is not inside a marline project: no configs/default.yaml here or above; run this in the clone")


def read_config(words: Sequence[str]) -> Loaded:
    """Merge the layers named by `words` (`model=resnet50 tune.slo_ms=200`) and validate them once.

    Raises RequestError naming every wrong key or value, its origin and what to write instead.
    """
    root = project_root()
    told = _told(words)
    layers = [(f"configs/{name}", _read(root / "configs" / name)) for name in _files(root, told)]
    layers.append((COMMAND_LINE, {**told, **_source_in_place_of_name(told)}))
    try:
        merged = OmegaConf.to_container(OmegaConf.merge(*(OmegaConf.create(values) for _, values in layers)))
    except (OmegaConfBaseException, TypeError) as error:  # a list where a mapping is, or the reverse
        raise RequestError(
            f"{' '.join(words)!r} does not fit configs/default.yaml: {' '.join(str(error).split())[:300]}"
        ) from None
    origins = {key: origin for origin, values in layers for key, _ in flatten(values)}
    try:
        config = Config.model_validate(merged)
    except ValidationError as error:
        raise RequestError("\n".join(_explained(error, merged, origins))) from None
    _known_accelerator(root, config, origins)
    _one_handler(config, origins)
    _safe(config, origins)
    _may_leave(config, origins)
    return Loaded(config, origins)


def known_models(root: Path) -> list[str]:
    """Names one can give as `model=`: one file each in `configs/models/`."""
    return sorted(file.stem for file in (root / "configs" / "models").glob("*.yaml"))


def service_curves(root: Path) -> dict[str, dict[str, Any]]:
    """The published service curves that can be emulated, by key (see `configs/accelerators/`)."""
    files = sorted((root / "configs" / "accelerators").glob("*.yaml"))
    return {curve["key"]: curve for file in files for curve in _read(file)["curves"]}


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and their values, in order: `{"tune": {"slo_ms": 5}}` gives `("tune.slo_ms", 5)`."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _told(words: Sequence[str]) -> dict[str, Any]:
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not value or not re.fullmatch(r"[a-z_]+(\.[a-z_]+)*", key):
            example = _example(key) if key in _known_keys(Config) else "nox -s config -- model=resnet50 lists every key"
            raise RequestError(f"{word!r} from {COMMAND_LINE} is not key=value; {example}")
    try:
        told: Any = OmegaConf.to_container(OmegaConf.from_dotlist(list(words)))
    except Exception as error:  # the value is YAML; yaml and omegaconf each have their own error trees
        raise RequestError(f"{' '.join(words)!r} from {COMMAND_LINE} cannot be read: {error}") from None
    return dict(told)


def _files(root: Path, told: Mapping[str, Any]) -> list[str]:
    model, profile = str(told.get("model", "")), str(told.get("profile", "standard"))
    names = known_models(root)
    if not model:
        raise RequestError(f"no model is named; write model=NAME with one of {', '.join(names)}, or model=torchvision:NAME")
    files = ["default.yaml"]
    if not _is_source(model):
        _one_of("model", model, names, "or a source such as model=torchvision:resnet18")
        files.append(f"models/{model}.yaml")
    profiles = sorted(file.stem for file in (root / "configs" / "profiles").glob("*.yaml"))
    _one_of("profile", profile, profiles, "")
    return [*files, f"profiles/{profile}.yaml"]


def _is_source(model: str) -> bool:
    """Whether `model=` says where the model comes from in place of a name: `hf:ORG/NAME@REVISION`, `./folder`."""
    return ":" in model or model.startswith((".", "/"))


def _source_in_place_of_name(told: Mapping[str, Any]) -> dict[str, Any]:
    """`model=torchvision:resnet18` is the model `torchvision_resnet18` with that source, `./folder` is `local_folder`."""
    model = str(told["model"])
    if not _is_source(model) or not isinstance(told.get("load", {}), Mapping):
        return {}
    kind, _, rest = model.partition("@")[0].partition(":")
    shown = {"python": Path(rest).name, "torchscript": Path(rest).name, "handler": "/".join(Path(rest).parts[-2:])}
    named = f"{kind}:{shown.get(kind, rest)}" if rest else f"local_{Path(model).resolve().name}"
    name = re.sub(r"\W+", "_", named).strip("_")
    return {"model": name, "load": {**told.get("load", {}), "source": model}}


def _read(file: Path) -> dict[str, Any]:
    try:
        values: Any = OmegaConf.to_container(OmegaConf.load(file))
    except Exception as error:  # yaml and omegaconf each have their own error trees; the file's name is what helps
        raise RequestError(f"{file} cannot be read: {error}") from None
    return dict(values)


def _one_of(key: str, value: str, known: Sequence[str], more: str) -> None:
    if value not in known:
        near = get_close_matches(value, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise RequestError(f"{key}={value} is not known; {hint}Known are {', '.join(known)} {more}".rstrip())


def _known_accelerator(root: Path, config: Config, origins: Mapping[str, str]) -> None:
    if config.accelerator in ACCELERATORS:  # without reading all the curves
        return
    known = [*ACCELERATORS, *service_curves(root)]
    if config.accelerator not in known:
        near = get_close_matches(config.accelerator, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        origin = origins["accelerator"]
        raise RequestError(
            f"accelerator = {config.accelerator!r} from {origin} is not known; {hint}Known are {', '.join(known)}"
        )


def _one_handler(config: Config, origins: Mapping[str, str]) -> None:
    """Refuse what would have no effect, or a false one, where the source is a handler from scratch."""
    if not config.load.source.startswith("handler:"):
        return
    source = f"load.source={config.load.source}"
    if config.archive.handler is not None:
        named = f"archive.handler = {config.archive.handler!r} from {origins['archive.handler']}"
        raise RequestError(f"{named} has no effect, because {source} is the handler; leave one of them out")
    if config.archive.explain:
        named = f"archive.explain = true from {origins['archive.explain']}"
        raise RequestError(f"{named} needs an eager model, and {source} brings one that only it knows; leave it out")
    if config.accelerator not in ACCELERATORS:
        raise RequestError(
            f"accelerator = {config.accelerator!r} from {origins['accelerator']} cannot be emulated for {source}: the shared "
            "handler sleeps in place of its forward pass, one from scratch would not; write accelerator=cpu or auto"
        )


def _safe(config: Config, origins: Mapping[str, str]) -> None:
    """Refuse a server without tokens unless it is said, by name, that it is meant; `deploy` looks again before a start."""
    told = config.deploy
    if told.tokens:
        return
    wanted = {"no_tokens": "whoever reaches a port of the server may ask it, and register code with it"}
    if not told.bind.startswith("127."):
        wanted["public_without_tokens"] = f"deploy.bind = {told.bind} from {origins['deploy.bind']} lets the network ask it"
    missing = [name for name in wanted if name not in told.allow_unsafe]
    if missing:
        why = ", and ".join(wanted[name] for name in missing)
        raise RequestError(
            f"deploy.tokens = false from {origins['deploy.tokens']} is unsafe: {why}; write deploy.tokens=true, "
            f"or deploy.allow_unsafe=[{','.join(wanted)}] if that is meant"
        )


def _may_leave(config: Config, origins: Mapping[str, str]) -> None:
    """Refuse at once what `marline.deploy` would refuse after the run: only what can be trusted leaves this machine."""
    unfit = {
        "profile": config.profile == "smoke",
        "accelerator": config.accelerator not in ACCELERATORS,
        "load.weights": config.load.weights == "random",
    }
    found = [f"{key} from {origins[key]}" for key, is_unfit in unfit.items() if is_unfit]
    if config.deploy.target != "local" and found:
        raise RequestError(
            f"deploy.target = {config.deploy.target!r} from {origins['deploy.target']} takes no smoke runs, no emulated ones "
            f"and no random weights: change {', '.join(found)}, or write deploy.target=local"
        )


def _explained(error: ValidationError, merged: Any, origins: Mapping[str, str]) -> list[str]:
    """One line per setting; a setting of several types is refused once, with the reason of the last type that was tried."""
    problems = {_setting(problem["loc"]): dict(problem) for problem in reversed(error.errors())}
    return [_explain(problem, merged, origins) for _, problem in sorted(problems.items())]


def _explain(problem: Mapping[str, Any], merged: Any, origins: Mapping[str, str]) -> str:
    key = _setting(problem["loc"])
    inside = [origin for each, origin in origins.items() if f"{each}.".startswith(f"{key}.")]  # of a mapping, each leaf has one
    origin = inside[-1] if inside else COMMAND_LINE
    if problem["type"] == "extra_forbidden":
        near = get_close_matches(key, _known_keys(Config), n=1)
        return f"{key!r} from {origin} is not a setting" + (f"; did you mean {near[0]!r}?" if near else "")
    if problem["type"] == "missing":
        return f"{key} is not set; {_example(key)}"
    value: Any = merged
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    field = _known_keys(Config).get(key)
    told = f" ({field.description})" if field is not None else ""
    why = str(problem["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    if problem["type"] == "string_pattern_mismatch":  # the description says it better than the regular expression
        why = "not of this form"
    value = re.sub(r"//\S*@", "//***@", repr(value))  # who writes a password into an address need not read it again
    return f"{key} = {value} from {origin} is refused: {why}{told}; {_example(key)}"


def _setting(location: Sequence[Any]) -> str:
    """The dotted key a pydantic location is about, without the branches of a union and list positions behind it."""
    known = _known_keys(Config)
    parts = [str(part) for part in location]
    for end in range(len(parts), 0, -1):
        if ".".join(parts[:end]) in known:
            return ".".join(parts[:end])
    return ".".join(parts)


def _example(key: str) -> str:
    field = _known_keys(Config).get(key)
    return f"write for example {key}={field.examples[0]}" if field is not None and field.examples else f"write {key}=VALUE"


def _known_keys(model: type[BaseModel], prefix: str = "") -> dict[str, Any]:
    keys: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys |= _known_keys(field.annotation, f"{prefix}{name}.")
        else:
            keys[prefix + name] = field
    return keys
