from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marline.report import replicas
from marline.report._replicas import plan

rates = st.decimals(min_value="0.1", max_value=10_000, places=2)
shares = st.decimals(min_value=0, max_value="0.95", places=2)


@given(target=rates, rate=rates, headroom=shares)
def test_replicas_are_the_fewest_that_keep_the_headroom(target: Decimal, rate: Decimal, headroom: Decimal) -> None:
    count = replicas(float(target), float(rate), float(headroom))

    assert count * (1 - headroom) * rate >= target
    assert (count - 1) * (1 - headroom) * rate < target


@given(target=rates, rate=rates)
def test_more_headroom_never_takes_fewer_replicas(target: Decimal, rate: Decimal) -> None:
    counts = [replicas(float(target), float(rate), headroom) for headroom in (0.0, 0.3, 0.6)]

    assert sorted(counts) == counts


@pytest.mark.parametrize(("target", "rate", "expected"), [(500, 93.0, 8), (2.1, 3.0, 1), (7.0, 10.0, 1), (7.01, 10.0, 2)])
def test_replicas_are_counted_on_the_numbers_as_written(target: float, rate: float, expected: int) -> None:
    assert expected == replicas(target, rate, 0.3)


def test_the_plan_shows_what_losing_one_replica_does() -> None:
    rows = plan({"rps": 100.0, "slo_met": True}, 130.0, 0.3)["plan"]

    assert [1, 1.5, 2, 3] == [row["factor"] for row in rows]
    assert [2, 3, 4, 6] == [row["replicas"] for row in rows]
    assert [0.65, 0.65, 0.65, 0.65] == [row["busy"] for row in rows]
    assert 1.3 == rows[0]["busy_without_one"]


def test_with_a_spare_the_loss_of_one_leaves_the_headroom() -> None:
    for row in plan({"rps": 93.0, "slo_met": True}, 500.0, 0.3)["plan"]:
        assert row["replicas"] + 1 == row["with_spare"]
        assert row["busy_with_spare"] < row["busy"] <= 0.7
        assert row["target_rps"] / ((row["with_spare"] - 1) * 93.0) == row["busy"]


def test_without_a_target_the_measured_rate_is_planned_for() -> None:
    planned = plan({"rps": 40.0, "slo_met": None}, None, 0.3)

    assert ("measured", [40.0, 60.0, 80.0, 120.0]) == (planned["target_origin"], [row["target_rps"] for row in planned["plan"]])
    assert [2, 3, 3, 5] == [row["replicas"] for row in planned["plan"]]


@pytest.mark.parametrize(
    ("chosen", "reason"),
    [
        ({"rps": 0.0, "slo_met": False}, "no rate was within the SLO"),
        ({"rps": 9.3, "slo_met": False}, "9.3 requests/s were not within the SLO when they were confirmed"),
    ],
)
def test_no_replicas_are_promised_on_a_rate_outside_the_slo(chosen: dict[str, float], reason: str) -> None:
    planned = plan(chosen, 50.0, 0.3)

    assert (reason, [None] * 4) == (planned["reason"], [row["replicas"] for row in planned["plan"]])
