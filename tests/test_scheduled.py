"""What is deployed: `pipelines/prefect.yaml` is read by Prefect's own models and held against its own job templates."""

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from prefect.cli.deploy._models import PrefectYamlModel
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema
from prefect.utilities.templating import apply_values
from prefect.workers.process import ProcessWorker

from marline.core import RequestError, known_models, project_root, read_config
from pipelines import schedule, server, worker
from pipelines.scheduled import KEYS, capacity, parameters

ROOT = Path(__file__).parents[1]
DECLARED = yaml.safe_load((ROOT / "pipelines" / "prefect.yaml").read_text())
DEPLOYMENTS = {told["name"]: told for told in DECLARED["deployments"]}
TEMPLATES = json.loads(
    files("prefect.server.api.collections_data.views").joinpath("aggregate-worker-metadata.json").read_text()
)


def template(kind: str) -> dict[str, Any]:
    """The base job template of a pool: Prefect's own, but for Kubernetes, where ours adds the volume of artifacts."""
    if kind == "kubernetes":
        ours: dict[str, Any] = json.loads((ROOT / "pipelines" / "kubernetes.json").read_text())
        return ours
    if kind == "process":
        return ProcessWorker.get_default_base_job_template()
    its: dict[str, Any] = TEMPLATES[f"prefect-{kind}"][kind]["default_base_job_configuration"]
    return its


def variables(kind: str) -> dict[str, Any]:
    told: dict[str, Any] = DEPLOYMENTS[kind]["work_pool"].get("job_variables", {})
    return told


def test_prefect_reads_the_file_and_knows_every_key() -> None:
    read = PrefectYamlModel.model_validate(DECLARED)

    assert ["process", "docker", "kubernetes"] == [told.name for told in read.deployments]
    for told in DEPLOYMENTS.values():
        assert told.keys() <= type(read.deployments[0]).model_fields.keys()


@pytest.mark.parametrize("kind", DEPLOYMENTS)
def test_a_deployment_names_our_flow_with_parameters_that_it_takes(kind: str) -> None:
    told = DEPLOYMENTS[kind]
    flow: Any = load_flow_from_entrypoint(told["entrypoint"])
    schema = parameter_schema(flow).model_dump()

    assert capacity.name == flow.name
    jsonschema.validate(told["parameters"], {**schema, "additionalProperties": False})
    assert {"limit": 1, "collision_strategy": "ENQUEUE"} == told["concurrency_limit"]
    for each in told["schedules"]:
        assert each["cron"] == schedule.request([f"cron={each['cron']}"])[0]


@pytest.mark.parametrize("wrong", [{"model": "nope"}, {"slo_ms": 0}, {"settings": ["tune"]}, {"fresh": "never"}])
def test_the_form_refuses_what_the_flow_would(wrong: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"model": "digits_cnn"} | wrong, parameter_schema(capacity).model_dump())


@pytest.mark.parametrize("kind", DEPLOYMENTS)
def test_job_variables_are_those_of_the_pool_s_template(kind: str) -> None:
    known = template(kind)["variables"]

    jsonschema.validate(variables(kind), {**known, "additionalProperties": False})
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**variables(kind), "imagee": "x"}, {**known, "additionalProperties": False})


def test_our_template_for_kubernetes_has_what_prefect_s_has() -> None:
    its = TEMPLATES["prefect-kubernetes"]["kubernetes"]["default_base_job_configuration"]

    assert its["job_configuration"].keys() - {"cluster_config"} == template("kubernetes")["job_configuration"].keys()
    ours, theirs = (told["variables"]["properties"] for told in (template("kubernetes"), its))
    assert {"cluster_config"} == theirs.keys() - ours.keys()
    assert all(ours[name]["type"] == theirs[name]["type"] for name in ours.keys() & theirs.keys())


def test_the_job_of_a_run_is_one_that_kubernetes_takes_and_keeps_its_artifacts() -> None:
    told = template("kubernetes")
    defaults = {name: field["default"] for name, field in told["variables"]["properties"].items() if "default" in field}
    env = [{"name": name, "value": value} for name, value in variables("kubernetes")["env"].items()]  # as its worker does
    more = {"env": env, "name": "marline", "command": ["python", "-m", "prefect.engine"], "labels": {"app": "marline"}}

    job = apply_values(told["job_configuration"]["job_manifest"], {**defaults, **variables("kubernetes"), **more})

    kubernetes_validate.validate(job, "1.31", strict=True)
    spec = job["spec"]["template"]["spec"]
    assert "marline-artifacts" == spec["volumes"][0]["persistentVolumeClaim"]["claimName"]
    assert variables("kubernetes")["env"]["PREFECT_HOME"].startswith(spec["containers"][0]["volumeMounts"][0]["mountPath"])


def test_the_image_has_what_the_containers_are_told() -> None:
    dockerfile = (ROOT / "pipelines" / "Dockerfile").read_text()
    copied = re.findall(r"^COPY (.*) \S+$", dockerfile, re.MULTILINE)

    assert all((ROOT / name).exists() for line in copied for name in line.split())
    assert {f"MARLINE_ROOT={DECLARED['definitions']['container']['MARLINE_ROOT']}"} <= set(dockerfile.split())


@pytest.mark.parametrize(
    "words",
    [["profile=smoke", "tune.slo_ms=200", "fresh=tune", "tune.percentile=95"], ["tune.slo_ms=auto", "accelerator=auto"]],
)
def test_a_schedule_gives_the_flow_what_the_command_line_said(words: list[str]) -> None:
    told = parameters("digits_cnn", words)

    jsonschema.validate(told, parameter_schema(capacity).model_dump())
    named = [f"{KEYS[name]}={value}" for name, value in told.items() if name in KEYS]
    assert read_config(["model=digits_cnn", *words]) == read_config(["model=digits_cnn", *named, *told["settings"]])
    assert told["model"] in known_models(project_root())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["port=0"], "port=0 is no port"),
        (["database=mysql://me:secret@host/x"], "database=mysql:… is none that Prefect takes"),
        (["data=postgresql+asyncpg://me:secret@host/x"], "'data' is not understood"),
    ],
)
def test_a_server_that_cannot_be_had_is_refused_without_its_password(words: list[str], said: str) -> None:
    with pytest.raises(RequestError) as refused:
        server.request(words)

    assert said in str(refused.value)
    assert "secret" not in str(refused.value)


def test_an_address_is_shown_without_its_password() -> None:
    told = "postgresql+asyncpg://me:secret@host:5432/prefect?ssl=require"

    assert (4200, told) == server.request([f"database={told}"])
    assert "postgresql+asyncpg://host:5432/prefect" == server.without_password(told)


def test_a_database_begins_with_the_tables_of_an_empty_one_and_keeps_what_it_has(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in (server.DATABASE, server.NEWER):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(server, "EMPTY", tmp_path / "empty.db")
    homes = [tmp_path / name for name in ("without", "first", "named")]
    for home in homes:
        home.mkdir()

    server.make_tables(homes[0])
    server.EMPTY.write_bytes(b"tables")
    server.make_tables(homes[1])
    server.EMPTY.write_bytes(b"others")
    server.make_tables(homes[1])
    monkeypatch.setenv(server.NEWER, "postgresql+asyncpg://host/prefect")
    server.make_tables(homes[2])

    assert [[], ["prefect.db"], []] == [sorted(file.name for file in home.iterdir()) for home in homes]
    assert b"tables" == (homes[1] / "prefect.db").read_bytes()


def test_a_worker_asks_for_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)

    with pytest.raises(RequestError, match="nox -s prefect starts one"):
        worker.request([])
    with pytest.raises(RequestError, match="'poll=x' is not understood"):
        worker.request(["poll=x"])
