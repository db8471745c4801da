"""What the benchmark of the handler computes, without a server."""

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from marline.core import LoadTestError
from marline.handler import FakeContext, assemble, opened
from packages.handler.bench.parts.archives import SERVED
from packages.handler.bench.parts.closed_loop import Pace, compare, rate
from packages.handler.bench.parts.corpus import cases
from packages.handler.bench.parts.figure import Compared, ratio, turns
from packages.handler.bench.parts.nonces import KINDS


def test_contenders_take_turns_forwards_and_backwards() -> None:
    order = turns(["ours", "theirs"], 3)

    assert ["ours", "theirs", "theirs", "ours", "ours", "theirs"] == order


def test_a_ratio_is_the_median_over_passes() -> None:
    compared = Compared({"ours": [20, 27, 26], "theirs": [10, 9, 10]})

    row = ratio("speed", compared, "ours", "theirs", 2.5, "")

    assert (2.6, True, 3) == (row["value"], row["holds"], row["samples"])


def test_passes_that_differ_widely_show_nothing() -> None:
    row = ratio("speed", Compared({"ours": [20, 60, 60], "theirs": [10, 10, 10]}), "ours", "theirs", 2.0, "")

    assert (6.0, False) == (row["value"], row["holds"])
    assert "UNSTABLE: passes of ours" in row["note"]


def test_a_contender_that_fails_has_no_figure_and_the_others_do() -> None:
    def refuse() -> float:
        raise LoadTestError("it answers 503")

    compared = compare({"ours": lambda: 4.0, "theirs": refuse, "other": lambda: 2.0}, 2)

    missing = ratio("speed", compared, "ours", "theirs", 1.0, "")
    assert (None, False, "theirs: it answers 503") == (missing["value"], missing["holds"], missing["note"])
    assert 2.0 == ratio("speed", compared, "ours", "other", 1.0, "")["value"]


def test_a_rate_counts_whole_batches_between_two_of_them() -> None:
    every_second = [(100 + second + wait, "") for second in range(20) for wait in (0.001, 0.002)]

    per_s = rate({"began_s": 100.0, "rows": every_second}, Pace(warm_s=5.5, seconds=10.0, passes=1))

    assert pytest.approx(2.0) == per_s


def test_a_refused_request_voids_a_rate() -> None:
    with pytest.raises(LoadTestError, match="HTTP 503"):
        rate({"began_s": 0.0, "rows": [(1.0, ""), (2.0, "HTTP 503")]}, Pace())


def test_the_corpus_has_every_row() -> None:
    rows = Counter(case.row for case in cases(b"\xff\xd8\xff" + bytes(1000)))

    assert [f"B{number:02}" for number in range(1, 24)] == sorted(rows)


@pytest.mark.parametrize("kind", KINDS)
def test_a_nonce_survives_its_kind_of_request(kind: str, tmp_path: Path, ask: Any) -> None:
    assemble(SERVED / "echo" / "handler.py", tmp_path, tmp_path)
    make, _ = KINDS[kind]
    sent = [*random.Random(1).sample(range(1 << 24), 5), 0, (1 << 24) - 1]

    with opened(tmp_path, "handler") as handler:
        handler.initialize(FakeContext(tmp_path))
        bodies = [make(nonce, 5000 + nonce % 5000) for nonce in sent]
        told = [_as_torchserve_decodes(kind, body) for body in bodies]
        answers, _ = ask(handler, *told)

    assert [{"output": {"nonce": nonce}} for nonce in sent] == answers


def _as_torchserve_decodes(kind: str, body: bytes) -> Any:
    return json.loads(body) if kind.startswith("JSON") else body
