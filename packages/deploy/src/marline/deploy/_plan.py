"""What the containers of one tuned run are told, and why: every number comes from the run that was measured."""

import hashlib
import math
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from marline.archive import Serving, from_yaml, read_mar
from marline.core import Config, Manifest

LABEL = 40  # of the 63 characters of a DNS label: the rest is for `-canary`, `-token` and what Kubernetes appends
JVM_MIB = 900  # a heap of 512, and what Java takes beside it
WORKER_MIB = 700  # Python, torch and the handler, without the model
COPIES = 3  # of the archive's bytes for each worker: unpacked, loaded, optimised
ROUTED_S = 5  # until every node has heard that a pod is no longer to be asked
STOP_S = 40  # at most: of the gateway and of TorchServe, which takes some 3 s


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One model in containers; `drain_s` is how long what was taken may need until it is answered."""

    model: str
    name: str
    run: str
    image: str
    python: str
    serving: Serving
    slo_ms: float
    cores: int
    memory_mib: int
    gpus: int  # 0 where the CPU serves
    replicas: int
    canary_replicas: int
    drain_s: int
    max_request_mb: int

    @property
    def threads(self) -> int:
        """Threads of each worker, as while it was tuned."""
        share = max(1, self.cores // self.serving.workers)
        return min(share, self.serving.threads or share)

    @property
    def grace_s(self) -> int:
        """From being told to stop to being killed."""
        return ROUTED_S + self.drain_s + STOP_S


def plan_of(config: Config, tuned: Manifest, run: str) -> Plan:
    """Derive a plan from a finished tune stage."""
    facts, contents = tuned.facts, read_mar(archive_of(tuned))
    serving, slo_ms, name = from_yaml(contents.config), facts["slo"]["ms"], dns_label(config.model)
    return Plan(
        model=config.model,
        name=name,
        run=run,
        image=f"{config.deploy.image or name}:{run}",
        python=f"{sys.version_info.major}.{sys.version_info.minor}",
        serving=serving,
        slo_ms=slo_ms,
        cores=facts["machine"]["cores"],
        memory_mib=memory_of(serving.workers, sum(contents.sizes.values())),
        gpus=max(1, len(set(serving.device_ids))) if facts["accelerator"]["kind"] == "cuda" else 0,
        replicas=config.deploy.replicas,
        canary_replicas=canaries(config.deploy.replicas, config.deploy.canary_percent),
        drain_s=math.ceil(3 * slo_ms / 1000),  # what waits is bounded by the objective and a half, the batch itself is below it
        max_request_mb=config.deploy.max_request_mb,
    )


def memory_of(workers: int, archive_bytes: int) -> int:
    """MiB for one container: an estimate to be corrected by what the container is seen to take."""
    return JVM_MIB + workers * (WORKER_MIB + COPIES * math.ceil(archive_bytes / 2**20))


def canaries(replicas: int, percent: int) -> int:
    """Pods beside `replicas` that get about `percent` of the requests, one at least: a service asks its pods in turn."""
    return max(1, round(replicas * percent / (100 - percent)))


def dns_label(model: str) -> str:
    """A model's name as Kubernetes takes one: small letters, digits and -, a letter first; cut names keep a digest."""
    label = re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-")
    if not label or len(label) > LABEL:
        label = f"{label[: LABEL - 9]}-{hashlib.sha256(model.encode()).hexdigest()[:8]}".strip("-")
    return label if label[0].isalpha() else f"m-{label}"


def archive_of(tuned: Manifest) -> Path:
    """The tuned archive of a tune stage."""
    return tuned.path(tuned.facts["tuned"]["archive"])
