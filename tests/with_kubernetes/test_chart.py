"""The commands of docs/kubernetes.md against a real API server, by both Helms: up to where KubeRay takes over.

The server is of a version without ``policy/v1``, so that budgets are left out. Nothing runs pods there: what the page
runs in one, and what the containers of the release run, is run here, with the words that the API server holds.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.specs.writing import emit
from tests import kube_tools, tools
from tests.api_server import ApiServer
from tests.kube_bench import RealKube
from tests.layout_requests import KubeRayStandIn, layout_request
from tests.spec_cases import CASES, Case
from tuner.app.controller.kube import KubeError

pytestmark = [pytest.mark.tools, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "kubernetes.md"
HELMS = {"helm-3": tools.helm, "helm-4": kube_tools.helm4}


def commands(heading: str) -> list[list[str]]:
    """Those below a heading of the page."""
    section = PAGE.read_text(encoding="utf-8").partition(f"\n## {heading}")[2]
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

    def __init__(self, server: ApiServer, helm: str, prefix: str = "models") -> None:
        self.namespace, self._helm = f"{prefix}-{helm}", HELMS[helm]()
        self._environment = {"KUBECONFIG": str(server.kubeconfig), "HOME": str(server.folder), "PATH": "/usr/bin:/bin"}

    def run(self, *words: str, program: Path | None = None) -> str:
        """What it prints."""
        done = self._call(program or self._helm, *words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def refused(self, *words: str) -> str:
        """Why not."""
        done = self._call(self._helm, *words)
        assert done.returncode != 0
        return done.stderr

    def _call(self, program: Path, *words: str) -> subprocess.CompletedProcess[str]:
        words = tuple(self.namespace if word == "models" else word for word in words)
        return subprocess.run(
            [str(program), *words], capture_output=True, text=True, env=self._environment, cwd=ROOT, timeout=120
        )

    def names(self, kinds: str) -> set[str]:
        return set(self.run("--namespace", "models", "get", kinds, "-o", "name", program=kube_tools.kubectl()).split())

    def service(self) -> dict[str, Any]:
        words = ("--namespace", "models", "get", "rayservice", "llama", "-o", "json")
        read: dict[str, Any] = json.loads(self.run(*words, program=kube_tools.kubectl()))
        return read

    def files(self, config_map: str, folder: Path) -> None:
        """Write what it mounts into a folder of this machine."""
        words = ("--namespace", "models", "get", "configmap", config_map, "-o", "json")
        for name, text in json.loads(self.run(*words, program=kube_tools.kubectl()))["data"].items():
            (folder / name).write_text(text, encoding="utf-8")

    def containers(self, deployment: str) -> dict[str, list[str]]:
        """Their words, as the API server holds them."""
        words = ("--namespace", "models", "get", "deployment", deployment, "-o", "json")
        read = json.loads(self.run(*words, program=kube_tools.kubectl()))
        return {one["name"]: one["args"] for one in read["spec"]["template"]["spec"]["containers"]}


NO_BUDGETS = ("--set", "tuner.disruptionBudget.enabled=false,controller.disruptionBudget.enabled=false")


@pytest.mark.parametrize("helm", HELMS)
def test_what_a_study_found_is_served_by_hand(helm: str, server: ApiServer, prepared: RealKube, tmp_path: Path) -> None:
    cluster = Cluster(server, helm)
    (install, *_), (token, _, upgrade) = commands("From an empty namespace"), commands("By hand")
    assert install[-2:][0] == "--set"
    given = [word for word in install[-1].split(",") if not word.startswith("controller.")]
    words = [*install[1:-1], ",".join(given).replace("IMAGE", "registry/parlay:1")]
    said = cluster.run(*words, *NO_BUDGETS)
    assert "port-forward service/parlay" in said
    kinds = "deployment,networkpolicy,persistentvolumeclaim"
    assert {name.rpartition("/")[2] for name in cluster.names(kinds)} == {"parlay"}
    assert cluster.names("service") == {"service/parlay", "service/parlay-worker"}

    assert token[:4] == ["kubectl", "--namespace", "models", "exec"]
    in_pod = [str(tmp_path) if word == "/var/lib/parlay" else word for word in token[token.index("--") + 2 :]]
    made = subprocess.run(
        [sys.executable, "-m", "tuner.app.cli.commands", *in_pod], capture_output=True, text=True, cwd=ROOT
    )
    assert made.stdout.startswith("parlay_")

    for case in (CASES[0], CASES[1], CASES[0]):
        path = layouts_values(case, tmp_path)
        cluster.run(*(str(path) if word == "helm-values.yaml" else word for word in upgrade[1:]))
        found = cluster.service()
        assert found["metadata"]["annotations"]["parlay/layout"] == str(case.layout)
        assert found["spec"]["serveConfigV2"] == emit("ray-serve", case.shipment, case.platform)
    assert {"deployment.apps/parlay"} <= cluster.names("deployment")

    cluster.run("rollback", "parlay", "3", "--namespace", "models")
    assert cluster.service()["metadata"]["annotations"]["parlay/layout"] == str(CASES[1].layout)
    # Of what cannot be changed nothing is tried, and nothing else of that upgrade either.
    for value in ("tuner.store.volume.size=1Gi", "tuner.store.volume.storageClass=fast"):
        refused = cluster.refused(*upgrade[1:-2], "--set", value, "--set", "serving.layout=another")
        assert value.partition("=")[0] in refused
    assert cluster.service()["metadata"]["annotations"]["parlay/layout"] == str(CASES[1].layout)
    cluster.run(*upgrade[1:-2], "--set", "tuner.store.volume.size=10Gi")
    cluster.run("uninstall", "parlay", "--namespace", "models")
    assert cluster.names(f"{kinds},service,rayservice") == {"persistentvolumeclaim/parlay"}  # the studies outlive it
    cluster.run(*words, *NO_BUDGETS)
    assert "deployment.apps/parlay" in cluster.names("deployment")
    cluster.run("uninstall", "parlay", "--namespace", "models")


def test_from_an_empty_namespace_to_a_served_model(server: ApiServer, prepared: RealKube, tmp_path: Path) -> None:
    """All four commands of the page. No Ray is here: the devices are simulated, and KubeRay has a stand-in."""
    cluster = Cluster(server, "helm-4", "empty")
    install, apply, wait, get = commands("From an empty namespace")
    given = [word for word in install[-1].split(",") if not re.match(r"(tuner|controller)\.ray", word)]
    assert "tuner.launchers={ray}" in given
    text = ",".join(given).replace("{ray}", "{simulated}").replace("IMAGE", "registry/parlay:1")
    cluster.run(*install[1:-1], text, *NO_BUDGETS)
    assert {name.rpartition("/")[2] for name in cluster.names("deployment")} == {"parlay", "parlay-controller"}

    asked, document = tmp_path / "llama.yaml", layout_request(target={"rayVersion": "2.60.0"})
    del document["metadata"]["namespace"]  # the command says it
    asked.write_text(yaml.safe_dump(document), encoding="utf-8")
    service = cluster.containers("parlay")["api"]
    controller = cluster.containers("parlay-controller")["controller"]
    config = server.token_kubeconfig(cluster.namespace, "parlay-controller")
    cluster.files("parlay-controller", tmp_path)
    with (
        started(*here(service, tmp_path), log=tmp_path / "service.log"),
        started(*here(controller, tmp_path), f"--kubeconfig={config}", log=tmp_path / "controller.log"),
        KubeRayStandIn(prepared, cluster.namespace),
    ):
        kubectl = kube_tools.kubectl()
        cluster.run(*(str(asked) if word == "llama.yaml" else word for word in apply[1:]), program=kubectl)
        said = cluster.run(*timely(wait[1:]), program=kubectl)
        assert said == "layoutrequest.parlay.dev/llama condition met\n"
        assert cluster.run(*get[1:], program=kubectl).splitlines()[1].startswith("llama ")
        cluster.run("--namespace", "models", "delete", "layoutrequest", "llama", "--timeout=60s", program=kubectl)
    cluster.run("uninstall", "parlay", "--namespace", "models")


class JobStandIn:
    """Not a kubelet: says of every Job, a moment after it was made, that it is complete. It runs nothing."""

    def __init__(self, kube: RealKube, namespace: str) -> None:
        self._kube, self._path = kube, f"/apis/batch/v1/namespaces/{namespace}/jobs"
        self._stopped, self.seen = threading.Event(), set[str]()
        self._thread = threading.Thread(target=self._run, name="stand-in for a kubelet", daemon=True)

    def __enter__(self) -> JobStandIn:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(0.2):
            with suppress(KubeError):  # the namespace is not there yet, or the hook is gone
                for job in self._kube.ask("GET", self._path)["items"]:
                    name = job["metadata"]["name"]
                    done = {"type": "Complete", "status": "True"}
                    status = {"status": {"succeeded": 1, "conditions": [done]}}
                    self._kube.ask("PATCH", f"{self._path}/{name}/status", status, "application/merge-patch+json")
                    self.seen.add(name)


@pytest.mark.parametrize("helm", HELMS)
def test_on_postgresql_from_image_to_image_and_back(
    helm: str, server: ApiServer, prepared: RealKube, tmp_path: Path
) -> None:
    """Nothing that cannot be changed stands in the way, and hooks leave nothing behind."""
    cluster = Cluster(server, helm, "postgres")
    kinds = "deployment,service,networkpolicy,persistentvolumeclaim,serviceaccount,job"
    store = ("--set", "tuner.store.postgres.secret=database,tuner.enabled=true")
    begin = ("upgrade", "--install", "parlay", "helm/parlay", "--namespace", "models", "--create-namespace")
    with JobStandIn(prepared, cluster.namespace) as hooks:
        for image in ("1", "2"):
            cluster.run(*begin, *store, "--set", f"tuner.image=registry/parlay:{image}", *NO_BUDGETS)
        cluster.run("rollback", "parlay", "1", "--namespace", "models")
        # To a volume and back again: other pods, the same names.
        cluster.run(*begin, "--set", "tuner.enabled=true,tuner.image=registry/parlay:2", *NO_BUDGETS)
        assert "deployment.apps/parlay-worker" not in cluster.names("deployment")
        cluster.run("rollback", "parlay", "2", "--namespace", "models")
        assert "deployment.apps/parlay-worker" in cluster.names("deployment")
        cluster.run("uninstall", "parlay", "--namespace", "models")
    assert len(hooks.seen) == 2  # one for each image
    kept = {"persistentvolumeclaim/parlay", "serviceaccount/default"}
    assert cluster.names(kinds) == kept


def timely(words: list[str]) -> list[str]:
    """A study here takes seconds."""
    return ["--timeout=110s" if word == "--timeout=4h" else word for word in words]


def here(words: list[str], folder: Path) -> list[str]:
    """What a container is told, with this machine's folder, address and ports in place of the pod's."""
    words = [word.replace("=/etc/parlay/", f"={folder}/") for word in words]
    kept = [word for word in words if not word.startswith(("--port=", "--host=", "--metrics-"))]
    return [*(word.replace("/var/lib/parlay", str(folder)) for word in kept), "--port=0", "--host=127.0.0.1"]


@contextmanager
def started(*words: str, log: Path) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tuner.app.cli.commands", *words], stdout=output, stderr=output, cwd=ROOT
        )
    try:
        yield
        assert process.poll() is None, log.read_text(encoding="utf-8")
    finally:
        process.terminate()
        process.wait(60)
