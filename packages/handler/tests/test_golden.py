import copy
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from marline.handler import Pair, difference, read_golden, write_golden

FLOATS = st.floats(-1e6, 1e6, allow_nan=False)
LEAVES = st.none() | st.booleans() | st.integers(-1000, 1000) | FLOATS | st.text(max_size=5)
ANSWERS = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4), max_leaves=10
)


def places(answer: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every leaf."""
    if isinstance(answer, dict | list) and answer:
        items = answer.items() if isinstance(answer, dict) else enumerate(answer)
        return [place for key, value in items for place in places(value, (*path, key))]
    return [path]


@given(ANSWERS)
def test_an_answer_does_not_differ_from_itself(answer: Any) -> None:
    assert None is difference(answer, copy.deepcopy(answer), atol=0, rtol=0)


@given(ANSWERS, LEAVES, st.data())
def test_a_planted_change_is_found_wherever_it_is(answer: Any, planted: Any, data: st.DataObject) -> None:
    box = {"box": copy.deepcopy(answer)}
    *way, last = data.draw(st.sampled_from(places(box)))
    place: Any = box
    for key in way:
        place = place[key]
    before = place[last]
    number = isinstance(before, float) and isinstance(planted, int | float) and not isinstance(planted, bool)
    assume(
        (abs(planted - before) > 1e-3 + 1e-3 * abs(before)) if number else (before, type(before)) != (planted, type(planted))
    )
    assume(number or isinstance(before, bool) or isinstance(planted, bool) or before != planted)  # 1 == 1.0
    place[last] = planted

    found = difference({"box": answer}, box, atol=1e-3, rtol=1e-3)

    assert found is not None
    assert repr(before) in found
    assert repr(planted) in found


@given(FLOATS, FLOATS, st.floats(1e-9, 10), st.floats(1e-9, 1))
def test_numbers_are_close_exactly_when_numpy_says_so(expected: float, got: float, atol: float, rtol: float) -> None:
    assert bool(np.isclose(got, expected, atol=atol, rtol=rtol)) == (difference(expected, got, atol=atol, rtol=rtol) is None)


@given(FLOATS, st.floats(-2, 2), st.floats(1e-3, 1))
def test_numbers_near_the_tolerance_too(expected: float, share: float, tolerance: float) -> None:
    got = expected + share * (tolerance + tolerance * abs(expected))

    close = difference(expected, got, atol=tolerance, rtol=tolerance) is None

    assert bool(np.isclose(got, expected, atol=tolerance, rtol=tolerance)) == close


def test_the_difference_says_where_and_by_how_much_was_allowed() -> None:
    found = difference({"a": [1, {"b": 0.5}]}, {"a": [1, {"b": 0.75}]}, atol=0.1, rtol=0.01)

    assert "answer.a[1].b: expected 0.5, got 0.75 (atol 0.1, rtol 0.01)" == found


def test_whole_numbers_words_and_truth_are_exact() -> None:
    for expected, got in ((3, 3.001), ("a", "b"), (True, 1), (0, False), (None, 0), ([1], [1, 2]), ({"a": 1}, {"b": 1})):
        assert difference(expected, got, atol=1, rtol=1) is not None


@given(st.lists(st.tuples(st.text(), st.binary(), ANSWERS), max_size=3))
@settings(deadline=None)
def test_pairs_come_back_as_they_were_written(tmp_path_factory: Any, rows: list[tuple[str, bytes, Any]]) -> None:
    file = Path(tmp_path_factory.mktemp("golden")) / "golden.json"
    pairs = [Pair(*row) for row in rows]

    write_golden(file, pairs)

    assert pairs == read_golden(file)
