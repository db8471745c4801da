"""The one sentence that a tuning run ends with; what was not confirmed, or is not above the noise, is not claimed in it."""

from collections.abc import Mapping
from typing import Any

KEYS = ("batch_size", "max_batch_delay_ms", "workers")
RANDOM = "RANDOM WEIGHTS: answers mean nothing, speed does"


def answer(result: Mapping[str, Any], *, confidence: float, random_weights: bool) -> str:
    """Setting, rate, confidence and gain: `batch_size=16 ... → 410 req/s at p99 ≤ 100 ms (99 % confidence, ...), 2.3 × ...`.

    Where the objective is latency or cost at one rate, that rate and both latencies stand in place of the two rates. `result`
    is what becomes result.json, `confidence` what a verdict was to have (0 to 1). Stamps follow: EMULATED with its time
    scale, RANDOM WEIGHTS.
    """
    chosen, effort = result["chosen"], _effort(result)
    if not chosen["rps"]:
        sure = "was found" if chosen["slo_met"] is False else "could be measured"
        sentences = [f"{_told(chosen)} is kept: no rate within {_slo(result)} {sure} ({effort})."]
    else:
        found, gain = _rate(result) if result["objective"]["name"] == "rate" else _at_rate(result)
        sentences = [f"{_told(chosen)} → {found} ({_confidence(chosen, confidence)}, {effort}), {gain}."]
    accelerator = result["accelerator"]
    if accelerator["kind"] == "emulated":
        sentences.append(f"EMULATED {accelerator['name']}, time scale {accelerator['time_scale']:g}.")
    if random_weights:
        sentences.append(f"{RANDOM}.")
    return " ".join(sentences)


def _rate(result: Mapping[str, Any]) -> tuple[str, str]:
    """What was found, and what it gains, where the highest rate was looked for."""
    return f"{_number(result['chosen']['rps'])} req/s at {_slo(result)}", _gain(result)


def _at_rate(result: Mapping[str, Any]) -> tuple[str, str]:
    """The same where one rate was given: latencies, as the rates are equal."""
    chosen, default, noise = result["chosen"], result["default"], result["noise"]
    name = next((name for limit, name in ((50, "p50"), (95, "p95")) if result["slo"]["percentile"] <= limit), "p99")
    found = (
        f"{name} {_number(chosen[f'{name}_ms'])} ms at {_number(result['objective']['at_rps'])} req/s, within {_slo(result)}"
    )
    if _is_default(result):
        return found, "TorchServe's default: nothing was confirmed to be better"
    if not default["rps"]:
        return found, "which TorchServe's default is not"
    off = f"{_number(noise['tail'])} ×" if noise is not None and noise["tail"] else "not known"
    return (
        found,
        f"TorchServe's default {_number(default[f'{name}_ms'])} ms with workers={default['workers']} (A/A noise {off})",
    )


def _is_default(result: Mapping[str, Any]) -> bool:
    return all(result["chosen"][key] == result["default"][key] for key in KEYS)


def is_above_noise(result: Mapping[str, Any]) -> bool:
    """Whether the gain is larger than what two trials of one configuration differed by; False where either is not known."""
    gain, noise = result["gain"], result["noise"]
    return gain is not None and noise is not None and gain > 1 + noise["rps_floor"]


def _confidence(chosen: Mapping[str, Any], confidence: float) -> str:
    if chosen["slo_met"]:
        return f"{_percent(confidence)} confidence"
    if chosen["slo_met"] is None:
        return f"NOT CONFIRMED: {chosen['samples']:,} requests are too few for {_percent(confidence)} confidence"
    return f"REFUTED by {chosen['samples']:,} requests"


def _effort(result: Mapping[str, Any]) -> str:
    tests = result["load_tests"]
    return f"{tests} load test{'s' * (tests != 1)}, {_duration(result['seconds'])}"


def _gain(result: Mapping[str, Any]) -> str:
    gain, noise, default = (result[key] for key in ("gain", "noise", "default"))
    name = "TorchServe's default"
    floor = "A/A noise not known" if noise is None else f"A/A noise {_percent(noise['rps_floor'])}"
    if _is_default(result):
        return f"{name}: nothing was confirmed to carry more ({floor})"
    if gain is None:
        return f"no gain can be stated: {name} held no rate within the objective"
    times = f"{_number(gain)} × {name}"
    if not is_above_noise(result):
        return f"{times} ({floor}): no gain is claimed"
    sure = "" if default["slo_met"] else ", whose own rate is not confirmed"
    return f"{times}{sure} ({floor})"


def _told(config: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={config[key]}" for key in KEYS)


def _slo(result: Mapping[str, Any]) -> str:
    return f"p{result['slo']['percentile']:g} ≤ {result['slo']['ms']:g} ms"


def _number(value: float | None) -> str:
    """Three figures; a percentile that was lost is infinite."""
    if value is None:
        return "∞"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
