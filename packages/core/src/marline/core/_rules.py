"""The language of `report.fail_if`: `p99_ms > 1.1 * baseline; rps < 0.9 * baseline or memory_mb > 2000`.

    rules  = rule, { ( "or" | ";" ), rule }
    rule   = METRIC, ( "<" | "<=" | ">" | ">=" ), NUMBER, [ "*", "baseline" ]

It is read here, without anything heavy, so that a wrong rule is refused before anything starts.
"""

import math
import re
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

METRICS = {
    "rps": "requests/s within the SLO, as confirmed",
    "gain": "that rate over TorchServe's default's",
    "p50_ms": "at the baseline's confirmed rate",
    "p95_ms": "at the baseline's confirmed rate",
    "p99_ms": "at the baseline's confirmed rate",
    "memory_mb": "of the largest worker under that load",
    "cold_start_s": "until a worker was ready",
    "t1_ms": "service time of a batch of 1",
    "batch_ms": "service time of a batch of the baseline's size",
}
NUMBER = re.compile(r"\d+(?:\.\d*)?(?:[eE][+-]?\d+)?", re.ASCII)
TOKEN = re.compile(rf"{NUMBER.pattern}|[A-Za-z_]\w*|<=|>=|\S", re.ASCII)
SIGNS, END = ("<", "<=", ">", ">="), ""


@dataclass(frozen=True, slots=True)
class Rule:
    """What a run is refused for: a metric beyond a number, or beyond a multiple of the baseline's."""

    metric: str
    sign: str
    number: float
    relative: bool

    def __str__(self) -> str:
        return f"{self.metric} {self.sign} {self.number:g}{' * baseline' * self.relative}"

    @property
    def above(self) -> bool:
        """Whether too much is refused, and not too little."""
        return self.sign.startswith(">")


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    place: int  # of its first character in what was written, from 1


def parse_rules(text: str) -> tuple[Rule, ...]:
    """The rules in a text, any of which refuses a run; ValueError says what was expected, what stands there, and where."""
    tokens = _tokens(text)
    rules = [_rule(tokens)]
    while tokens[0].text != END:
        _take(tokens, (";", "or"), "'or', ';' or the end")
        rules.append(_rule(tokens))
    return tuple(rules)


def _tokens(text: str) -> deque[_Token]:
    """Words, numbers, signs, whatever else stands there character by character, and the end."""
    found = [_Token(match.group(), match.start() + 1) for match in TOKEN.finditer(text)]
    return deque([*found, _Token(END, len(text.rstrip()) + 1)])


def _rule(tokens: deque[_Token]) -> Rule:
    metric = _take(tokens, METRICS, f"one of {', '.join(METRICS)}")
    sign = _take(tokens, SIGNS, f"one of {' '.join(SIGNS)}")
    number = tokens.popleft()
    if not (NUMBER.fullmatch(number.text) and math.isfinite(float(number.text))):
        raise _wrong(number, "a number")
    if tokens[0].text != "*":
        return Rule(metric, sign, float(number.text), relative=False)
    tokens.popleft()
    _take(tokens, ("baseline",), "baseline")
    return Rule(metric, sign, float(number.text), relative=True)


def _take(tokens: deque[_Token], known: Collection[str], wanted: str) -> str:
    """The next word, which must be one of these."""
    token = tokens.popleft()
    if token.text not in known:
        raise _wrong(token, wanted, get_close_matches(token.text, known, n=1))
    return token.text


def _wrong(token: _Token, wanted: str, near: Sequence[str] = ()) -> ValueError:
    found = "it ends" if token.text == END else f"{token.text!r} stands"
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return ValueError(f"{found} at character {token.place} where {wanted} is expected{hint}")
