"""The chart under a real Helm: it lints, refuses bad values, and renders the RayService that Parlay emits."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.specs.holes import filled
from deploy.specs.pods import RAY_CLUSTER
from deploy.specs.site_values import SITE_DEFAULTS
from deploy.specs.writing import emit, write_all
from tests import crd, kube_tools
from tests.chart import CHART, Document, documents, helm
from tests.spec_cases import CASES, Case

pytestmark = pytest.mark.tools


def service_of(text: str) -> Document:
    """The RayService of a rendering."""
    return next(document for document in documents(text) if document["kind"] == "RayService")


def values_file(case: Case, folder: Path) -> Path:
    path = folder / "values.yaml"
    path.write_text(emit("helm-values", case.shipment, case.platform), encoding="utf-8")
    return path


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_renders_the_emitted_rayservice(case: Case, tmp_path: Path) -> None:
    values = values_file(case, tmp_path)
    lint = helm("lint", "--strict", str(CHART), "--values", str(values))
    assert lint.returncode == 0, lint.stdout + lint.stderr
    done = helm("template", "release", str(CHART), "--values", str(values))
    assert done.returncode == 0, done.stderr
    rendered = service_of(done.stdout)
    emitted: dict[str, Any] = yaml.safe_load(emit("rayservice", case.shipment, case.platform))
    labels = rendered["metadata"].pop("labels")
    assert rendered["metadata"].pop("namespace") == "default"
    assert emitted["metadata"].pop("labels").items() <= labels.items()
    assert labels["helm.sh/chart"] == "parlay-0.1.0"
    assert rendered == emitted
    assert crd.problems(rendered) == []


def test_without_a_layout_it_renders_nothing() -> None:
    assert helm("lint", "--strict", str(CHART)).returncode == 0
    assert yaml.safe_load(helm("template", "release", str(CHART)).stdout) is None


def test_what_an_operator_sets_reaches_the_pods(tmp_path: Path) -> None:
    """The chart fills its pods with the values that it is given, as ``filled`` does."""
    case = CASES[0]
    words = [
        "serving.cacheClaim=weights",
        "serving.tokenSecret=hub",
        "serving.gpuResource=amd.com/gpu",
        "serving.nodeSelector.pool=serving",
        "serving.image=registry/vllm:7",
        "serving.modelVolume.claim=models",
        "serving.modelVolume.path=/models/a b",
        "serving.workerGroups[0].replicas=3",
        "serving.workerGroups[0].gpus=2",
        "serving.workerGroups[0].logicalGpus=5",
        "serving.workerGroups[0].name=others",
        "serving.workerGroups[0].gpuType=b200",
        "serving.podLabels.team=a",
        "serving.gpuTypes.b200.nodeSelector.gpu=b200",
        "serving.gpuTypes.b200.tolerations[0].key=b200",
        "serving.tolerations[0].operator=Exists",
        "serving.rdma.resource=rdma/hca",
        "serving.rdma.count=4",
        "serving.topologySpread.topologyKey=zone",
    ]
    strings = ["serving.workerGroups[0].cpu=12", "serving.workerGroups[0].memory=90Gi"]
    values = values_file(case, tmp_path)
    given = yaml.safe_load(values.read_text(encoding="utf-8"))["serving"] | {
        "cacheClaim": "weights",
        "tokenSecret": "hub",
        "gpuResource": "amd.com/gpu",
        "nodeSelector": {"pool": "serving"},
        "image": "registry/vllm:7",
        "modelVolume": {"claim": "models", "path": "/models/a b"},
        "workerGroups": [
            {
                "name": "others",
                "gpuType": "b200",
                "replicas": 3,
                "gpus": 2,
                "logicalGpus": 5,
                "cpu": "12",
                "memory": "90Gi",
            },
        ],
        "podLabels": {"team": "a"},
        "gpuTypes": {"b200": {"nodeSelector": {"gpu": "b200"}, "tolerations": [{"key": "b200"}]}},
        "tolerations": [{"operator": "Exists"}],
        "rdma": {"resource": "rdma/hca", "count": 4, "hostNetwork": False},
        "topologySpread": {"topologyKey": "zone", "maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway"},
    }
    flags = [flag for word in words for flag in ("--set", word)]
    flags += [flag for word in strings for flag in ("--set-string", word)]
    done = helm("template", "release", str(CHART), "--values", str(values), *flags)
    assert done.returncode == 0, done.stderr
    rendered = service_of(done.stdout)
    assert rendered["spec"]["rayClusterConfig"] == filled(RAY_CLUSTER, {"serving": SITE_DEFAULTS | given})
    assert crd.problems(rendered) == []


def test_a_release_without_a_name_for_the_service_lends_its_own(tmp_path: Path) -> None:
    values = values_file(CASES[0], tmp_path)
    done = helm("template", "my-release", str(CHART), "--values", str(values), "--set", "serving.name=")
    cluster = service_of(done.stdout)["spec"]["rayClusterConfig"]
    assert service_of(done.stdout)["metadata"]["name"] == "my-release"
    assert cluster["headGroupSpec"]["template"]["metadata"]["labels"]["parlay.dev/serving"] == "my-release"


@pytest.mark.slow
def test_the_kustomization_builds_the_manifest_beside_it(tmp_path: Path) -> None:
    """By kubectl: nothing but a label is added."""
    for case in CASES:
        folder = tmp_path / case.name
        paths = write_all(folder, case.shipment, case.platform)
        done = subprocess.run([str(kube_tools.kubectl()), "kustomize", str(folder)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        built, manifest = yaml.safe_load(done.stdout), yaml.safe_load(paths["rayservice"].read_text(encoding="utf-8"))
        assert built["metadata"]["labels"].pop("app.kubernetes.io/managed-by") == "parlay"
        assert built == manifest
