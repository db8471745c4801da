"""What runs the model: the CPU, a GPU, or an emulated device that sleeps along a published service curve."""

from pathlib import Path
from typing import Literal

from marline.core._config import Config, Section
from marline.core._digest import machine
from marline.core._errors import RequestError
from marline.core._layers import service_curves


class Accelerator(Section):
    """One accelerator; of an emulated one `points` are [batch, milliseconds per batch], `jitter` [batch, p99 / mean].

    `stalls` is for invented ones: the share of batches that take so many times as long.
    """

    kind: Literal["cpu", "cuda", "emulated"]
    name: str
    time_scale: float
    points: tuple[tuple[float, float], ...] = ()
    jitter: tuple[tuple[float, float], ...] = ()
    stalls: tuple[float, float] | None = None

    @property
    def device(self) -> str:
        """TorchServe's word for where a worker runs: emulation needs no GPU."""
        return "gpu" if self.kind == "cuda" else "cpu"


def accelerator_of(config: Config, root: Path) -> Accelerator:
    """The accelerator a configuration asks for; RequestError where it asks for a GPU this machine has not got."""
    gpus = machine()["gpus"]
    name = config.accelerator if config.accelerator != "auto" else "cuda" if gpus else "cpu"
    if name == "cuda" and not gpus:
        raise RequestError("accelerator=cuda: no NVIDIA driver shows a GPU on this machine; write accelerator=cpu or auto")
    if name == "cuda":
        return Accelerator(kind="cuda", name=gpus[0], time_scale=1.0)
    if name == "cpu":
        return Accelerator(kind="cpu", name=machine()["processor"], time_scale=1.0)
    curve = service_curves(root)[name]
    jitter = tuple((one["batch"], one["p99_over_mean"]) for one in curve.get("jitter", ()) if "p99_over_mean" in one)
    stalls = (curve["stalls"]["share"], curve["stalls"]["times"]) if "stalls" in curve else None
    return Accelerator(
        kind="emulated", name=name, time_scale=config.time_scale, points=curve["points"], jitter=jitter, stalls=stalls
    )
