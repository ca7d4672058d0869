"""Values of the chart that are tested: what is set on top of which, and what of the rendering may differ by it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

from deploy.specs.writing import emit
from tests.spec_cases import CASES

Values = dict[str, Any]


def merged(values: Values, over: Values) -> Values:
    """As Helm merges files of values: mappings key by key, all else replaced."""
    both = {
        key: merged(values[key], value) if isinstance(value, dict) and isinstance(values.get(key), dict) else value
        for key, value in over.items()
    }
    return {**values, **both}


def _serving(name: str) -> Values:
    case = next(case for case in CASES if case.name == name)
    read: Values = yaml.safe_load(emit("helm-values", case.shipment, case.platform))
    return read


SERVICE: Values = {"tuner": {"enabled": True, "image": "registry.example/parlay@sha256:" + "0" * 64}}
POSTGRES = merged(SERVICE, {"tuner": {"store": {"postgres": {"secret": "parlay-database"}}}})
CONTROLLER: Values = {
    "controller": {"enabled": True, "image": SERVICE["tuner"]["image"], "store": {"secret": "parlay-database"}}
}
WINNER, TWO_NODES, CPU = _serving("one-node"), _serving("two-nodes"), _serving("cpu")
BASES: dict[str, Values] = {
    "nothing": {},
    "service": SERVICE,
    "postgres": POSTGRES,
    "winner": WINNER,
    "two-nodes": TWO_NODES,
    "cpu": CPU,
    "both": merged(POSTGRES, WINNER),
    "controller": CONTROLLER,
    "all": merged(merged(SERVICE, WINNER), {"controller": {"enabled": True}}),
}


@dataclass(frozen=True)
class Change:
    """``over`` on top of a base: each path that differs matches one of ``where`` (globs), and each of those is met."""

    name: str
    base: str
    over: Values
    where: tuple[str, ...]

    @property
    def values(self) -> Values:
        return merged(BASES[self.base], self.over)


def _tuner(name: str, over: Values, *where: str, base: str = "postgres") -> Change:
    return Change(f"{base}-{name}", base, {"tuner": over}, where)


def _serve(name: str, over: Values, *where: str, base: str = "winner") -> Change:
    return Change(f"{base}-{name}", base, {"serving": over}, where)


def _watch(name: str, over: Values, *where: str, base: str = "postgres") -> Change:
    return Change(f"{base}-{name}", base, {"monitoring": over}, where)


def _ask(name: str, over: Values, *where: str, base: str = "controller") -> Change:
    return Change(f"{base}-{name}", base, {"controller": over}, where)


_PODS = "*/template/spec/"
_WORKER = "RayService/*/workerGroupSpecs/*/template/spec/"
CHANGES = (
    _tuner("pull-policy", {"imagePullPolicy": "Always"}, "*/imagePullPolicy"),
    _tuner("pull-secrets", {"imagePullSecrets": [{"name": "registry"}]}, _PODS + "imagePullSecrets/*"),
    _tuner(
        "ray",
        {"launchers": ["ray", "simulated"], "rayAddress": "ray-head:6379"},
        "Deployment/parlay/*/containers/0/args/*",
        "Deployment/parlay-worker/*/containers/0/args/*",
        "Deployment/parlay-worker/*/containers/1/*",
        "NetworkPolicy/parlay-worker/spec/ingress/1/from/*",
        "*/volumes/2/*",
        "*/volumeMounts/2/*",
    ),
    _tuner(
        "ray",
        {"launchers": ["ray"], "rayAddress": "ray-head:6379"},
        "Deployment/parlay/*/containers/0/args/*",
        "Deployment/parlay/*/containers/1/*",
        "NetworkPolicy/parlay/spec/ingress/1/from/*",
        "*/volumes/2/*",
        "*/volumeMounts/2/*",
        base="service",
    ),
    _tuner("roots", {"roots": ["/models"]}, "Deployment/parlay/*/args/6", "Deployment/parlay-worker/*/args/5"),
    _tuner("open-metrics", {"metrics": "open"}, "Deployment/parlay/*/args/6"),
    _tuner("oidc", {"oidc": {"issuer": "https://id.example", "audience": "parlay"}}, "Deployment/parlay/*/args/*"),
    _tuner("deployed", {"deployed": ["llama=http://llama-head-svc:8080/metrics"]}, "Deployment/parlay/*/args/6"),
    _tuner("old-studies", {"retention": {"keepDays": 90}}, "Deployment/parlay/*/args/6"),
    _tuner(
        "archive",
        {"retention": {"keepDays": 90, "archiveTo": "/var/lib/parlay/old"}},
        "Deployment/parlay/*/args/*",
        base="service",
    ),
    _tuner("database-key", {"store": {"postgres": {"key": "dsn"}}}, "*/env/2/valueFrom/secretKeyRef/key"),
    _tuner("arguments", {"api": {"extraArgs": ["--keep-days=90"]}}, "Deployment/parlay/*/containers/0/args/6"),
    _tuner("api-replicas", {"api": {"replicas": 3}}, "Deployment/parlay/spec/replicas"),
    _tuner("workers", {"worker": {"replicas": 4}}, "Deployment/parlay-worker/spec/replicas"),
    _tuner("no-workers", {"worker": {"replicas": 0}}, "Deployment/parlay-worker/spec/replicas"),
    _tuner(
        "autoscaled",
        {"api": {"autoscaled": True}, "worker": {"autoscaled": True}},
        "Deployment/parlay/spec/replicas",
        "Deployment/parlay-worker/spec/replicas",
    ),
    _tuner("scratch", {"scratch": "1Gi"}, "*/emptyDir/sizeLimit"),
    _tuner("worker-size", {"worker": {"cpu": "8", "memory": "32Gi"}}, "Deployment/parlay-worker/*/resources/*"),
    _tuner("token", {"token": {"secret": "parlay-token"}}, "Deployment/parlay/*/initContainers/*"),
    _tuner("service", {"service": {"type": "LoadBalancer", "port": 8080}}, "Service/parlay/spec/*"),
    _tuner("ingress", {"ingress": {"host": "parlay.example"}}, "Ingress/parlay/*"),
    _tuner(
        "ingress-tls",
        {"ingress": {"host": "parlay.example", "tlsSecret": "tls", "className": "nginx", "annotations": {"a/b": "c"}}},
        "Ingress/parlay/*",
    ),
    _tuner("no-policy", {"networkPolicy": {"enabled": False}}, "NetworkPolicy/parlay*"),
    _tuner(
        "policy-from",
        {"networkPolicy": {"from": [{"namespaceSelector": {}}]}},
        "NetworkPolicy/parlay*/spec/ingress/0/from/*",
    ),
    _tuner(
        "policy-egress",
        {"networkPolicy": {"egress": [{"ports": [{"port": 5432}]}]}},
        "NetworkPolicy/parlay*/spec/egress/*",
        "NetworkPolicy/parlay*/spec/policyTypes/1",
    ),
    _tuner("no-budget", {"disruptionBudget": {"enabled": False}}, "PodDisruptionBudget/*"),
    _tuner("accounts", {"serviceAccountAnnotations": {"iam/role": "r"}}, "ServiceAccount/*/annotations/*"),
    _tuner("priority", {"priorityClassName": "high"}, _PODS + "priorityClassName"),
    _tuner("pod-labels", {"podLabels": {"team": "a"}}, "*/template/metadata/labels/team"),
    _tuner("pod-annotations", {"podAnnotations": {"a/b": "c"}}, "*/template/metadata/annotations/*"),
    _tuner("nodes", {"nodeSelector": {"pool": "cpu"}}, _PODS + "nodeSelector/pool"),
    _tuner("taints", {"tolerations": [{"key": "cpu", "operator": "Exists"}]}, _PODS + "tolerations/*"),
    _tuner("affinity", {"affinity": {"nodeAffinity": {}}}, _PODS + "affinity/*"),
    _tuner("no-spread", {"topologyKey": ""}, _PODS + "topologySpreadConstraints/*"),
    _tuner("environment", {"extraEnv": [{"name": "HTTPS_PROXY", "value": "http://p:1"}]}, "*/containers/0/env/*"),
    _tuner(
        "volumes",
        {
            "extraVolumes": [{"name": "models", "persistentVolumeClaim": {"claimName": "m"}}],
            "extraVolumeMounts": [{"name": "models", "mountPath": "/models", "readOnly": True}],
        },
        _PODS + "volumes/2/*",
        "*/volumeMounts/2/*",
    ),
    _tuner("size", {"store": {"volume": {"size": "1Ti"}}}, "PersistentVolumeClaim/*/storage", base="service"),
    _tuner("class", {"store": {"volume": {"storageClass": "fast"}}}, "*/storageClassName", base="service"),
    _tuner(
        "claim",
        {"store": {"volume": {"existingClaim": "studies"}}},
        "PersistentVolumeClaim/parlay/*",
        "Deployment/parlay/*/claimName",
        base="service",
    ),
    _tuner(
        "processes",
        {"worker": {"replicas": 3}},
        "Deployment/parlay/*/args/3",
        "Deployment/parlay/*/containers/0/ports/*",
        "Service/parlay-worker/spec/ports/*",
        "NetworkPolicy/parlay/spec/ingress/0/ports/*",
        base="service",
    ),
    _tuner(
        "no-processes",
        {"worker": {"replicas": 0}},
        "Deployment/parlay/*/args/*",
        "Deployment/parlay/*/containers/0/ports/*",
        "Service/parlay-worker/*",
        "NetworkPolicy/parlay/spec/ingress/0/ports/*",
        base="service",
    ),
    _tuner(
        "token", {"token": {"secret": "t", "scope": "tune"}}, "Deployment/parlay/*/initContainers/*", base="service"
    ),
    _serve("release-name", {"name": ""}, "RayService/*", "NetworkPolicy/*"),
    _serve("image", {"image": "registry/vllm@sha256:0", "rayVersion": "2.61.0"}, "*/image", "*/rayVersion"),
    _serve("head", {"head": {"cpu": "8", "memory": "32Gi"}}, "*/headGroupSpec/*/resources/*"),
    _serve("amd", {"gpuResource": "amd.com/gpu"}, "*/amd.com/gpu", "*/nvidia.com/gpu", _WORKER + "tolerations/0/key"),
    _serve("cache", {"cacheClaim": "weights"}, "*/volumes/1/*"),
    _serve("model", {"modelVolume": {"claim": "m", "path": "/models/x"}}, "*/volumes/2/*", "*/volumeMounts/2/*"),
    _serve("hub-token", {"tokenSecret": "hub"}, "*/env/1/valueFrom/secretKeyRef/name"),
    _serve("nodes", {"nodeSelector": {"pool": "gpu"}}, _WORKER + "nodeSelector/pool"),
    _serve("pull-secrets", {"imagePullSecrets": [{"name": "r"}]}, _PODS + "imagePullSecrets/*"),
    _serve("priority", {"priorityClassName": "high", "serviceAccountName": "s"}, _PODS + "*Name"),
    _serve("labels", {"podLabels": {"team": "a"}}, "*/template/metadata/labels/team"),
    _serve("annotations", {"podAnnotations": {"a/b": "c"}}, "*/template/metadata/annotations/*"),
    _serve("environment", {"extraEnv": [{"name": "NCCL_DEBUG", "value": "INFO"}]}, "*/env/3/*"),
    _serve("front", {"rayEnv": [{"name": "RAY_SERVE_ENABLE_HA_PROXY", "value": "1"}]}, "*/env/3/*"),
    _serve(
        "volumes",
        {"extraVolumes": [{"name": "v", "emptyDir": {}}], "extraVolumeMounts": [{"name": "v", "mountPath": "/v"}]},
        "*/volumes/2/*",
        "*/volumeMounts/2/*",
    ),
    _serve("taints", {"tolerations": [{"key": "x", "operator": "Exists"}]}, _PODS + "tolerations/*"),
    _serve("runtime", {"runtimeClassName": "nvidia"}, _WORKER + "runtimeClassName"),
    _serve(
        "gpu-type",
        {
            "gpuTypes": {
                "h100_sxm": {
                    "nodeSelector": {"gpu": "h100"},
                    "tolerations": [{"key": "h100", "operator": "Exists"}],
                    "runtimeClassName": "nvidia",
                },
                "a100_sxm": {"runtimeClassName": "other"},
            }
        },
        _WORKER + "nodeSelector/gpu",
        _WORKER + "tolerations/1/*",
        _WORKER + "runtimeClassName",
    ),
    _serve(
        "spread",
        {"affinity": {"podAffinity": {}}, "topologySpread": {"topologyKey": "topology.kubernetes.io/zone"}},
        _WORKER + "affinity/*",
        _WORKER + "topologySpreadConstraints/*",
    ),
    _serve("kueue", {"gang": {"scheduler": "kueue", "queue": "q"}}, "RayService/*/labels/kueue.x-k8s.io/queue-name"),
    _serve(
        "volcano",
        {"gang": {"scheduler": "volcano", "queue": "q"}},
        "RayService/*/labels/ray.io/scheduler-name",
        "RayService/*/labels/volcano.sh/queue-name",
    ),
    _serve(
        "rdma",
        {"rdma": {"resource": "rdma/hca", "count": 8, "hostNetwork": True}},
        _WORKER + "containers/0/resources/*/rdma/hca",
        _WORKER + "containers/0/securityContext/capabilities/add/0",
        _WORKER + "hostNetwork",
        _WORKER + "dnsPolicy",
        base="two-nodes",
    ),
    _serve("budget", {"disruptionBudget": {"enabled": True}}, "PodDisruptionBudget/*", base="two-nodes"),
    _serve(
        "operator",
        {"networkPolicy": {"operatorNamespace": "kuberay"}},
        "NetworkPolicy/*/ingress/0/from/1/namespaceSelector*",
        base="two-nodes",
    ),
    _serve("upgrade", {"upgrade": "NewCluster"}, "RayService/*/upgradeStrategy/type", base="two-nodes"),
    _serve("no-policy", {"networkPolicy": {"enabled": False}}, "NetworkPolicy/*", base="two-nodes"),
    _serve("policy", {"networkPolicy": {"from": [{"podSelector": {}}]}}, "*/ingress/1/from/*", base="two-nodes"),
    _serve("runtime", {"runtimeClassName": "nvidia", "nodeSelector": {"a": "b"}}, base="cpu"),
    _watch(
        "scraped",
        {
            "serviceMonitor": {
                "enabled": True,
                "interval": "30s",
                "labels": {"release": "prometheus"},
                "token": {"secret": "reader"},
            }
        },
        "ServiceMonitor/parlay/*",
    ),
    _watch(
        "scraped",
        {"serviceMonitor": {"enabled": True, "token": {"secret": "reader"}}},
        "ServiceMonitor/parlay/*",
        base="service",
    ),
    _watch("pods", {"podMonitor": {"enabled": True, "labels": {"a": "b"}}}, "PodMonitor/one-node-ray/*", base="both"),
    _watch("rules", {"rules": {"enabled": True}}, "PrometheusRule/parlay/*"),
    _watch("dashboard", {"dashboard": {"enabled": True}}, "ConfigMap/parlay-dashboard/*"),
    _watch("scraped", {"serviceMonitor": {"enabled": True}}, "ServiceMonitor/parlay-controller/*", base="controller"),
    _ask("replicas", {"replicas": 2, "cpu": "500m", "memory": "2Gi"}, "*/replicas", "*/resources/*"),
    _ask("pull", {"imagePullPolicy": "Always", "imagePullSecrets": [{"name": "r"}]}, "*/imagePull*"),
    _ask(
        "namespaces",
        {"namespaces": ["one", "two"]},
        "Role/*",
        "RoleBinding/*",
        "Deployment/*/args/2",
        "Deployment/*/args/*",
    ),
    _ask(
        "everywhere",
        {"namespaces": "all"},
        *("Role/parlay-controller/*", "RoleBinding/parlay-controller/*", "ClusterRole*/*", "Deployment/*/args/2"),
    ),
    _ask(
        "trials",
        {"trials": {"maxGpus": 16, "image": "r/p:1"}},
        *("Role/*", "ConfigMap/*/trials.yaml", "Deployment/*/args/8", "*parlay.dev/site"),
    ),
    _ask("no-user-roles", {"userRoles": False}, "ClusterRole/*"),
    _ask("retune", {"retune": True}, "Role/*-retune/*", "RoleBinding/*-retune/*"),
    _ask("node-role", {"watchNodes": True}, "ClusterRole/*-nodes/*", "ClusterRoleBinding/*-nodes/*"),
    _ask("launchers", {"launchers": ["simulated", "ray"]}, "Deployment/*/args/3"),
    _ask("cluster", {"rayCluster": "trials", "rayVersion": "2.60.0", "engineImage": "r/e:1"}, "Deployment/*/args/*"),
    _ask("roots", {"roots": ["/models"]}, "Deployment/*/args/8"),
    _ask("claim", {"store": {"secret": "", "claim": "studies"}}, "Deployment/*/volumes/0/*", "Deployment/*/env/2/*"),
    _ask("no-budget", {"disruptionBudget": {"enabled": False}}, "PodDisruptionBudget/*"),
    _ask("no-spread", {"topologyKey": ""}, _PODS + "topologySpreadConstraints/*"),
    _ask("no-policy", {"networkPolicy": {"enabled": False}}, "NetworkPolicy/*"),
    _ask("policy", {"networkPolicy": {"from": [{"podSelector": {}}]}}, "NetworkPolicy/*/from/*"),
    _ask("nodes", {"nodeSelector": {"pool": "cpu"}, "priorityClassName": "high"}, _PODS + "*pool", _PODS + "*Name"),
    _ask("labels", {"podLabels": {"a": "b"}, "podAnnotations": {"c": "d"}}, "*/template/metadata/*"),
    _ask(
        "elsewhere",
        {"affinity": {"nodeAffinity": {}}, "tolerations": [{"operator": "Exists"}]},
        _PODS + "*",
        base="all",
    ),
    _ask("environment", {"extraEnv": [{"name": "HTTPS_PROXY", "value": "http://p:1"}]}, "Deployment/*/env/3/*"),
    Change(
        "extra-objects",
        "nothing",
        {
            "extraObjects": [
                {
                    "apiVersion": "v1",
                    "kind": "ConfigMap",
                    "metadata": {"name": "a"},
                    "data": {"in": "{{ .Release.Name }}"},
                },
                "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: b\n",
            ]
        },
        ("ConfigMap/a/*", "ConfigMap/b/*"),
    ),
    Change(
        "all-become-postgres",
        "all",
        {"tuner": {**POSTGRES["tuner"], "token": {"secret": "t"}}},
        ("Deployment/*", "PersistentVolumeClaim/*", "NetworkPolicy/parlay/*", "*/parlay-worker/*", "*migrat*"),
    ),
    Change("service-becomes-postgres", "service", POSTGRES, ("*",)),
    Change("winner-joins-the-service", "service", WINNER, ("RayService/*", "NetworkPolicy/one-node-ray/*")),
    Change("service-joins-the-winner", "winner", SERVICE, ("*/parlay/*", "Service/parlay-worker/*")),
)
