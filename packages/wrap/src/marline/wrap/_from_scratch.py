"""A handler from scratch: it brings its model itself, so there is no class to subclass, and it passes through."""

from pathlib import Path

from marline.core import Manifest, RequestError, WrapConfig
from marline.wrap._plan import Plan, untracked, without_place

NOTE = (
    "A handler from scratch brings its model itself: there is no Python class to subclass, so nothing here reports its use; in "
    "an archive it reports what it wants to through marline_tracker.py, which lies beside it there."
)


def plan_from_scratch(_: str, config: WrapConfig, loaded: Manifest) -> Plan:
    """What an archive needs beside the handler; the handler itself stays where it is until then."""
    source = loaded.facts["source"]
    if config.components or config.methods or config.push:
        raise RequestError(
            f"wrap.components, wrap.methods and wrap.push need a model; {source} is a handler that brings its own"
        )
    return Plan(
        facts=untracked(NOTE),
        code={},
        config={"source": without_place(source), "task": loaded.facts["task"]},
        foreign=(Path(source.removeprefix("handler:")),),
    )
