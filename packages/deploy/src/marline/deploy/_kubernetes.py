"""Kubernetes files: a live deployment and a canary beside it. TorchServe splits no traffic; the service before both does."""

import math
from pathlib import Path
from typing import Any

from marline.deploy._image import CONTAINER, USER, as_yaml, template
from marline.deploy._plan import ROUTED_S, Plan

Document = dict[str, Any]
RESTRICTED = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
CPU_PERCENT = 70  # of what the rate within the objective takes: the 30 % of headroom of the report


def write_kubernetes(plan: Plan, out: Path) -> None:
    """Write the files and their README into `out`; the image's files lie in `out/image`."""
    for name, documents in kubernetes(plan).items():
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text(as_yaml(plan, documents))
    split = round(100 * plan.canary_replicas / (plan.replicas + plan.canary_replicas))
    told = template("kubernetes.md").substitute(
        model=plan.model,
        name=plan.name,
        run=plan.run,
        image=plan.image,
        replicas=plan.replicas,
        canary_replicas=plan.canary_replicas,
        split=split,
        port=CONTAINER.port,
    )
    (out / "README.md").write_text(told)


def kubernetes(plan: Plan) -> dict[str, list[Document]]:
    """The documents of each file."""
    return {
        "live/deployment.yaml": [_deployment(plan, "live", plan.replicas)],
        "live/service.yaml": [_service(plan), _network_policy(plan)],
        "live/scaling.yaml": [_autoscaler(plan), _disruption_budget(plan)],
        "canary/deployment.yaml": [_deployment(plan, "canary", plan.canary_replicas)],
    }


def _labels(plan: Plan, track: str | None = None) -> dict[str, str]:
    return {"app.kubernetes.io/name": plan.name} | ({"marline.track": track} if track else {})


def _named(kind: str, version: str, plan: Plan, track: str | None = None) -> Document:
    suffix = "-canary" if track == "canary" else ""
    return {"apiVersion": version, "kind": kind, "metadata": {"name": f"{plan.name}{suffix}", "labels": _labels(plan, track)}}


def _deployment(plan: Plan, track: str, replicas: int) -> Document:
    labels = _labels(plan, track)
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": labels},
    }
    pod = {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": plan.grace_s,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "topologySpreadConstraints": [spread],
        "containers": [_model(plan)],
        "volumes": [
            {"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
            {"name": "temp", "emptyDir": {}},
            {"name": "token", "secret": {"secretName": f"{plan.name}-token", "defaultMode": 0o440}},
        ],
    }
    spec = {
        # the autoscaler counts the live pods; a number here would undo its work at each apply
        **({} if track == "live" else {"replicas": replicas}),
        "selector": {"matchLabels": labels},
        # a new pod answers before an old one goes: GPUs and memory for one more are needed
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "progressDeadlineSeconds": 2 * plan.serving.startup_timeout_s + 300,
        "template": {
            "metadata": {
                "labels": labels,
                "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": str(CONTAINER.metrics_port)},
            },
            "spec": pod,
        },
    }
    return {**_named("Deployment", "apps/v1", plan, track), "spec": spec}


def _model(plan: Plan) -> Document:
    limits = {"memory": f"{plan.memory_mib}Mi"} | ({"nvidia.com/gpu": plan.gpus} if plan.gpus else {})
    return {
        "name": "model",
        "image": plan.image,
        "env": [{"name": "OMP_NUM_THREADS", "value": str(plan.threads)}],
        "ports": [
            {"name": "http", "containerPort": CONTAINER.port},
            {"name": "metrics", "containerPort": CONTAINER.metrics_port},
        ],
        "securityContext": RESTRICTED,
        # no limit on processors: what is over may be used; what was measured is asked for
        "resources": {"requests": {"cpu": str(plan.cores), "memory": f"{plan.memory_mib}Mi"}, "limits": limits},
        "startupProbe": {**_probe("startup", 2), "failureThreshold": math.ceil(plan.serving.startup_timeout_s / 2) + 15},
        "readinessProbe": {**_probe("readiness", 5), "failureThreshold": 1},
        "livenessProbe": {**_probe("liveness", 10), "failureThreshold": 2},
        # first every node hears that this pod is going; then the gateway answers what it has taken, and TorchServe is stopped
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(ROUTED_S)]}}},
        "volumeMounts": [
            {"name": "run", "mountPath": str(CONTAINER.run)},
            {"name": "temp", "mountPath": str(CONTAINER.temp)},
            {"name": "token", "mountPath": str(CONTAINER.token.parent), "readOnly": True},
        ],
    }


def _probe(role: str, period_s: int) -> Document:
    """Asks for READY workers, inside the container: /ping says Healthy without any."""
    command = ["python", str(CONTAINER.home / "probe.py"), role]
    return {"exec": {"command": command}, "periodSeconds": period_s, "timeoutSeconds": 10}


def _service(plan: Plan) -> Document:
    """Asks live and canary pods in turn, so that each gets as many requests as it has pods."""
    ports = [{"name": "http", "port": 80, "targetPort": "http"}]
    return {**_named("Service", "v1", plan), "spec": {"selector": _labels(plan), "ports": ports}}


def _network_policy(plan: Plan) -> Document:
    ports = [{"protocol": "TCP", "port": port} for port in (CONTAINER.port, CONTAINER.metrics_port)]
    spec = {"podSelector": {"matchLabels": _labels(plan)}, "policyTypes": ["Ingress"], "ingress": [{"ports": ports}]}
    return {**_named("NetworkPolicy", "networking.k8s.io/v1", plan), "spec": spec}


def _autoscaler(plan: Plan) -> Document:
    cpu = {"name": "cpu", "container": "model", "target": {"type": "Utilization", "averageUtilization": CPU_PERCENT}}
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": plan.name},
        "minReplicas": plan.replicas,
        "maxReplicas": 4 * plan.replicas,
        "metrics": [{"type": "ContainerResource", "containerResource": cpu}],
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 300}},
    }
    return {**_named("HorizontalPodAutoscaler", "autoscaling/v2", plan), "spec": spec}


def _disruption_budget(plan: Plan) -> Document:
    spec = {"maxUnavailable": 1, "selector": {"matchLabels": _labels(plan)}}
    return {**_named("PodDisruptionBudget", "policy/v1", plan), "spec": spec}
