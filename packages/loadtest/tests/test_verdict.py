import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marline.loadtest import early_verdict, percentile, samples_needed, slo_met, verdict

# From measurement.md, section 5: requests over the objective, then the requests needed for each (percentile, confidence).
NEEDED = {
    0: (459, 299, 90, 44),
    1: (662, 473, 130, 64),
    2: (838, 628, 165, 81),
    3: (1001, 773, 198, 97),
    5: (1307, 1049, 259, 127),
    10: (2010, 1693, 398, 197),
    20: (3304, 2902, 656, 325),
    50: (6898, 6323, 1372, 681),
}
COLUMNS = ((99, 0.99), (99, 0.95), (95, 0.99), (90, 0.99))


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=300), st.integers(0, 1000))
def test_percentile_is_the_nearest_rank(latencies: list[float], permille: int) -> None:
    p = permille / 10

    assert float(np.percentile(latencies, p, method="inverted_cdf")) == percentile(latencies, p)


@given(st.lists(st.floats(0, 1e6), min_size=0, max_size=50), st.integers(1, 50), st.integers(0, 100))
def test_lost_requests_are_the_largest(latencies: list[float], lost: int, p: int) -> None:
    largest = [*latencies, *[2e6] * lost]
    expected = float(np.percentile(largest, p, method="inverted_cdf"))

    assert (np.inf if expected == 2e6 else expected) == percentile([*latencies, *[np.inf] * lost], p)


@given(st.lists(st.one_of(st.floats(0, 1e6), st.just(np.inf)), min_size=1, max_size=300), st.floats(0, 100))
def test_percentile_is_numpy_s_of_any_mixture_where_numpy_s_is_a_number(latencies: list[float], p: float) -> None:
    """Numpy interpolates between neighbours with weight 0, and 0 times infinity is NaN; ranks are compared there."""
    with np.errstate(invalid="ignore"):
        expected = float(np.percentile(latencies, p, method="inverted_cdf"))

    if np.isnan(expected):
        ranks = np.argsort(latencies, kind="stable").argsort(kind="stable").astype(float)
        expected = float(np.sort(latencies)[int(np.percentile(ranks, p, method="inverted_cdf"))])
    assert expected == percentile(latencies, p)


def test_no_latencies_have_no_percentile() -> None:
    with pytest.raises(ValueError, match="no latencies"):
        percentile([], 99)


@pytest.mark.parametrize("over", NEEDED)
def test_an_objective_is_met_from_the_tabled_number_of_requests_on(over: int) -> None:
    for needed, (p, confidence) in zip(NEEDED[over], COLUMNS, strict=True):
        enough = [10.0] * (needed - over) + [np.inf] * over

        assert slo_met(enough, 50, p, confidence) is True
        assert slo_met(enough[1:], 50, p, confidence) is not True


@pytest.mark.parametrize("over", NEEDED)
def test_the_number_of_requests_needed_is_the_tabled_one(over: int) -> None:
    assert NEEDED[over] == tuple(samples_needed(p, confidence, over) for p, confidence in COLUMNS)


def test_a_series_is_decided_at_the_tabled_numbers_only() -> None:
    good, bad = [10.0] * 400, [60.0] * 400

    assert (True, 299) == early_verdict(good, 50, 99, 0.95)
    assert (None, 298) == early_verdict(good[:298], 50, 99, 0.95)
    assert (False, 299) == early_verdict(bad, 50, 99, 0.95)
    assert (True, 473) == early_verdict([60.0, *good, *good], 50, 99, 0.95)
    assert (None, 298) == early_verdict(bad[:298], 50, 99, 0.95)  # bad enough, and still nobody looks


def test_early_verdicts_are_seldom_wrong() -> None:
    """Of series whose p99 is at the objective, neither good nor bad, each wrong verdict comes up in at most a few percent."""
    draw = np.random.default_rng(7)
    told = [early_verdict(np.where(draw.random(7000) < 0.01, 60.0, 10.0), 50, 99, 0.99)[0] for _ in range(400)]

    assert told.count(True) < 0.05 * len(told)  # eight looks at 1 % each
    assert told.count(False) < 0.05 * len(told)


def test_slow_requests_in_one_block_leave_undecided_what_scattered_ones_decide() -> None:
    latencies = np.full(6000, 10.0)
    latencies[::200] = 60.0  # half a percent
    together = np.sort(latencies)

    scattered, crowded = (verdict(one, 50, 99, 0.95, 60.0) for one in (latencies, together))

    assert (True, 30, 6000, 10) == (scattered.met, scattered.over, scattered.samples, scattered.blocks)
    assert crowded.met is None
    assert slo_met(together, 50, 99, 0.95) is True
    assert scattered.low < 0.005 < scattered.high < 0.01
    assert crowded.low <= scattered.low
    assert crowded.high > 0.01


def test_a_series_too_short_for_blocks_is_judged_by_the_binomial_rule_alone() -> None:
    found = verdict([50.0] * 400, 60, 99, 0.95, 9.9)  # blocks of 0.99 s, 20 latencies are 1 s

    assert (True, 0) == (found.met, found.blocks)


@given(st.integers(1, 2000), st.data())
def test_the_bounds_agree_with_the_binomial_rule(count: int, data: st.DataObject) -> None:
    over = data.draw(st.integers(0, count))
    latencies = [1e9] * over + [10.0] * (count - over)  # so slow that there are no blocks

    found = verdict(latencies, 50, 99, 0.95, 1e-3)

    assert found.met == slo_met(latencies, 50, 99, 0.95)
    assert found.low <= over / count <= found.high
    assert (found.high <= 0.01) == (found.met is True)
    assert (found.low >= 0.01) == (found.met is False)


def test_many_slow_requests_miss_the_objective() -> None:
    assert slo_met([10.0] * 90 + [60.0] * 10, 50, 99, 0.95) is False


def test_no_requests_prove_nothing() -> None:
    assert slo_met([], 50, 99, 0.95) is None


def test_a_latency_equal_to_the_objective_is_within() -> None:
    assert slo_met([50.0] * 299, 50, 99, 0.95) is True
