"""Compose and Kubernetes files, for any plan, against the schemas of those who read them."""

import json
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kubernetes_validate.utils import ValidationError, validate

from marline.core import project_root
from marline.deploy._compose import compose, write_compose
from marline.deploy._kubernetes import kubernetes, write_kubernetes
from marline.deploy._plan import Plan, dns_label

KUBERNETES = "1.30"  # the oldest that the README names; a newer one takes the same documents
FEW = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@cache
def compose_schema() -> jsonschema.protocols.Validator:
    text = files("check_jsonschema").joinpath("builtin_schemas", "vendor", "compose-spec.json").read_text()
    return jsonschema.Draft202012Validator(json.loads(text))


@st.composite
def plans(draw: st.DrawFn, plan: Plan) -> Plan:
    """Any plan: of any name, version, batch, objective, size."""
    model = draw(st.text(min_size=1, max_size=80))
    serving = replace(
        plan.serving,
        batch_size=draw(st.integers(1, 1024)),
        workers=draw(st.integers(1, 64)),
        startup_timeout_s=draw(st.integers(1, 100_000)),
        response_timeout_s=draw(st.integers(1, 100_000)),
    )
    return replace(
        plan,
        model=model,
        name=dns_label(model),
        serving=serving,
        slo_ms=draw(st.floats(min_value=0.1, max_value=1e7)),
        cores=draw(st.integers(1, 512)),
        memory_mib=draw(st.integers(1, 10**7)),
        gpus=draw(st.integers(0, 8)),
        replicas=draw(st.integers(1, 1000)),
        canary_replicas=draw(st.integers(1, 1000)),
        drain_s=draw(st.integers(5, 100_000)),
    )


@given(data=st.data())
@FEW
def test_compose_takes_what_is_written_for_any_plan(data: st.DataObject, plan: Plan) -> None:
    told = compose(data.draw(plans(plan)))

    compose_schema().validate(yaml.safe_load(yaml.safe_dump(told)))


@given(data=st.data())
@settings(FEW, max_examples=5)
def test_kubernetes_takes_what_is_written_for_any_plan(data: st.DataObject, plan: Plan) -> None:
    for documents in kubernetes(data.draw(plans(plan))).values():
        for document in documents:
            validate(yaml.safe_load(yaml.safe_dump(document)), KUBERNETES, strict=True)


def test_the_schemas_can_say_no(plan: Plan) -> None:
    wrong = compose(plan)
    wrong["services"]["model"]["tmpfss"] = []
    with pytest.raises(jsonschema.ValidationError, match="tmpfss"):
        compose_schema().validate(wrong)
    document = deployment(plan)
    document["spec"]["template"]["spec"]["containers"][0]["readinessProb"] = {}
    with pytest.raises(ValidationError, match="readinessProb"):
        validate(document, KUBERNETES, strict=True)


def deployment(plan: Plan, track: str = "live") -> dict[str, Any]:
    return kubernetes(plan)[f"{track}/deployment.yaml"][0]


def test_pods_ask_for_ready_workers_and_leave_before_they_stop(plan: Plan) -> None:
    pod = deployment(plan)["spec"]["template"]["spec"]
    model = pod["containers"][0]

    asked = {role: model[f"{role}Probe"]["exec"]["command"] for role in ("startup", "readiness", "liveness")}
    assert asked == {role: ["python", "/srv/probe.py", role] for role in asked}
    assert (["sleep", "5"], 51) == (model["lifecycle"]["preStop"]["exec"]["command"], pod["terminationGracePeriodSeconds"])


def test_the_service_splits_between_live_and_canary_pods(plan: Plan) -> None:
    live, canary = (deployment(plan, track)["spec"] for track in ("live", "canary"))
    service = kubernetes(plan)["live/service.yaml"][0]["spec"]["selector"]

    labels = [spec["template"]["metadata"]["labels"] for spec in (live, canary)]
    assert all(service.items() <= each.items() for each in labels)
    assert not live["selector"]["matchLabels"].items() <= labels[1].items()
    assert (1, False) == (canary["replicas"], "replicas" in live)


@pytest.mark.parametrize("gpus", [1, 2])
def test_as_many_gpus_are_asked_for_as_the_workers_were_spread_over(plan: Plan, gpus: int) -> None:
    limits = [
        deployment(replace(plan, gpus=count))["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
        for count in (gpus, 0)
    ]
    devices = [
        compose(replace(plan, gpus=count))["services"]["model"]["deploy"]["resources"].get("reservations")
        for count in (gpus, 0)
    ]

    assert [gpus, None] == [each.get("nvidia.com/gpu") for each in limits]
    asked = [{"driver": "nvidia", "count": gpus, "capabilities": ["gpu"]}]
    assert [asked, None] == [each and each["devices"] for each in devices]


@pytest.mark.parametrize("gpus", [1, 0])
def test_nothing_in_a_container_may_write_or_rise(plan: Plan, gpus: int) -> None:
    pod = deployment(replace(plan, gpus=gpus))["spec"]["template"]["spec"]
    services = compose(replace(plan, gpus=gpus))["services"].values()

    for each in pod["containers"]:
        assert {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}} == each[
            "securityContext"
        ]
    assert pod["securityContext"]["runAsNonRoot"]
    assert all(each["read_only"] and each["cap_drop"] == ["ALL"] for each in services)


def test_a_readme_has_three_commands_and_the_files_what_it_names(plan: Plan, tmp_path: Path) -> None:
    for name, write in (("compose", write_compose), ("kubernetes", write_kubernetes)):
        out = tmp_path / name
        out.mkdir()
        write(plan, out)
        readme = (out / "README.md").read_text()
        first = [line for line in readme.split("\n\n")[2].splitlines() if line.startswith("    ")]
        assert 3 == len(first), readme
        assert plan.run in readme
    assert {"live", "canary", "README.md"} == {file.name for file in (tmp_path / "kubernetes").iterdir()}


def test_no_package_index_is_named(plan: Plan) -> None:
    folder = project_root() / "packages" / "deploy" / "src" / "marline" / "deploy" / "templates"

    for file in folder.iterdir():
        assert "://" not in file.read_text().replace("http://127.0.0.1", "").replace("http://$name", ""), file
