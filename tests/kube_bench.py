"""What tests and benchmarks of the controller share on a real API server: definitions, roles, processes."""

from __future__ import annotations

import lzma
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from tests import tools
from tests.api_server import Admin, ApiServer, fitting, wait_for
from tests.layout_requests import NAMESPACE
from tests.study_clusters import TRIALS
from tuner.app.controller.kube import (
    CONFIG_MAP,
    EVENT,
    LAYOUT_REQUEST,
    LEASE,
    RAY_CLUSTER,
    RAY_SERVICE,
    Kind,
    KubeError,
    Object,
)

CHART = Path(__file__).parents[1] / "helm" / "parlay"
RELEASE = "tuner"
ACCOUNT = f"{RELEASE}-controller"  # and the Lease
_KUBERAY = [Path(__file__).parent / "crds" / f"ray.io_{plural}.yaml.xz" for plural in ("rayservices", "rayclusters")]
_DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


class RealKube(Admin):
    """Whoever may do everything, and what others do beside the controller."""

    def edit(self, kind: Kind, namespace: str, name: str, patch: Object, manager: str = "kubectl-edit") -> Object:
        path = f"{kind.path(namespace, name)}?fieldManager={quote(manager)}"
        return self.ask("PATCH", path, patch, "application/merge-patch+json")

    def set_status(self, kind: Kind, namespace: str, name: str, status: Object) -> Object:
        path = f"{kind.path(namespace, name, 'status')}?fieldManager=kuberay-operator"
        return self.ask("PATCH", path, {"status": status}, "application/merge-patch+json")

    def delete(self, kind: Kind, namespace: str, name: str) -> None:
        self.ask("DELETE", kind.path(namespace, name))

    def clean(self) -> None:
        """Remove what tests made."""
        for kind in (LAYOUT_REQUEST, RAY_SERVICE, RAY_CLUSTER, CONFIG_MAP, EVENT, LEASE):
            for one in self.list(kind, NAMESPACE)[0]:
                name = one["metadata"]["name"]
                if name == "kube-root-ca.crt":
                    continue
                try:
                    if one["metadata"].get("finalizers"):
                        self.merge(kind, NAMESPACE, name, {"metadata": {"finalizers": None}})
                    self.delete(kind, NAMESPACE, name)
                except KubeError as error:
                    if error.code != 404:
                        raise


def prepare(server: ApiServer) -> RealKube:
    """Our definition and KubeRay's, the namespace, and the chart's roles; whoever may do everything."""
    kube = RealKube(str(server.kubeconfig))
    ours = yaml.safe_load((CHART / "crds" / "layoutrequest.yaml").read_text(encoding="utf-8"))
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    theirs = [fitting(yaml.load(lzma.decompress(path.read_bytes()), Loader=loader)) for path in _KUBERAY]
    for definition in (ours, *theirs):
        kube.post(_DEFINITIONS, definition)
    kube.post("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    for document in rendered():
        if document["kind"] in ("ServiceAccount", "Role", "RoleBinding"):
            root = "/api/v1" if document["kind"] == "ServiceAccount" else "/apis/rbac.authorization.k8s.io/v1"
            kube.post(f"{root}/namespaces/{NAMESPACE}/{document['kind'].lower()}s", document)
    wait_for(lambda: [kube.list(kind, NAMESPACE) for kind in (LAYOUT_REQUEST, RAY_SERVICE, RAY_CLUSTER)])
    return kube


def rendered(*more: str) -> list[Object]:
    """The chart with the controller."""
    values = ["controller.enabled=true", "controller.image=registry/parlay:1", "controller.store.secret=store"]
    values += ["controller.trials.maxGpus=16", "controller.trials.image=registry/parlay-ray:1", *more]
    words = [str(tools.helm()), "template", RELEASE, str(CHART), "--namespace", NAMESPACE, "--set", ",".join(values)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return [document for document in yaml.safe_load_all(done.stdout) if document]


class ControllerProcess:
    """`parlay controller` with the rights of the chart's ServiceAccount."""

    def __init__(
        self,
        server: ApiServer,
        store_url: str,
        folder: Path,
        identity: str = "one",
        everywhere: bool = False,
        **options: str,
    ) -> None:
        config = server.token_kubeconfig(NAMESPACE, ACCOUNT)
        trials = folder / "trials.yaml"
        trials.write_text(yaml.safe_dump(TRIALS.model_dump(by_alias=True)), encoding="utf-8")
        self._log = folder / f"controller-{identity}.log"
        self._words = [sys.executable, "-m", "tuner.app.cli.commands", "controller", "--kubeconfig", str(config)]
        self._words += ["--store", store_url, "--launchers", "simulated", "--host", "127.0.0.1"]
        self._words += ["--trials", str(trials), "--lease-name", ACCOUNT, "--lease-namespace", NAMESPACE]
        self._words += [] if everywhere else ["--namespace", NAMESPACE]
        self._words += ["--ray-version", "2.60.0", "--port", "0", "--identity", identity]
        self._words += [word for name, value in options.items() for word in (f"--{name}", value)]
        self._words += ["--all-namespaces"] if everywhere else []
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> ControllerProcess:
        """Begin, or begin again; it may take seconds until it works."""
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(self._words, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        return self

    def kill(self) -> None:
        """As kill -9 does."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """As a kubelet does; its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def log(self) -> str:
        """What it said."""
        return self._log.read_text(encoding="utf-8")

    @property
    def port(self) -> int:
        """Of its health and metrics, once it said so."""
        found = wait_for(lambda: re.search(r"health on port (\d+)", self.log()))
        return int(found[1])

    def answer(self, path: str) -> str:
        """Of its port; nothing where it says that something is not so."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as found:
                return str(found.read().decode())
        except urllib.error.HTTPError:
            return ""

    def calls(self) -> dict[tuple[str, str, str], float]:
        """Calls of the API server by verb, kind and status."""
        pattern = r'parlay_controller_api_calls_total\{code="(\d+)",kind="(\w+)",verb="(\w+)"\} ([0-9.e+]+)'
        found = re.findall(pattern, self.answer("/metrics"))
        return {(verb, kind, code): float(count) for code, kind, verb, count in found}


def may(kube: Any, account: str, verb: str, group: str, resource: str, namespace: str, name: str = "") -> bool:
    """Whether the API server lets a ServiceAccount of the namespace do that."""
    plural, _, part = resource.partition("/")
    asked = {
        "namespace": namespace,
        "verb": verb,
        "group": group,
        "resource": plural,
        "subresource": part,
        "name": name,
    }
    spec = {"user": f"system:serviceaccount:{NAMESPACE}:{account}", "resourceAttributes": asked}
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    return bool(kube.ask("POST", path, {"spec": spec})["status"]["allowed"])
