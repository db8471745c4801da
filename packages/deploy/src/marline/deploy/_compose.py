"""compose.yaml: one model and its gateway on one machine with Docker."""

from pathlib import Path
from typing import Any

import yaml

from marline.deploy._image import CONTAINER, USER, template
from marline.deploy._plan import Plan

HEAD = "# Written from run {run}; the README beside this file says how to start it.\n"
TMPFS = f"uid={USER},gid={USER},mode=0700"


def write_compose(plan: Plan, out: Path) -> None:
    """Write compose.yaml and its README into `out`, the image's files lie in `out/image`."""
    text = yaml.safe_dump(compose(plan), sort_keys=False, width=120)
    (out / "compose.yaml").write_text(HEAD.format(run=plan.run) + text)
    told = template("compose.md").substitute(model=plan.model, name=plan.name, run=plan.run, port=CONTAINER.port)
    (out / "README.md").write_text(told)


def compose(plan: Plan) -> dict[str, Any]:
    """The whole of compose.yaml."""
    return {
        "name": plan.name,
        "services": {"model": _model(plan), "gateway": _gateway(plan)},
        "volumes": {"keys": {"driver_opts": {"type": "tmpfs", "device": "tmpfs", "o": TMPFS}}},
        "secrets": {"token": {"file": "./secrets/token"}},
    }


def _model(plan: Plan) -> dict[str, Any]:
    devices = [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]
    limits = {"cpus": str(plan.cores), "memory": f"{plan.memory_mib}M", "pids": 512}
    return {
        **_hardened(plan),
        "build": "./image",
        "environment": {"OMP_NUM_THREADS": str(plan.threads)},
        # the gateway lives on this service's network; only what it opens is published, and only to this machine
        "ports": [f"${{MARLINE_BIND:-127.0.0.1:{CONTAINER.port}}}:{CONTAINER.port}"],
        "volumes": [_keys(read_only=False)],
        # exec: Java loads its network library from there, and workers are spoken to by sockets in there
        "tmpfs": [f"{CONTAINER.run}:{TMPFS}", f"{CONTAINER.temp}:exec,{TMPFS}"],
        "stop_grace_period": f"{plan.grace_s}s",
        "deploy": {"resources": {"limits": limits, **({"reservations": {"devices": devices}} if plan.gpu else {})}},
    }


def _gateway(plan: Plan) -> dict[str, Any]:
    """Stopped before the model it depends on, and only after its last answer: nobody is cut off."""
    return {
        **_hardened(plan),
        "command": ["caddy", "run", "--config", str(CONTAINER.home / "Caddyfile")],
        "network_mode": "service:model",
        "depends_on": {"model": {"condition": "service_healthy", "restart": True}},
        "healthcheck": {"disable": True},
        "secrets": ["token"],
        "volumes": [_keys(read_only=True)],
        "stop_grace_period": f"{plan.grace_s}s",
        "deploy": {"resources": {"limits": {"memory": "256M", "pids": 128}}},
    }


def _hardened(plan: Plan) -> dict[str, Any]:
    return {
        "image": plan.image,
        "restart": "unless-stopped",
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
    }


def _keys(*, read_only: bool) -> dict[str, Any]:
    return {"type": "volume", "source": "keys", "target": str(CONTAINER.keys), "read_only": read_only}
