"""`python -m marline.loadtest model=NAME loadtest.rps=50`: load the server that `nox -s serve` runs; show what came back.

Here the load's own settings may be said without their section: `rps=50`, `web=true`.
"""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from marline.core import (
    Config,
    LoadtestConfig,
    MarlineError,
    RequestError,
    located,
    project_root,
    read_config,
    read_state,
    write_json,
)
from marline.loadtest import Load, Target, browse, measure, measuring
from marline.loadtest._load import too_few_users
from marline.loadtest._lock import LOCK
from marline.loadtest._measurement import read_phases
from marline.loadtest._replay import own_rate
from marline.loadtest._summary import described, lines, summary, valid

AUTO_RPS = 20.0


def main(words: Sequence[str], lock: Path = LOCK) -> int:
    """Measure, or open locust's page; returns the exit code."""
    try:
        config = read_config([_in_full(word) for word in words]).config
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


def _in_full(word: str) -> str:
    return f"loadtest.{word}" if word.partition("=")[0] in LoadtestConfig.model_fields else word


def requested(told: LoadtestConfig) -> Load:
    """The load that is configured; without a rate it is the recording's own, or 20 requests per second."""
    replay = located(told.replay) if told.replay is not None else None
    auto = own_rate(replay) if replay is not None else AUTO_RPS
    return Load(
        rps=auto if told.rps == "auto" else told.rps,
        seconds=told.seconds,
        warmup_s=told.warmup_s,
        arrivals=told.arrivals,
        seed=told.seed,
        timeout_s=told.timeout_s,
        shape=told.shape,
        replay=replay,
        users=told.users,
    )


def _load(config: Config, state: dict[str, Any], out: Path) -> int:
    told = config.loadtest
    target = Target(url=state["predictions_url"], token=state["token"], token_file=Path(state["token_file"]))
    payloads = [Path(file) for file in state["payloads"]]
    if told.web:
        browse(target, payloads, told.timeout_s, out)
        return 0
    load = requested(told)
    print(f"sending {described(load)} to {target.url} for {load.warmup_s:g} + {load.seconds:g} s", flush=True)
    few = too_few_users(load.users, state.get("batch_size"), state.get("workers"))
    if few is not None:
        print(f"WARNING: {few}", flush=True)
    measured = measure(target, payloads, load, out, html=True, processes=told.processes, expect_workers=told.expect_workers)
    samples = out / "samples.json"
    slo = {"ms": state["slo_ms"], "percentile": config.tune.percentile, "confidence": config.tune.confidence}
    found = summary(load, measured, read_phases(samples, load), slo)
    kept = {"file": "samples.npz", "sha256": measured.save(out / "samples.npz")}
    served = {name: state.get(name) for name in ("model", "run", "version", "archive_sha256", "batch_size", "workers")}
    write_json(out / "summary.json", found | {"url": target.url, "served": served, "samples": kept, "warning": few})
    print("\n".join(lines(found)))
    print(f"raw samples: {out / kept['file']}\n  sha256 {kept['sha256']}")
    print(f"figures: {out / 'summary.json'}\nlocust's report: {out / 'locust.html'}")
    return 0 if valid(found) else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
