"""A model that is no PyTorch, behind a handler from scratch, through the whole pipeline."""

import json
from typing import Any

import pytest

from marline.archive import read_mar
from marline.core import read_manifest

pytestmark = pytest.mark.e2e


def test_a_scikit_learn_classifier_without_a_checkpoint_is_archived_served_and_tuned(
    pair: dict[str, Any],
) -> None:
    ran = pair["real"]

    assert (0, "") == (ran.code, ran.err)
    assert "nothing was compared with an eager model" in ran.out
    deployed, tuned = (read_manifest(ran.run / stage) for stage in ("deploy", "tune"))
    assert (8, 1) == (deployed.facts["golden"], deployed.facts["workers"])
    assert "serializedFile" not in read_mar(tuned.path(tuned.facts["tuned"]["archive"])).manifest["model"]
    report = json.loads((ran.run / "report" / "report.json").read_text())
    assert "file" == report["weights"]["kind"]
    assert [1, 2] == [point["batch"] for point in report["curve"]]
    assert all(0 < point["p50_ms"] < 1000 and point["inference_ms"] is None for point in report["curve"])
    tried = {(trial["batch_size"], trial["max_batch_delay_ms"]) for trial in report["trials"]}
    assert {(1, 100)} <= tried <= {(1, 100), (2, 2)}
    assert {None} == {trial["mean_batch"] for trial in report["trials"]}
    kept = [trial for trial in report["trials"] if trial["valid"] and trial["slo_met"] is not False]
    assert {0} == {trial["errors"] for trial in kept}  # one that asked too much, on a busy machine, may be refused some
    assert [] != [told for told in report["warnings"] if "does not report its batches" in told]
    assert ("none", 8) == (report["parity"]["method"], report["parity"]["golden"])
