"""Which files hold the weights of a Hugging Face model, by the rule of `load.weights`."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from marline.core import LoadConfig, RequestError, StageError, located
from marline.load._files import WORDS
from marline.load._hub import Place, with_weights
from marline.load._source import Weights, random_weights

SAFE = "model.safetensors"
PICKLED = "pytorch_model.bin"


@dataclass(frozen=True, slots=True)
class Stored:
    """Files of weights, none for random ones."""

    place: Place
    weights: Weights
    files: tuple[Path, ...] = ()
    safe: bool = True  # safetensors, not pickles
    exact: bool = False  # foreign: a key without a place in the model is an error, not another head's

    @property
    def names(self) -> list[str]:
        """The files' names in the source's folder, their index included."""
        names = [file.name for file in self.files]
        return names if names == [SAFE] else [*names, f"{SAFE}.index.json"]


def find_stored(config: LoadConfig, place: Place) -> Stored:
    """The files to take; fetched, complete, and pickles only where they are allowed.

    `auto` takes the source's weights when it has some that can be had and seeded random ones otherwise; the other values
    do what they say or fail.
    """
    if config.weights not in WORDS:
        file = located(config.weights)
        return Stored(place, Weights("file", config.weights), (file,), safe=file.suffix == ".safetensors", exact=True)
    random = Stored(place, random_weights(config.seed))
    if config.weights == "random":
        return _without_rename(config, random)
    kind = next((name for name in (SAFE, PICKLED) if not _names(place, name).isdisjoint(place.files)), None)
    if kind is None and config.weights == "published":
        raise RequestError(f"load.weights=published: {config.source} has no weights; give load.weights=FILE.safetensors")
    if kind is None:
        return _without_rename(config, random)
    if kind == PICKLED and not config.allow_pickle:
        raise RequestError(
            f"{config.source} has pickled weights only ({PICKLED}); ask for safetensors, or set load.allow_pickle=true "
            "to read them with weights_only=True, which runs no code"
        )
    stem, ending = kind.split(".")
    try:
        there = with_weights(place, [f"{stem}*.{ending}"])
    except StageError as error:
        if config.weights == "published":
            raise
        return replace(_without_rename(config, random), weights=Weights("random", f"{random.weights.detail} ({error})"))
    where = f"published with {config.source}" + (", pickled" if kind == PICKLED else "")
    return Stored(there, Weights("published", where), _shards(there, kind), safe=kind == SAFE, exact=bool(config.rename))


def _names(place: Place, kind: str) -> set[str]:
    """What a file of weights, its index and its shards may be called."""
    stem, ending = kind.split(".")
    shards = {name for name in place.files if "/" not in name and name.startswith(f"{stem}-") and name.endswith(f".{ending}")}
    return {kind, f"{kind}.index.json", *shards}


def _shards(place: Place, kind: str) -> tuple[Path, ...]:
    if (place.folder / kind).is_file():
        return (place.folder / kind,)
    index = place.folder / f"{kind}.index.json"
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except FileNotFoundError:
        raise StageError(f"{place.folder} has shards of weights, but no {index.name} that says what is in them") from None
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise StageError(f"{index} is damaged: {error!r}") from None
    outside = [name for name in names if not isinstance(name, str) or Path(name).name != name]
    if outside or not names:
        raise StageError(f"{index} names {outside or 'no file'}; shards are files beside it")
    missing = [name for name in names if not (place.folder / name).is_file()]
    if missing:
        raise StageError(f"{index} names {', '.join(missing)}, which is not there; complete the folder, or fetch it again")
    return tuple(place.folder / name for name in names)


def _without_rename(config: LoadConfig, stored: Stored) -> Stored:
    if config.rename:
        raise RequestError("load.rename has no effect on random weights; it goes with the weights of a file or a folder")
    return stored
