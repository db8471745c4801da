import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marline.core import METRICS, RequestError, Rule, parse_rules, read_config

NUMBERS = st.floats(min_value=0, max_value=1e12, allow_subnormal=False).map(lambda one: float(f"{one:g}"))
RULES = st.builds(
    Rule, st.sampled_from(sorted(METRICS)), st.sampled_from(["<", "<=", ">", ">="]), NUMBERS, relative=st.booleans()
)


@given(st.lists(RULES, min_size=1, max_size=5), st.data())
def test_what_is_written_is_what_is_read(rules: list[Rule], data: Any) -> None:
    joints = [data.draw(st.sampled_from([" or ", ";", " ; "])) for _ in rules[1:]]
    text = "".join(f"{joint}{rule}" for joint, rule in zip(["", *joints], rules, strict=True))

    assert tuple(rules) == parse_rules(text)
    assert tuple(rules) == parse_rules(text.replace(" * ", "*").replace(" < ", "<").replace(" > ", ">"))


@given(st.text(max_size=60) | st.lists(st.sampled_from([*METRICS, ">", "<=", "1.1", "*", "baseline", "or", ";"])).map(" ".join))
def test_any_text_is_rules_or_an_error_that_points_into_it(text: str) -> None:
    try:
        rules = parse_rules(text)
    except ValueError as error:
        said = str(error)
        place = re.search(r"at character (\d+) where .* is expected", said, re.DOTALL)
        assert place is not None, said
        assert 1 <= int(place[1]) <= len(text) + 1
    else:
        assert rules
        assert all(rule.metric in METRICS and math.isfinite(rule.number) for rule in rules)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("p99 > 1.1 * baseline", "'p99' stands at character 1 where one of rps, gain, p50_ms,"),
        ("p99 > 1.1 * baseline", "did you mean 'p99_ms'?"),
        ("p99_ms = 3", "'=' stands at character 8 where one of < <= > >= is expected"),
        ("p99_ms > -3", "'-' stands at character 10 where a number is expected"),
        ("p99_ms > 1e999", "'1e999' stands at character 10 where a number is expected"),
        ("p99_ms > 1.1 * basline", "'basline' stands at character 16 where baseline is expected; did you mean 'baseline'?"),
        ("p99_ms > 1.1 *", "it ends at character 15 where baseline is expected"),
        ("p99_ms > 3 and rps < 4", "'and' stands at character 12 where 'or', ';' or the end is expected"),
        ("p99_ms > 3;", "it ends at character 12 where one of"),
        ("", "it ends at character 1 where one of"),
        ("__import__('os')", "'__import__' stands at character 1"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        parse_rules(text)


def test_a_wrong_rule_is_a_wrong_request() -> None:
    with pytest.raises(RequestError, match="'p98_ms' stands at character 1") as refused:
        read_config(["model=digits_cnn", "report.fail_if=p98_ms > 1.1 * baseline"])

    assert "write for example report.fail_if=" in str(refused.value)
    assert 2 == refused.value.exit_code


def test_rules_reach_the_configuration_as_they_were_written() -> None:
    text = "p99_ms >= 1.1 * baseline; rps < 0.9 * baseline or memory_mb > 2000"

    told = read_config(["model=digits_cnn", f"report.fail_if={text}"]).config.report

    assert (text, "accepted", "pass") == (told.fail_if, told.baseline, told.undecided)
