"""`python -m marline.loadtest model=NAME loadtest.rps=50`: load the server that `nox -s serve` runs; show what came back."""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from marline.core import Config, MarlineError, RequestError, project_root, read_config, read_state
from marline.loadtest import Load, Measurement, Target, browse, invalid_reason, measure, measuring, percentile
from marline.loadtest._lock import LOCK


def main(words: Sequence[str], lock: Path = LOCK) -> int:
    """Measure, or open locust's page; returns the exit code."""
    try:
        config = read_config(words).config
        state = read_state(config.model)
        if state is None:
            raise RequestError(f"no server of {config.model} is running; start one with nox -s serve -- model={config.model}")
        out = project_root() / config.artifacts / config.model / "loadtests" / f"{datetime.now(UTC):%Y%m%d-%H%M%S-%f}"
        with measuring(f"a load test of {config.model}", lock=lock):
            return _load(config, state, out)
    except MarlineError as error:
        print(f"loadtest: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("loadtest: stopped before its end; nothing was judged", file=sys.stderr)
        return 1


def _load(config: Config, state: dict[str, Any], out: Path) -> int:
    told = config.loadtest
    target = Target(url=state["predictions_url"], token=state["token"], token_file=Path(state["token_file"]))
    payloads = [Path(file) for file in state["payloads"]]
    if told.web:
        browse(target, payloads, told.timeout_s, out)
        return 0
    load = Load(
        rps=told.rps,
        seconds=told.seconds,
        warmup_s=told.warmup_s,
        arrivals=told.arrivals,
        seed=told.seed,
        timeout_s=told.timeout_s,
    )
    print(f"sending {load.rps:g} requests/s ({load.arrivals}) to {target.url} for {load.warmup_s:g} + {load.seconds:g} s")
    measurement = measure(target, payloads, load, out, html=True)
    reason = invalid_reason(measurement, load, state["slo_ms"])
    _show(measurement, state["slo_ms"], reason)
    print(f"raw samples: {out / 'samples.json'}\nlocust's report: {out / 'locust.html'}")
    return 0 if reason is None else 1


def _show(measurement: Measurement, slo_ms: float | None, reason: str | None) -> None:
    count, lost = measurement.status.size, sum(measurement.errors.values())
    rows = [
        ("offered", f"{measurement.offered_rps:.1f} requests/s, {count} requests in {measurement.seconds:g} s"),
        ("answered 200", f"{count - lost} ({(count - lost) / count:.1%})"),
        *[(error, str(times)) for error, times in measurement.errors.items()],
        ("latency from due", _percentiles(measurement.latencies_ms, count)),
        ("latency from sent", _percentiles(measurement.service_ms, count)),
        ("sender", f"lag p99 {percentile(measurement.lag_ms, 99):.2f} ms, {measurement.generator_cpu:.0%} of a core"),
        ("in flight", f"{measurement.mean_in_flight:.2f} on average"),
        ("valid", "yes" if reason is None else f"NO: {reason}"),
    ]
    if slo_ms is not None:
        within = float((measurement.latencies_ms <= slo_ms).mean())
        rows.insert(-1, (f"within {slo_ms:g} ms", f"{within:.2%} of the requests"))
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        print(f"  {name:<{width}}  {text}")


def _percentiles(latencies_ms: Any, count: int) -> str:
    figures = ", ".join(f"p{p} {percentile(latencies_ms, p):.1f}" for p in (50, 95, 99))
    return f"{figures} ms over {count} samples"


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
