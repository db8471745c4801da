"""A ready TorchScript file: there is no class to subclass, so it passes through."""

import json

from marline.core import Manifest, RequestError, WrapConfig
from marline.wrap._plan import Plan, side_files, untracked, without_place

NOTE = (
    "Finished TorchScript: there is no Python class to subclass, so nothing here reports its use; where it is served from an "
    "archive, the serving handler reports each request."
)


def plan_torchscript(_: str, config: WrapConfig, loaded: Manifest) -> Plan:
    """`model.pt` as it is."""
    if config.components or config.methods:
        raise RequestError("wrap.components and wrap.methods need Python classes; TorchScript is a finished graph")
    checkpoint = loaded.path("checkpoint")
    told = json.loads((checkpoint / "config.json").read_text())
    return Plan(
        facts=untracked(NOTE),
        code={},
        config={**told, "source": without_place(told["source"])},
        copies=side_files(checkpoint),
    )
