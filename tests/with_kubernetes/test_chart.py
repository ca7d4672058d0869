"""The commands of docs/kubernetes.md against a real API server, by both Helms: up to where KubeRay takes over.

The server is of a version without ``policy/v1``, so that budgets are left out. Nothing runs pods there: what the page
runs in one is run here.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.specs.writing import emit
from tests import kube_tools, tools
from tests.api_server import ApiServer
from tests.kube_bench import RealKube
from tests.spec_cases import CASES, Case

pytestmark = [pytest.mark.tools, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "kubernetes.md"
HELMS = {"helm-3": tools.helm, "helm-4": kube_tools.helm4}


def four_commands() -> list[list[str]]:
    """Those from an empty namespace to a served model."""
    section = PAGE.read_text(encoding="utf-8").partition("## From an empty namespace")[2]
    found = re.search(r"^```sh\n(.*?)^```$", section, re.M | re.S)
    assert found
    return [shlex.split(line) for line in found[1].splitlines()]


def layouts_values(case: Case, folder: Path) -> Path:
    """What the page fetches, under one name for all layouts."""
    document = yaml.safe_load(emit("helm-values", case.shipment, case.platform))
    document["serving"]["name"] = "llama"
    path = folder / f"{case.name}.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return path


class Cluster:
    """One Helm and kubectl in a namespace of their own."""

    def __init__(self, server: ApiServer, helm: str) -> None:
        self.namespace, self._helm = f"models-{helm}", HELMS[helm]()
        self._environment = {"KUBECONFIG": str(server.kubeconfig), "HOME": str(server.folder), "PATH": "/usr/bin:/bin"}

    def run(self, *words: str, program: Path | None = None) -> str:
        words = tuple(self.namespace if word == "models" else word for word in words)
        done = subprocess.run(
            [str(program or self._helm), *words],
            capture_output=True, text=True, env=self._environment, cwd=ROOT, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def names(self, kinds: str) -> set[str]:
        return set(self.run("--namespace", "models", "get", kinds, "-o", "name", program=kube_tools.kubectl()).split())

    def service(self) -> dict[str, Any]:
        words = ("--namespace", "models", "get", "rayservice", "llama", "-o", "json")
        read: dict[str, Any] = json.loads(self.run(*words, program=kube_tools.kubectl()))
        return read


@pytest.mark.parametrize("helm", HELMS)
def test_from_an_empty_namespace_to_a_rayservice(
    helm: str, server: ApiServer, prepared: RealKube, tmp_path: Path
) -> None:
    cluster = Cluster(server, helm)
    install, token, fetch, upgrade = four_commands()
    words = [word.replace("IMAGE", "registry/parlay:1") for word in install[1:]]
    said = cluster.run(*words, "--set", "tuner.disruptionBudget.enabled=false")
    assert "port-forward service/parlay" in said
    kinds = "deployment,service,networkpolicy,persistentvolumeclaim"
    assert {name.rpartition("/")[2] for name in cluster.names(kinds)} == {"parlay"}

    assert token[:4] == ["kubectl", "--namespace", "models", "exec"]
    in_pod = [str(tmp_path) if word == "/var/lib/parlay" else word for word in token[token.index("--") + 2 :]]
    made = subprocess.run(
        [sys.executable, "-m", "tuner.app.cli.commands", *in_pod], capture_output=True, text=True, cwd=ROOT
    )
    assert made.stdout.startswith("parlay_")

    assert "/v1/studies/STUDY/specs/helm-values" in fetch[2]
    for case in (CASES[0], CASES[1], CASES[0]):
        path = layouts_values(case, tmp_path)
        cluster.run(*(str(path) if word == "helm-values.yaml" else word for word in upgrade[1:]))
        found = cluster.service()
        assert found["metadata"]["annotations"]["parlay/layout"] == str(case.layout)
        assert found["spec"]["serveConfigV2"] == emit("ray-serve", case.shipment, case.platform)
    assert {"deployment.apps/parlay"} <= cluster.names("deployment")

    cluster.run("rollback", "parlay", "3", "--namespace", "models")
    assert cluster.service()["metadata"]["annotations"]["parlay/layout"] == str(CASES[1].layout)
    cluster.run("uninstall", "parlay", "--namespace", "models")
    assert cluster.names(f"{kinds},rayservice") == {"persistentvolumeclaim/parlay"}  # the studies outlive the release
    cluster.run(*words, "--set", "tuner.disruptionBudget.enabled=false")
    assert "deployment.apps/parlay" in cluster.names("deployment")
