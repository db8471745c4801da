"""Models of every kind on a real TorchServe; shares no run with the other files here."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from marline.core import read_config, read_manifest
from marline.deploy import Server, content_type_of, serving
from marline.handler import read_golden
from marline.telemetry import fake_collector

pytestmark = pytest.mark.e2e

FEW = ("export.batch_sizes=[1,2,3]", "export.fuse=false", "export.channels_last=false")  # what is measured is no point here


@pytest.mark.parametrize("model", ["resnet50", "mobilenet_v3_large"])
def test_a_model_is_deployed_and_its_golden_pairs_are_equal_over_http(model: str, sharing: Any) -> None:
    ran = sharing.run("pipelines", f"model={model}", "until=deploy", *FEW)
    print(f"{model} took {ran.seconds:.0f} s")

    assert (0, "") == (ran.code, ran.err)
    facts = read_manifest(ran.run / "deploy").facts
    assert facts["golden"] > 0
    assert (1, 1, 100) == (facts["workers"], facts["batch_size"], facts["max_batch_delay_ms"])
    assert_proven(ran.run, "script")


def test_a_photograph_of_a_cat_is_called_a_cat_and_alike_texts_are_near_each_other(sharing: Any, tmp_path: Path) -> None:
    """The two models with real weights from packages, both on one server."""
    texts = [b"The cat sleeps on the sofa.", b"A kitten is napping on the couch.", b"Interest rates rose by half a point."]
    with serving(read_config(["model=minilm"]).config.deploy, tmp_path / "logs") as server:
        for model in ("efficientnet_lite0", "minilm"):
            run = sharing.run("pipelines", f"model={model}", "until=archive", *FEW).run
            assert_proven(run, "trace")
            archived = read_manifest(run / "archive")
            archive = archived.path(archived.facts["archive"])
            server.load(archive, model, batch_size=4, max_batch_delay_ms=50, workers=1)
        photograph = next(sharing.artifacts.glob("efficientnet_lite0/*/load/sample/chelsea.jpg")).read_bytes()
        labels = output(server, "efficientnet_lite0", photograph, "image/jpeg")
        with ThreadPoolExecutor(len(texts)) as askers:
            answers = list(askers.map(lambda text: output(server, "minilm", text, "text/plain"), texts))

    assert "cat" in labels[0]["label"]
    cat_sleeps, kitten_naps, rates_rose = (torch.tensor(answer["embedding"]) for answer in answers)
    assert cat_sleeps @ kitten_naps > 0.5
    assert cat_sleeps @ rates_rose < 0.2


def test_finished_torchscript_has_no_class_to_track_so_the_handler_reports_each_request(
    sharing: Any, until: Callable[..., float], tmp_path: Path
) -> None:
    """Of a server that goes on: what the end of a worker loses on a busy machine is another test's."""
    with fake_collector(batches=True) as collector:
        ran = sharing.run("pipelines", "model=silero_vad", "until=deploy", f"wrap.collector_url={collector.url}", *FEW)
        assert (0, "") == (ran.code, ran.err)
        archived, pairs = read_manifest(ran.run / "archive"), read_golden(ran.run / "export" / "golden.json")
        deployed = {report["id"] for report in collector.reports}
        with serving(read_config(["model=silero_vad"]).config.deploy, tmp_path / "logs") as server:
            server.load(archived.path(archived.facts["archive"]), "silero_vad", batch_size=1, max_batch_delay_ms=1, workers=1)
            for pair in pairs:
                output(server, "silero_vad", pair.request, content_type_of(pair.name))
            until(lambda: len({report["id"] for report in collector.reports}) == len(deployed) + len(pairs), 30, "all reported")

    assert 0 < len(deployed) <= len(pairs) == read_manifest(ran.run / "deploy").facts["golden"]
    assert {("predict", "success")} == {(report["method"], report["status"]) for report in collector.reports}
    assert_proven(ran.run, "hybrid")


def assert_proven(run: Path, method: str) -> None:
    """As tests/test_exports.py asks of the models that are not served here: a graph, equal in every process."""
    facts = read_manifest(run / "export").facts
    stages = {row["stage"] for row in facts["parity"]}
    assert method == facts["method"]
    assert {"exported", "frozen", "reloaded"} <= stages
    assert ("C++" in stages) != any("C++" in told for told in facts["skipped"])
    assert [] == facts["signature"]["libraries"]


def output(server: Server, model: str, body: bytes, kind: str) -> Any:
    reply = server.client.predict(model, body, kind)
    assert 200 == reply.status
    return json.loads(reply.body)["output"]
