"""Numbers in words: sensible digits with their units, and the stamps no reader may miss."""

import math
from typing import Any

RANDOM = "RANDOM WEIGHTS: answers mean nothing, speed does"
MET = {True: "met", False: "not met", None: "undecided"}
SIGNS = {True: "●", False: "○", None: "◐"}


def number(value: float | None, digits: int = 3) -> str:
    """Three significant digits, never an exponent, thousands separated: 7.31, 93.4, 183, 12,400."""
    if value is None:
        return "–"
    if value == 0 or isinstance(value, int):
        return f"{value:,.0f}"
    shown = float(f"{value:.{digits - 1}e}")  # rounded first: 9.996 has one digit less after it
    return f"{shown:,.{max(0, digits - 1 - math.floor(math.log10(abs(shown))))}f}"


def milliseconds(value: float | None, samples: int) -> str:
    """A percentile in ms; ∞ where more requests were lost than the percentile allows, a dash where nothing was measured."""
    if value is None:
        return "∞" if samples else "–"
    return number(value)


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min 20 s`, `1 h 5 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def is_reported(report: dict[str, Any]) -> bool:
    """Whether the handler reported its batches, so that the stages of the service curve are known."""
    return all(point["inference_ms"] is not None for point in report["curve"])


def percent(share: float | None) -> str:
    """A share of 1 as a whole percentage."""
    return "–" if share is None else f"{100 * share:.0f} %"


def slo_words(slo: dict[str, Any]) -> str:
    """`p99 ≤ 182.5 ms`: an objective is quoted as it was set, not rounded like a measurement."""
    return f"p{slo['percentile']:g} ≤ {slo['ms']:,g} ms"


def judged_percentile(report: dict[str, Any]) -> str:
    """The measured percentile that stands for the SLO's own: the next one up, so that nothing looks too good."""
    asked = report["slo"]["percentile"]
    return next((key for limit, key in ((50, "p50_ms"), (95, "p95_ms")) if asked <= limit), "p99_ms")


def accelerator_words(accelerator: dict[str, Any]) -> str:
    """What ran the model, with the stamp an emulated one must wear."""
    if accelerator["kind"] == "emulated":
        return f"EMULATED {accelerator['name']} (time scale {accelerator['time_scale']:g}×)"
    return str(accelerator["name"] or accelerator["kind"])


def marks(weights: dict[str, Any], accelerator: dict[str, Any]) -> list[str]:
    """What must be read before any number: random weights, an emulated accelerator."""
    found = [RANDOM] if weights["kind"] == "random" else []
    if accelerator["kind"] == "emulated":
        slept = "the forward pass slept along a published service curve, no such device ran"
        found.append(f"EMULATED {accelerator['name']}, time scale {accelerator['time_scale']:g}×: {slept}")
    return found


def configuration(config: dict[str, Any]) -> str:
    """`batchSize 8, maxBatchDelay 5 ms, 1 worker`."""
    workers = f"{config['workers']} worker{'s' * (config['workers'] != 1)}"
    return f"batchSize {config['batch_size']}, maxBatchDelay {config['max_batch_delay_ms']} ms, {workers}"
