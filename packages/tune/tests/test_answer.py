"""The sentence a tuning run ends with, and what it does not claim."""

from typing import Any

import pytest

from marline.tune._answer import answer

DEFAULT = {"batch_size": 1, "max_batch_delay_ms": 100, "workers": 2, "rps": 178.2, "p99_ms": 96.4}
DEFAULT |= {"samples": 7000, "slo_met": True}
CHOSEN = {"batch_size": 16, "max_batch_delay_ms": 2, "workers": 2, "rps": 410.3, "p99_ms": 88.21}
CHOSEN |= {"samples": 16_000, "slo_met": True}
T4 = {"kind": "emulated", "name": "rn50_t4_pytorch_eager_amp", "time_scale": 2.0}
NOTHING = {"rps": 0.0, "slo_met": False}


def result(**changed: Any) -> dict[str, Any]:
    return {
        "slo": {"percentile": 99, "ms": 100, "origin": "config"},
        "accelerator": {"kind": "cpu", "name": "a processor", "time_scale": 1.0},
        "objective": {"name": "rate", "at_rps": None},
        "default": DEFAULT,
        "chosen": CHOSEN,
        "gain": 2.302,
        "noise": {"p50": 1.01, "p99": 1.06, "tail": 1.06, "rps_floor": 0.03, "trials": [1, 2]},
        "load_tests": 5,
        "load_seconds": 190.0,
        "seconds": 241.0,
    } | changed


def said(*, random_weights: bool = False, **changed: Any) -> str:
    return answer(result(**changed), confidence=0.99, random_weights=random_weights)


def test_a_confirmed_choice_is_one_sentence() -> None:
    assert (
        "batch_size=16 max_batch_delay_ms=2 workers=2 → 410 req/s at p99 ≤ 100 ms (99 % confidence, 5 load tests, 4 min), "
        "2.3 × TorchServe's default (A/A noise 3 %)."
    ) == said()


def test_an_emulated_run_with_random_weights_says_both() -> None:
    assert said(accelerator=T4, random_weights=True).endswith(
        " EMULATED rn50_t4_pytorch_eager_amp, time scale 2. RANDOM WEIGHTS: answers mean nothing, speed does."
    )


@pytest.mark.parametrize(
    ("met", "words"),
    [
        (None, "(NOT CONFIRMED: 120 requests are too few for 99 % confidence, 5 load tests, 4 min)"),
        (False, "(REFUTED by 120 requests, 5 load tests, 4 min)"),
    ],
)
def test_a_rate_that_is_not_confirmed_is_not_called_so(met: bool | None, words: str) -> None:
    assert words in said(chosen=CHOSEN | {"slo_met": met, "samples": 120})


def test_a_gain_that_is_not_above_the_noise_is_not_claimed() -> None:
    assert said(gain=1.02).endswith("1.02 × TorchServe's default (A/A noise 3 %): no gain is claimed.")
    assert said(noise=None).endswith("2.3 × TorchServe's default (A/A noise not known): no gain is claimed.")


def test_a_gain_over_a_rate_that_is_not_confirmed_says_so() -> None:
    default = DEFAULT | {"slo_met": None}

    assert said(default=default).endswith("2.3 × TorchServe's default, whose own rate is not confirmed (A/A noise 3 %).")


def test_a_default_that_is_kept_has_no_gain() -> None:
    sentence = said(chosen=DEFAULT, gain=1.0)

    assert sentence.startswith("batch_size=1 max_batch_delay_ms=100 workers=2 → 178 req/s at p99 ≤ 100 ms")
    assert sentence.endswith("TorchServe's default: nothing was confirmed to carry more (A/A noise 3 %).")
    assert "×" not in sentence


def test_a_default_that_held_no_rate_gives_no_gain() -> None:
    sentence = said(default=DEFAULT | NOTHING, gain=None)

    assert sentence.endswith("no gain can be stated: TorchServe's default held no rate within the objective.")


@pytest.mark.parametrize(("met", "why"), [(False, "was found"), (None, "could be measured")])
def test_where_no_rate_is_within_the_objective_none_is_promised(met: bool | None, why: str) -> None:
    nothing = DEFAULT | {"rps": 0.0, "slo_met": met}

    sentence = said(default=nothing, chosen=nothing, gain=None, load_tests=1, seconds=52.4)

    kept = "batch_size=1 max_batch_delay_ms=100 workers=2 is kept"
    assert f"{kept}: no rate within p99 ≤ 100 ms {why} (1 load test, 52 s)." == sentence


def test_at_one_rate_latencies_are_compared() -> None:
    at: dict[str, Any] = {"objective": {"name": "latency", "at_rps": 170.0}, "gain": 1.0}
    found = "batch_size=16 max_batch_delay_ms=2 workers=2 → p99 88.2 ms at 170 req/s, within p99 ≤ 100 ms (99 % confidence, "

    assert said(**at) == f"{found}5 load tests, 4 min), TorchServe's default 96.4 ms with workers=2 (A/A noise 1.06 ×)."
    assert said(**at, default=DEFAULT | NOTHING).endswith("which TorchServe's default is not.")
    assert said(**at, chosen=DEFAULT).endswith("TorchServe's default: nothing was confirmed to be better.")
    assert said(**at, noise=None).endswith("(A/A noise not known).")
