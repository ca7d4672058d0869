"""The chart over many values and versions of Kubernetes: it renders, is valid, and differs where it should alone."""

from __future__ import annotations

import json
import os
import re
import subprocess
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import yaml

from tests import crd, kube_tools
from tests.chart import CHART, KUBERNETES, Document, changed, documents, helm, leaves, pods, render, templates
from tests.chart_cases import BASES, CHANGES, Change, merged

pytestmark = [pytest.mark.tools, pytest.mark.slow]
PAGE = CHART.parents[1] / "docs" / "kubernetes.md"
ALLOWED_VOLUMES = {"configMap", "csi", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
VALUES = {**BASES, **{change.name: change.values for change in CHANGES}}


class Rendered(dict[tuple[str, str], str]):
    """By values and version of Kubernetes; what somebody asks for is rendered once, by whichever process of the tests
    is the first: ``folder`` is for all of them."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        self._folder, self._scratch = folder, scratch

    def __missing__(self, key: tuple[str, str]) -> str:
        (name, version), file = key, self._folder / "-".join(key)
        if not file.exists():
            text = render(VALUES[name], self._scratch, "--kube-version", version)
            draft = self._scratch / file.name
            draft.write_text(text, encoding="utf-8")
            draft.replace(file)
        self[key] = file.read_text(encoding="utf-8")
        return self[key]


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    scratch = tmp_path_factory.mktemp("values")
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "renderings"
    folder.mkdir(exist_ok=True)
    return Rendered(folder, scratch)


def test_there_are_enough_of_them() -> None:
    assert len(VALUES) >= 40
    assert len({change.name for change in CHANGES}) == len(CHANGES)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.name)
def test_a_value_changes_what_it_should_alone(change: Change, rendered: Rendered) -> None:
    found = changed(rendered[change.base, "1.25"], rendered[change.name, "1.25"])
    assert {path for path in found if not any(fnmatchcase(path, glob) for glob in change.where)} == set()
    assert [glob for glob in change.where if not any(fnmatchcase(path, glob) for path in found)] == []


def test_no_version_of_kubernetes_gets_something_else(rendered: Rendered) -> None:
    """The oldest and the newest of every values, those between them of the bases."""
    versions = {name: KUBERNETES if name in BASES else (KUBERNETES[0], KUBERNETES[-1]) for name in VALUES}
    assert [name for name, some in versions.items() if len({rendered[name, version] for version in some}) > 1] == []


def test_helm_4_renders_the_same(rendered: Rendered, tmp_path: Path) -> None:
    for name, values in VALUES.items():
        text = render(values, tmp_path, "--kube-version", "1.37", binary=kube_tools.helm4())
        assert changed(rendered[name, "1.37"], text) == set(), name


def test_both_helms_lint_it(tmp_path: Path) -> None:
    for name, values in VALUES.items():
        path = tmp_path / "values.yaml"
        path.write_text(yaml.safe_dump(values), encoding="utf-8")
        for binary in (None, kube_tools.helm4()) if name in BASES else (None,):  # Helm 4 renders the same
            done = helm("lint", "--strict", str(CHART), "--values", str(path), binary=binary)
            assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"


@pytest.fixture(scope="module")
def each(rendered: Rendered) -> list[Document]:
    """Every document once."""
    texts = {rendered[name, "1.25"] for name in VALUES}
    once = {json.dumps(document, sort_keys=True): document for text in texts for document in documents(text)}
    return list(once.values())


@pytest.mark.parametrize("version", KUBERNETES)
def test_every_document_is_strictly_valid(version: str, each: list[Document], tmp_path: Path) -> None:
    path = tmp_path / "all.yaml"
    builtin = [document for document in each if document["kind"] not in crd.FILES]
    path.write_text(yaml.safe_dump_all(builtin), encoding="utf-8")
    words = [str(kube_tools.validate()), "--strict", "-k", version, str(path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (done.stdout + done.stderr).count(" passed for ") == len(builtin)


def test_every_custom_resource_is_strictly_valid(each: list[Document]) -> None:
    own = [document for document in each if document["kind"] in crd.FILES]
    assert {document["kind"] for document in own} == set(crd.FILES) - {"RayCluster"}  # which the controller makes
    assert [problem for document in own for problem in crd.problems(document)] == []


def test_selectors_find_their_pods_and_nobody_elses(rendered: Rendered) -> None:
    for name in VALUES:
        made = documents(rendered[name, "1.25"])
        labels = [template["metadata"]["labels"] for document in made for template in templates(document)]
        winners = [found for found in labels if "parlay.dev/serving" in found]
        for document in made:
            if document["kind"] in ("Service", "PodDisruptionBudget", "Deployment", "PodMonitor"):
                selector = document["spec"]["selector"]
                wanted = selector.get("matchLabels", selector).items()
                whole = "parlay.dev/serving" in dict(wanted)  # the winner's pods, of all groups
                found = [one for one in labels if wanted <= one.items()]
                assert found == winners if whole else len(found) == 1, document["metadata"]["name"]


def test_what_is_scraped_is_let_through_and_listened_on(rendered: Rendered) -> None:
    for name in VALUES:
        made = documents(rendered[name, "1.25"])
        for service in [one for one in made if one["kind"] == "Service"]:
            wanted = service["spec"]["selector"].items()
            (pod,) = [t for one in made for t in templates(one) if wanted <= t["metadata"]["labels"].items()]
            open_ports = {port["name"] for port in pod["spec"]["containers"][0]["ports"]}
            assert {port["targetPort"] for port in service["spec"]["ports"]} <= open_ports
            for policy in [one for one in made if one["kind"] == "NetworkPolicy"]:
                if policy["spec"]["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items():
                    assert {port["port"] for port in policy["spec"]["ingress"][0]["ports"]} == open_ports


@pytest.mark.parametrize("name", VALUES)
def test_every_pod_is_one_of_the_restricted_profile(name: str, rendered: Rendered) -> None:
    """Of the Pod Security Standards; a layout over RDMA needs more, and says so in docs/kubernetes.md."""
    for pod in [pod for document in documents(rendered[name, "1.25"]) for pod in pods(document)]:
        groups = [pod, *pod["containers"], *pod.get("initContainers", ())]
        assert not {"hostPID", "hostIPC"} & pod.keys()
        assert not [one for one in pod["volumes"] if not one.keys() & ALLOWED_VOLUMES]
        assert not [port for one in groups[1:] for port in one.get("ports", ()) if "hostPort" in port]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in groups[1:]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert not context.get("privileged")
            added = context["capabilities"].get("add", [])
            assert added in ([], ["IPC_LOCK"] if "rdma" in name else [])
        assert "hostNetwork" not in pod or "rdma" in name


def test_a_selector_never_changes(rendered: Rendered) -> None:
    """It cannot be: Kubernetes refuses an upgrade that does."""
    selectors = {
        (document["metadata"]["name"], str(document["spec"]["selector"]))
        for name in VALUES
        for document in documents(rendered[name, "1.25"])
        if document["kind"] == "Deployment"
    }
    assert len(selectors) == len({name for name, _ in selectors})


def test_no_pod_but_the_controllers_may_ask_kubernetes_and_none_become_root(each: list[Document]) -> None:
    found = [pod for document in each for pod in pods(document)]
    assert len(found) > 40
    for pod in found:
        asks = [container["name"] for container in pod["containers"]] == ["controller"]
        assert pod["automountServiceAccountToken"] is asks
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in [*pod.get("initContainers", ()), *pod["containers"]]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]
            assert {"requests", "limits"} <= container["resources"].keys()


def test_a_job_has_another_name_for_another_image(tmp_path: Path) -> None:
    """The template of a job cannot be changed."""
    names = set()
    for image in ("registry/parlay:1", "registry/parlay:2"):
        values = {**BASES["postgres"], "tuner": {**BASES["postgres"]["tuner"], "image": image}}
        names |= {made["metadata"]["name"] for made in documents(render(values, tmp_path)) if made["kind"] == "Job"}
    assert len(names) == 2


def test_no_name_is_too_long_for_a_label(tmp_path: Path) -> None:
    """The longest release that Helm allows: controllers make labels of the names of what they own."""
    made = documents(render({**BASES["both"], "extraObjects": []}, tmp_path, release="a" * 53))
    names = [document["metadata"]["name"] for document in made]
    assert max(map(len, names)) <= 63
    texts = [value for document in made for path, value in leaves(document["metadata"]) if path.startswith("/labels/")]
    assert max(map(len, texts)) <= 63


@pytest.mark.parametrize(("release", "namespace"), [("2024", "1234"), ("true", "null")])
def test_a_name_that_yaml_takes_for_something_else_stays_a_name(release: str, namespace: str, tmp_path: Path) -> None:
    """Helm and Kubernetes allow them all."""
    values = {**BASES["both"], "extraObjects": []}
    values = merged(values, {"serving": {"name": "on"}})
    values = merged(values, {"controller": {"enabled": True, "retune": True, "watchNodes": True}})
    named = re.compile(r"/(labels|matchLabels|selector)/|/(name|namespace)$")
    for document in documents(render(values, tmp_path, "--namespace", namespace, release=release)):
        wrong = [path for path, value in leaves(document) if named.search(path) and not isinstance(value, str)]
        assert wrong == [], document["kind"]


def test_the_values_that_the_page_shows_are_ones(tmp_path: Path) -> None:
    blocks = re.findall(r"^```yaml\n(serving:.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    assert blocks
    for block in blocks:
        assert changed(
            render(BASES["winner"], tmp_path), render(merged(BASES["winner"], yaml.safe_load(block)), tmp_path)
        )
