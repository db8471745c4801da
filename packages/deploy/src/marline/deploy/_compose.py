"""compose.yaml: one model on one machine with Docker."""

from pathlib import Path
from typing import Any

from marline.deploy._image import CONTAINER, USER, as_yaml, template
from marline.deploy._plan import Plan

TMPFS = f"uid={USER},gid={USER},mode=0700"


def write_compose(plan: Plan, out: Path) -> None:
    """Write compose.yaml and its README into `out`; the image's files lie in `out/image`."""
    (out / "compose.yaml").write_text(as_yaml(plan, [compose(plan)]))
    told = template("compose.md").substitute(model=plan.model, run=plan.run, port=CONTAINER.port)
    (out / "README.md").write_text(told)


def compose(plan: Plan) -> dict[str, Any]:
    """The whole of compose.yaml. The image says itself when it is healthy, and ends when only a new start can help."""
    devices = [{"driver": "nvidia", "count": plan.gpus, "capabilities": ["gpu"]}]
    limits = {"cpus": str(plan.cores), "memory": f"{plan.memory_mib}M", "pids": 512}
    service = {
        "image": plan.image,
        "build": "./image",
        "restart": "unless-stopped",
        "environment": {"OMP_NUM_THREADS": str(plan.threads)},
        "ports": [f"${{MARLINE_BIND:-127.0.0.1:{CONTAINER.port}}}:{CONTAINER.port}"],
        "secrets": ["token"],
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        # exec: Java loads its network library from there, which it needs to speak to workers through sockets
        "tmpfs": [f"{CONTAINER.run}:{TMPFS}", f"{CONTAINER.temp}:exec,{TMPFS}"],
        "stop_grace_period": f"{plan.grace_s}s",
        "deploy": {"resources": {"limits": limits, **({"reservations": {"devices": devices}} if plan.gpus else {})}},
    }
    return {"name": plan.name, "services": {"model": service}, "secrets": {"token": {"file": "./secrets/token"}}}
