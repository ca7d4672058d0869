"""What checkov finds in what the chart renders is answered in docs/kubernetes.md, and nothing else."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.specs.rayservice import Platform
from deploy.specs.study_cluster import study_cluster
from tests import kube_tools
from tests.chart import documents, pods, render
from tests.chart_cases import BASES, CONTROLLER, POSTGRES, SERVICE, TWO_NODES, merged
from tests.study_clusters import TRIALS
from tuner.ask.request import ClusterSpec

pytestmark = [pytest.mark.tools, pytest.mark.slow]
PAGE = Path(__file__).parents[2] / "docs" / "kubernetes.md"
RAY = {
    "tuner": {
        "launchers": ["ray"],
        "rayAddress": "ray-head:6379",
        "token": {"secret": "t"},
        "ingress": {"host": "a.b"},
    }
}
INSTALLATIONS = {
    "service": merged(SERVICE, RAY),
    "postgres": merged(POSTGRES, RAY),
    "winner": merged(TWO_NODES, {"serving": {"rdma": {"resource": "rdma/hca"}}}),
    "both": BASES["both"],
    "controller": CONTROLLER,
}


def trial_pods() -> list[dict[str, Any]]:
    """Of a RayCluster that the controller makes for a study."""
    groups = (ClusterSpec(gpu="h100_sxm", gpus_per_node=8),)
    spec = study_cluster("trials", groups, Platform(), TRIALS, "org/model")["spec"]
    found = []
    for place, group in enumerate((spec["headGroupSpec"], *spec["workerGroupSpecs"])):
        metadata = {"name": f"trials-{place}", "namespace": "models", "labels": {"parlay.dev/serving": "trials"}}
        pod = group["template"]["spec"]
        found.append({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod})
    return found


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Kinds of objects by the checks that they fail. The pods of a RayService, which checkov does not know, as pods."""
    values, folder = tmp_path_factory.mktemp("values"), tmp_path_factory.mktemp("rendered")
    for name, installation in INSTALLATIONS.items():
        made = documents(render(installation, values))
        for service in [document for document in made if document["kind"] == "RayService"]:
            labels = {"parlay.dev/serving": service["metadata"]["name"]}
            metadata = {"namespace": "models", "labels": labels}
            made += [
                {"apiVersion": "v1", "kind": "Pod", "metadata": {**metadata, "name": f"ray-{place}"}, "spec": pod}
                for place, pod in enumerate(pods(service))
            ]
        (folder / f"{name}.yaml").write_text(yaml.safe_dump_all(made), encoding="utf-8")
    (folder / "trials.yaml").write_text(yaml.safe_dump_all(trial_pods()), encoding="utf-8")
    words = ["--framework", "kubernetes", "-d", str(folder), "--compact", "--quiet", "-o", "json"]
    done = subprocess.run([str(kube_tools.checkov()), *words], capture_output=True, text=True, timeout=300)
    report = json.loads(done.stdout)
    assert report["summary"]["passed"] > 300
    assert report["summary"]["parsing_errors"] == 0
    found: dict[str, set[str]] = {}
    for check in report["results"]["failed_checks"]:
        found.setdefault(check["check_id"], set()).add(check["resource"].partition(".")[0])
    return found


def answers() -> dict[str, set[str]]:
    """Of the page's table: the kinds of objects by check."""
    rows = re.findall(r"^\| (CKV\w+) \| ([^|]+) \| [^|]+ \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return {check: set(kinds.split(", ")) for check, kinds in rows}


def test_each_finding_has_an_answer_and_each_answer_a_finding(findings: dict[str, set[str]]) -> None:
    assert findings == answers()
