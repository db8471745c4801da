import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marline.loadtest import percentile, slo_met

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


def test_no_latencies_have_no_percentile() -> None:
    with pytest.raises(ValueError, match="no latencies"):
        percentile([], 99)


@pytest.mark.parametrize("over", NEEDED)
def test_an_objective_is_met_from_the_tabled_number_of_requests_on(over: int) -> None:
    for needed, (p, confidence) in zip(NEEDED[over], COLUMNS, strict=True):
        enough = [10.0] * (needed - over) + [np.inf] * over

        assert slo_met(enough, 50, p, confidence) is True
        assert slo_met(enough[1:], 50, p, confidence) is not True


def test_many_slow_requests_miss_the_objective() -> None:
    assert slo_met([10.0] * 90 + [60.0] * 10, 50, 99, 0.95) is False


def test_no_requests_prove_nothing() -> None:
    assert slo_met([], 50, 99, 0.95) is None


def test_a_latency_equal_to_the_objective_is_within() -> None:
    assert slo_met([50.0] * 299, 50, 99, 0.95) is True
