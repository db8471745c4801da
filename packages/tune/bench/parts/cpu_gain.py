"""What tuning gains for a real model on this machine's processor."""

from typing import Any

from packages.handler.bench.parts.figure import figure
from packages.tune.bench.parts.kept import once
from packages.tune.bench.parts.tunings import tuned

MODEL, LEAST = "mobilenet_v3_large", 1.3
SLO_MS = 250  # auto would be 75 ms, which is less than what this kind of shared machine stalls for once in a hundred requests

WORDS = (f"model={MODEL}", "accelerator=cpu", "profile=standard", f"tune.slo_ms={SLO_MS}")


def cpu_gain() -> list[dict[str, Any]]:
    """mobilenet_v3_large, profile=standard: chosen over TorchServe's default within one objective, and the A/A noise."""
    result = once(f"gain-{MODEL}", lambda: {key: value for key, value in _tuned().items() if key != "trials"}, asked=WORDS)
    gain, noise, chosen, default = (result[key] for key in ("gain", "noise", "chosen", "default"))
    floor = "A/A noise not known" if noise is None else f"A/A noise {noise['rps_floor']:.1%} of a rate, p99 {noise['p99']}x"
    note = f"{result['answer']} Default {default['rps']:.1f}/s, p99 {default['p99_ms']} ms; {floor}; {result['seconds']:.0f} s"
    above = noise is not None and gain is not None and gain > 1 + noise["rps_floor"]
    holds = above and gain >= LEAST and chosen["slo_met"] is True
    return [figure(f"{MODEL}: gain over the default", gain, "x", LEAST, holds, chosen["samples"], note)]


def _tuned() -> dict[str, Any]:
    return tuned(*WORDS)
