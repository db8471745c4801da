"""The dashboard, held against Grafana's own model of one; that its metrics exist is shown on a real server (tests/e2e)."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

GRAFANA = Path(__file__).parents[1] / "grafana"


@pytest.fixture
def board() -> dict[str, Any]:
    told: dict[str, Any] = json.loads((GRAFANA / "dashboard.json").read_text())
    return told


def lost(ours: Any, theirs: Any, where: str = "") -> Iterator[str]:
    """What of ours Grafana's model does not know, or has otherwise."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key, value in ours.items():
            yield from lost(value, theirs.get(key, "nothing"), f"{where}/{key}")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for index, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from lost(one, other, f"{where}/{index}")
    elif ours != theirs:
        yield f"{where}: {ours!r}, Grafana has {theirs!r}"


def read_by_grafana(board: dict[str, Any]) -> Any:
    register_default_plugins()
    return json.loads(json.dumps(Dashboard.from_json(board), cls=JSONEncoder))


def test_grafana_knows_every_key_of_the_dashboard(board: dict[str, Any]) -> None:
    assert [] == list(lost(board, read_by_grafana(board)))


@pytest.mark.parametrize("key", ["titel", "fieldconfig"])
def test_a_key_that_grafana_does_not_know_is_found(board: dict[str, Any], key: str) -> None:
    board["panels"][0][key] = "wrong"

    assert [f"/panels/0/{key}: 'wrong', Grafana has 'nothing'"] == list(lost(board, read_by_grafana(board)))


def test_panels_do_not_lie_on_each_other_and_each_says_what_it_shows(board: dict[str, Any]) -> None:
    places = [panel["gridPos"] for panel in board["panels"]]
    covered = [
        (x, y) for one in places for x in range(one["x"], one["x"] + one["w"]) for y in range(one["y"], one["y"] + one["h"])
    ]

    assert len(covered) == len(set(covered))
    assert max(x for x, _ in covered) < 24
    assert all(panel["title"] and panel["description"] for panel in board["panels"])
    assert len(board["panels"]) == len({panel["id"] for panel in board["panels"]})


def test_the_scrape_snippet_asks_the_metrics_port_that_it_names() -> None:
    text = (GRAFANA / "prometheus.yml").read_text()
    (job,) = yaml.safe_load(text)["scrape_configs"]

    assert ["127.0.0.1:8082"] == job["static_configs"][0]["targets"]
    assert "deploy.ports=[8080,8081,8082]" in text
