import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import yaml

from marline.core import DeployConfig, RequestError
from marline.deploy._settings import (
    SECRETS,
    Ports,
    command,
    default_java_home,
    free_ports,
    java_home_of,
    log4j,
    metrics,
    properties,
)
from marline.handler import METRICS

PORTS = Ports(inference=1, management=2, metrics=3, grpc_inference=4, grpc_management=5)
SHOW_ENVIRONMENT = """
import json
from pathlib import Path
from marline.deploy._settings import environment

print(json.dumps(environment(Path("folder"), Path("logs"), Path("java"), {"MARLINE_BATCH_LOG": "here"})))
"""


def values(config: DeployConfig) -> dict[str, str]:
    lines = properties(Path("folder"), PORTS, config).splitlines()
    return dict(line.split("=", 1) for line in lines)


def test_every_address_is_loopback(config: DeployConfig) -> None:
    addresses = {key: value for key, value in values(config).items() if key.endswith("_address")}

    assert {"inference_address", "management_address", "metrics_address"} <= addresses.keys()
    assert {"grpc_inference_address", "grpc_management_address"} <= addresses.keys()
    assert {"127.0.0.1"} == {re.sub(r"^http://|:\d+$", "", address) for address in addresses.values()}


def test_tokens_are_on_and_only_the_store_may_be_loaded_from(config: DeployConfig) -> None:
    told = values(config)

    assert "false" == told["disable_token_authorization"]
    assert "file://folder/store/.*" == told["allowed_urls"]
    assert "false" == told["install_py_dep_per_model"]
    assert str(16 * 2**20) == told["max_request_size"]


def test_gpus_are_counted_by_us_and_the_open_protocol_is_off(config: DeployConfig) -> None:
    told = values(config)

    assert ("0", "false") == (told["number_of_gpu"], told["ts_open_inference_protocol"])
    assert "number_of_gpu=2\n" in properties(Path("folder"), PORTS, config, gpus=2)


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "HF_HOME", "GITHUB_TOKEN", "db_password", "MY_SECRET"])
def test_variables_that_look_secret_are_kept_from_workers(name: str) -> None:
    assert re.fullmatch(SECRETS, name)


def test_no_request_writes_a_line() -> None:
    logs = ET.fromstring(log4j(Path("logs")))  # noqa: S314 - written by us

    levels = {logger.get("name"): logger.get("level") for logger in logs.iter("Logger")}
    assert {"off"} == {levels[name] for name in ("ACCESS_LOG", "MODEL_METRICS", "TS_METRICS")}
    assert {"logs/server.log", "logs/worker.log"} == {file.get("fileName") for file in logs.iter("File")}


def test_the_counters_of_our_handler_are_shown_beside_torchserves_own() -> None:
    told = yaml.safe_load(metrics())["model_metrics"]

    assert list(METRICS) == [one["name"] for one in told["counter"]]
    assert {"HandlerTime", "PredictionTime"} == {one["name"] for one in told["gauge"]}


def test_a_secret_in_our_environment_does_not_reach_the_server() -> None:
    ours = {**os.environ, "AWS_SECRET_ACCESS_KEY": "s3cret", "HF_TOKEN": "s3cret", "HARMLESS": "s3cret", "TZ": "UTC"}

    shown = subprocess.run(
        [sys.executable, "-c", SHOW_ENVIRONMENT], env=ours, capture_output=True, text=True, check=True, timeout=60
    )

    told = json.loads(shown.stdout)
    assert "s3cret" not in shown.stdout
    assert ("UTC", "here", "folder", "java") == (told["TZ"], told["MARLINE_BATCH_LOG"], told["HOME"], told["JAVA_HOME"])
    assert told["PATH"].startswith(f"{Path(sys.executable).parent}:")


def test_pip_is_told_where_to_look_on_a_server_that_installs_and_nowhere_else(config: DeployConfig) -> None:
    ours = {
        **os.environ,
        "PIP_INDEX_URL": "here",
        "PIP_FIND_LINKS": "there",
        "PIP_NO_INDEX": "1",
        "PIP_CONFIG_FILE": "it",
        "PIP_X": "x",
    }
    installing = SHOW_ENVIRONMENT.replace("}))", "}, installs=True))")

    told = [
        json.loads(subprocess.run([sys.executable, "-c", code], env=ours, capture_output=True, check=True, timeout=60).stdout)
        for code in (SHOW_ENVIRONMENT, installing)
    ]

    assert [set(), {"PIP_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX", "PIP_CONFIG_FILE"}] == [
        {name for name in environment if name.startswith("PIP_")} for environment in told
    ]
    assert "install_py_dep_per_model=true\n" in properties(Path("folder"), PORTS, config, installs=True)


def test_ports_are_free_and_different() -> None:
    ports = free_ports()

    numbers = {getattr(ports, name) for name in Ports.__slots__}
    assert 5 == len(numbers)
    assert all(number > 1023 for number in numbers)


def test_java_is_our_direct_child_with_our_files_only() -> None:
    words = command(Path("folder"), Path("java"), "python")

    assert "java/bin/java" == words[0]
    assert "folder/config.properties" == words[words.index("-f") + 1]
    assert "-ncs" in words


def test_the_installed_java_is_used_unless_another_is_named(config: DeployConfig) -> None:
    assert default_java_home() == java_home_of(config)


def test_a_folder_without_java_is_refused_with_the_remedy(config: DeployConfig, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=rf"deploy.java_home={tmp_path}: .*write deploy.java_home=null"):
        java_home_of(config.model_copy(update={"java_home": str(tmp_path)}))
