import json
import re
from typing import Any

import pytest

pytestmark = pytest.mark.e2e


def test_two_pipelines_started_at_the_same_moment_both_finish_with_their_own_results(pair: dict[str, Any]) -> None:
    print({name: round(ran.seconds) for name, ran in pair.items()})

    assert {"emulated": (0, ""), "real": (0, "")} == {name: (ran.code, ran.err) for name, ran in pair.items()}
    reports = {name: json.loads((ran.run / "report" / "report.json").read_text()) for name, ran in pair.items()}
    assert {"emulated": "emulated", "real": "cpu"} == {name: told["accelerator"]["kind"] for name, told in reports.items()}
    assert {"emulated": 403, "real": 401} == {name: told["slo"]["ms"] for name, told in reports.items()}


def test_the_second_says_that_it_waits_and_for_whom(pair: dict[str, Any]) -> None:
    waited = [" ".join(ran.out.split()) for ran in pair.values() if "waiting for" in ran.out]

    assert waited
    # Of the two each may have met another test's run first: only the first one that is waited for is said.
    assert all(re.search(r"waiting for \w+, run \d{8}-\d{6}-\w+ \(process \d+\)", said) for said in waited)
