"""What is chosen, on a server that is a formula and with an archive that is real."""

import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

import marline.tune
from marline.archive import Serving, from_yaml, read_mar, to_yaml
from marline.core import read_config
from marline.deploy import Server
from marline.tune import Point, Setting, Trial
from marline.tune._runner import AGAIN, CONFIRM_AT, STEP_DOWN, Runner
from marline.tune._trial import Bench
from marline.tune._tune import _choose, _open_ended, slo_of

WORDS = ["model=digits_cnn", "tune.batch_sizes=[4,8]", "tune.max_batch_delays_ms=[2]", "tune.steps=6"]
SLO_MS = 50.0
Choose = Callable[[Callable[[Setting], float]], tuple[Any, list[Trial]]]


@dataclass
class FormulaRunner(Runner):
    """Runs every trial on a formula in the place of a server; confirms a share of what the search found."""

    formula: Any = None
    confirmed_share: float = 1.0

    def run(self, archive: Path, setting: Setting, rps: float, purpose: str) -> Trial:
        assert archive.is_file()
        weaker = 1 / self.confirmed_share if purpose == "confirm" else 1.0
        trial: Trial = self.formula.run(setting, rps * weaker, purpose)
        self.trials.append(trial)
        return trial


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    serving = Serving(
        batch_size=1,
        max_batch_delay_ms=100,
        workers=1,
        response_timeout_s=60,
        startup_timeout_s=120,
        job_queue_size=1000,
        device="cpu",
    )
    file = tmp_path / "digits_cnn.mar"
    with zipfile.ZipFile(file, "w") as made:
        made.writestr("model-config.yaml", to_yaml(serving))
        made.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": {"configFile": "model-config.yaml"}}))
    return file


@pytest.fixture
def runner(formula: Any, tmp_path: Path) -> Callable[..., FormulaRunner]:
    def make(capacity: Callable[[Setting], float], share: float = 1.0) -> FormulaRunner:
        config = read_config(WORDS).config
        bench = Bench(cast("Server", None), config.model, [], config.tune, config.loadtest, SLO_MS, tmp_path, tmp_path / "logs")
        return FormulaRunner(bench, expected=10, formula=formula(capacity), confirmed_share=share)

    return make


def test_public_names() -> None:
    exposed = {name for name in vars(marline.tune) if not name.startswith("_")}

    assert marline.tune.__all__ == sorted(exposed)


def test_batching_that_pays_is_chosen_confirmed_and_put_into_the_archive(
    runner: Any, archive: Path, curve: Sequence[Point], tmp_path: Path
) -> None:
    used = runner(lambda setting: 60.0 * setting.batch_size)

    default, chosen, warnings = _choose(used, archive, curve, tmp_path)

    tuned = from_yaml(read_mar(tmp_path / "tuned" / archive.name).config)
    assert Setting(1, 100, 1) == default[0]
    assert Setting(8, 2, 1) == chosen[0]
    assert (8, 2) == (tuned.batch_size, tuned.max_batch_delay_ms)
    assert chosen[1]["rps"] > default[1]["rps"] > 0
    assert [] == warnings
    assert ["confirm"] * 2 == [trial.purpose for trial in used.trials[-2:]]


def test_where_batching_does_not_pay_the_default_is_kept_and_the_reason_told(
    runner: Any, archive: Path, curve: Sequence[Point], tmp_path: Path
) -> None:
    default, chosen, warnings = _choose(runner(lambda setting: 500.0 / setting.batch_size), archive, curve, tmp_path)

    assert default == chosen
    assert Setting(1, 100, 1) == chosen[0]
    assert "batching does not pay here" in warnings[0]
    assert "the default is kept" in warnings[0]


def test_where_nothing_is_within_the_objective_the_remedy_is_named(
    runner: Any, archive: Path, curve: Sequence[Point], tmp_path: Path
) -> None:
    default, chosen, (warning,) = _choose(runner(lambda _: 0.001), archive, curve, tmp_path)

    assert default == chosen
    assert (0.0, False) == (chosen[1]["rps"], chosen[1]["slo_met"])
    assert "Raise tune.slo_ms" in warning


def test_a_winner_that_a_longer_trial_does_not_confirm_is_not_chosen(
    runner: Any, archive: Path, curve: Sequence[Point], tmp_path: Path
) -> None:
    default, chosen, (warning,) = _choose(
        runner(lambda setting: 60.0 * setting.batch_size, share=0.01), archive, curve, tmp_path
    )

    assert default == chosen
    assert "longer trials found no better rate within 50 ms" in warning


def test_a_confirmation_steps_down_a_few_times_and_then_gives_up(runner: Any, archive: Path) -> None:
    used = runner(lambda _: 100.0)

    found = used.confirm(archive, Setting(8, 2, 1), 95.0)  # within the objective are 80 and less
    lost = runner(lambda _: 1.0)

    assert found is not None
    assert pytest.approx(95.0 * CONFIRM_AT * STEP_DOWN) == found.offered_rps
    assert lost.confirm(archive, Setting(8, 2, 1), 95.0) is None
    assert AGAIN == len(lost.trials)


@pytest.mark.parametrize(("t1_ms", "expected"), [(4.0, 50.0), (10.0, 50.0), (30.0, 150.0)])
def test_an_automatic_objective_is_five_times_one_request_and_at_least_50_ms(t1_ms: float, expected: float) -> None:
    curve = [Point(1, 30, t1_ms, t1_ms, 0.0, t1_ms, 0.0)]

    assert {"percentile": 99, "ms": expected, "origin": "auto"} == slo_of(read_config(["model=digits_cnn"]).config, curve)


def test_a_configured_objective_is_taken_as_it_is() -> None:
    config = read_config(["model=digits_cnn", "tune.slo_ms=7.5", "tune.percentile=95"]).config

    assert {"percentile": 95, "ms": 7.5, "origin": "config"} == slo_of(config, [])


def test_a_rate_that_nothing_bounds_is_called_a_lower_bound(runner: Any, archive: Path) -> None:
    used, setting = runner(lambda _: 100.0), Setting(8, 2, 1)

    confirmed = used.confirm(archive, setting, 60.0)
    open_ended = _open_ended(used, "the chosen one", confirmed)
    used.run(archive, setting, 99.0, "search")

    assert [
        "the chosen one may carry more than 51.0 req/s within the objective: no higher rate was seen to miss it"
    ] == open_ended
    assert [] == _open_ended(used, "the chosen one", confirmed)
