"""What a site says of pods, read from the file that the chart writes: the chart's words, defaults and pods."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.specs.rayservice import Platform
from deploy.specs.site_values import SITE_KEYS, Site, read_site
from deploy.specs.writing import emit
from serve.launch.niceness import VARIABLE
from tests import crd
from tests.spec_cases import CASES
from tuner.errors import BadInput

CHART = Path(__file__).parents[2] / "helm" / "parlay"
WHOLE: dict[str, Any] = {
    "gpuTypes": {"h100_sxm": {"nodeSelector": {"gpu": "h100"}, "runtimeClassName": "nvidia"}},
    "tolerations": [{"key": "models", "operator": "Exists"}],
    "rdma": {"resource": "rdma/hca", "count": 8, "hostNetwork": True},
    "gang": {"scheduler": "kueue", "queue": "serving"},
    "imagePullSecrets": [{"name": "registry"}],
    "priorityClassName": "high",
    "extraEnv": [{"name": "NCCL_IB_HCA", "value": "mlx5"}],
    "extraVolumes": [{"name": "nvme", "hostPath": {"path": "/nvme"}}],
    "extraVolumeMounts": [{"name": "nvme", "mountPath": "/nvme"}],
    "tokenSecret": "hub",
    "cacheClaim": "weights",
    "sharedMemory": "32Gi",
    "head": {"cpu": "8", "memory": "32Gi"},
    "topologySpread": {"topologyKey": "topology.kubernetes.io/zone"},
    "upgrade": "NewCluster",
}


def site_of(folder: Path, document: Any) -> Site:
    path = folder / "site.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return read_site(path)


def test_what_nobody_sets_is_as_in_the_chart() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))["serving"]
    assert Site.model_validate({key: values[key] for key in SITE_KEYS}) == Site()
    assert emit("rayservice", CASES[0].shipment, Platform.at(Site())) == emit("rayservice", CASES[0].shipment)


@pytest.mark.slow
def test_all_that_a_site_says_is_in_the_manifest(tmp_path: Path) -> None:
    case = next(case for case in CASES if case.name == "one-node")
    manifest = yaml.safe_load(emit("rayservice", case.shipment, Platform.at(site_of(tmp_path, WHOLE))))
    assert crd.problems(manifest) == []
    assert manifest["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "serving"
    assert manifest["spec"]["upgradeStrategy"] == {"type": "NewCluster"}
    cluster = manifest["spec"]["rayClusterConfig"]
    pod = cluster["workerGroupSpecs"][0]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["nodeSelector"] == {"gpu": "h100"}
    assert pod["runtimeClassName"] == "nvidia"
    assert pod["hostNetwork"] is True
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert pod["priorityClassName"] == "high"
    assert pod["topologySpreadConstraints"][0]["maxSkew"] == 1
    assert {"key": "models", "operator": "Exists"} in pod["tolerations"]
    assert container["resources"]["limits"]["rdma/hca"] == "8"
    assert {one["name"] for one in container["env"]} == {"HF_HOME", "HF_TOKEN", "NCCL_IB_HCA", VARIABLE}
    assert "32Gi" in str(pod["volumes"])
    assert "weights" in str(pod["volumes"])
    assert "/nvme" in str(pod["volumes"])
    assert cluster["headGroupSpec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"] == "8"


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ({"gangs": {}}, "gangs"),
        ({"gang": {"scheduler": "slurm"}}, "gang.scheduler"),
        ({"gang": {"scheduler": "kueue"}}, "gang"),
        ({"rdma": {"count": 0}}, "rdma.count"),
        ({"rdma": {"resource": "hca"}}, "rdma.resource"),
        ({"sharedMemory": "20"}, "sharedMemory"),
        ({"imagePullPolicy": "Sometimes"}, "imagePullPolicy"),
        ({"extraVolumes": [{"emptyDir": {}}]}, "extraVolumes"),
        ({"extraEnv": [{"name": "HF_TOKEN", "value": "hf_x"}]}, "extraEnv"),
        ({"topologySpread": {"maxSkew": 0}}, "topologySpread.maxSkew"),
        ({"gpuTypes": {"h100_sxm": {"nodes": {}}}}, "gpuTypes.h100_sxm.nodes"),
        ([], "mapping"),
    ],
)
def test_what_cannot_work_is_refused_by_name(document: Any, named: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput) as refused:
        site_of(tmp_path, document)
    assert named in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="nothing"):
        read_site(tmp_path / "nothing.yaml")
