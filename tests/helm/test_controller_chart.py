"""The controller's part of the chart under a real Helm."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.specs.rayservice import Platform
from deploy.specs.site_values import read_site
from deploy.specs.study_cluster import Trials, read_trials
from deploy.specs.writing import emit
from tests import tools
from tests.spec_cases import CASES
from tests.unit.test_site_values import WHOLE

pytestmark = pytest.mark.tools
CHART = Path(__file__).parents[2] / "helm" / "parlay"
ENABLED = ("controller.enabled=true", "controller.image=registry/parlay:1")


def helm(*values: str, release: str = "tuner", namespace: str = "tuning") -> subprocess.CompletedProcess[str]:
    words = ["template", release, str(CHART), "--namespace", namespace]
    given = [word for value in values for word in ("--set", value)]
    return subprocess.run([str(tools.helm()), *words, *given], capture_output=True, text=True, timeout=60)


def rendered(*values: str) -> dict[tuple[str, str], Any]:
    """Documents by kind and name."""
    done = helm(*values)
    assert done.returncode == 0, done.stderr
    documents = [one for one in yaml.safe_load_all(done.stdout) if one]
    return {(one["kind"], one["metadata"]["name"]): one for one in documents}


def test_no_two_releases_share_a_name_of_the_whole_cluster() -> None:
    every = ("controller.namespaces=all", "controller.watchNodes=true", "controller.retune=true")
    given = (*ENABLED, "controller.store.secret=db", *every)
    named = []
    for namespace, release in (("a-b", "c"), ("a", "b-c")):
        documents = yaml.safe_load_all(helm(*given, release=release, namespace=namespace).stdout)
        roles = [one for one in documents if one and one["kind"].startswith("ClusterRole")]
        named.append({(one["kind"], one["metadata"]["name"]) for one in roles})
    assert len(named[0]) == len(named[1]) == 8
    assert not named[0] & named[1]


def test_without_it_nothing_is_there() -> None:
    assert not [name for _, name in rendered() if "controller" in name]


@pytest.mark.parametrize(
    ("values", "named"),
    [
        (["controller.enabled=true", "controller.store.claim=c"], "controller.image"),
        ([*ENABLED], "controller.store"),
        ([*ENABLED, "controller.store.claim=c", "controller.launchers={slurm}"], "controller.launchers"),
        ([*ENABLED, "controller.store.claim=c", "controller.replicas=0"], "controller.replicas"),
        ([*ENABLED, "controller.store.claim=c", "controller.namespace=x"], "namespace"),
        ([*ENABLED, "controller.store.claim=c", "controller.namespaces=some"], "namespaces"),
        ([*ENABLED, "controller.store.secret=s", "controller.trials.maxGpus=8"], "controller.trials.image"),
        (
            [*ENABLED, "controller.store.claim=c", "controller.trials.maxGpus=8", "controller.trials.image=i"],
            "controller.store.secret",
        ),
    ],
)
def test_what_cannot_work_is_refused_by_name(values: list[str], named: str) -> None:
    done = helm(*values)
    assert done.returncode != 0
    assert named in done.stderr


def test_the_pod_needs_no_right_of_its_node() -> None:
    found = rendered(*ENABLED, "controller.store.secret=db", "controller.rayCluster=trials")
    pod = found["Deployment", "tuner-controller"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    store = next(one for one in container["env"] if one["name"] == "PARLAY_STORE")
    assert store["valueFrom"]["secretKeyRef"] == {"name": "db", "key": "url"}
    assert "--ray-cluster=trials" in container["args"]
    assert "--namespace=tuning" in container["args"]
    selector = found["Deployment", "tuner-controller"]["spec"]["selector"]["matchLabels"]
    assert selector.items() <= found["Deployment", "tuner-controller"]["spec"]["template"]["metadata"]["labels"].items()


def test_each_namespace_has_a_role() -> None:
    found = rendered(*ENABLED, "controller.store.claim=c", "controller.namespaces={one,two}")
    done = helm(*ENABLED, "controller.store.claim=c", "controller.namespaces={one,two}")
    roles = [one for one in yaml.safe_load_all(done.stdout) if one and one["kind"] == "Role"]
    assert sorted(one["metadata"]["namespace"] for one in roles) == ["one", "tuning", "two"]
    args = found["Deployment", "tuner-controller"]["spec"]["template"]["spec"]["containers"][0]["args"]
    assert [word for word in args if "namespace" in word] == [
        "--lease-namespace=tuning", "--namespace=one", "--namespace=two",
    ]  # fmt: skip


def test_all_namespaces_need_a_role_of_the_cluster_and_nothing_else_does() -> None:
    few = rendered(*ENABLED, "controller.store.claim=c", "controller.userRoles=false")
    assert not [kind for kind, _ in few if kind.startswith("Cluster")]
    every = rendered(*ENABLED, "controller.store.claim=c", "controller.userRoles=false", "controller.namespaces=all")
    assert every["ClusterRole", "tuning.tuner-controller"]["rules"] == few["Role", "tuner-controller"]["rules"]
    assert every["ClusterRoleBinding", "tuning.tuner-controller"]["subjects"][0]["namespace"] == "tuning"
    assert [name for kind, name in every if kind == "Role"] == ["tuner-controller-election"]
    args = every["Deployment", "tuner-controller"]["spec"]["template"]["spec"]["containers"][0]["args"]
    assert "--all-namespaces" in args
    assert not [word for word in args if word.startswith("--namespace")]


def test_releases_of_one_namespace_do_not_stand_by_for_each_other() -> None:
    found = rendered(*ENABLED, "controller.store.claim=c")
    args = found["Deployment", "tuner-controller"]["spec"]["template"]["spec"]["containers"][0]["args"]
    assert "--lease-name=tuner-controller" in args
    assert found["Role", "tuner-controller-election"]["rules"][1]["resourceNames"] == ["tuner-controller"]


def test_rayclusters_are_made_where_that_is_said_alone(tmp_path: Path) -> None:
    store = (*ENABLED, "controller.store.secret=db")
    assert "rayclusters" not in str(rendered(*store)["Role", "tuner-controller"])
    made = rendered(*store, "controller.trials.maxGpus=16", "controller.trials.image=r/p:1")
    rule = next(rule for rule in made["Role", "tuner-controller"]["rules"] if rule["resources"] == ["rayclusters"])
    assert rule["verbs"] == ["list", "watch", "create", "patch", "delete"]
    path = tmp_path / "trials.yaml"
    path.write_text(made["ConfigMap", "tuner-controller"]["data"]["trials.yaml"], encoding="utf-8")
    assert read_trials(path) == Trials(max_gpus=16, image="r/p:1", ray_version="2.60.0", store_secret="db")
    args = made["Deployment", "tuner-controller"]["spec"]["template"]["spec"]["containers"][0]["args"]
    assert "--trials=/etc/parlay/trials.yaml" in args


def test_what_the_service_has_need_not_be_said_twice() -> None:
    """Image, registry, launchers and store; an SQLite file is reached on the node that has its volume alone."""
    service = ("controller.enabled=true", "tuner.enabled=true", "tuner.image=registry/parlay:1")
    found = rendered(*service, "tuner.imagePullSecrets[0].name=registry")
    pod = found["Deployment", "tuner-controller"]["spec"]["template"]["spec"]
    beside = found["Deployment", "tuner-parlay"]["spec"]["template"]
    assert pod["volumes"][0] == beside["spec"]["volumes"][0]
    assert pod["imagePullSecrets"] == beside["spec"]["imagePullSecrets"]
    # Either may be started anew: a required affinity to oneself lets the first of them go anywhere.
    assert pod["affinity"] == beside["spec"]["affinity"]
    (term,) = pod["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    for template in (beside, found["Deployment", "tuner-controller"]["spec"]["template"]):
        assert term["labelSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    (container,) = pod["containers"]
    assert container["image"] == "registry/parlay:1"
    assert "--launchers=simulated" in container["args"]
    pod = rendered(*service, "tuner.store.postgres.secret=db")["Deployment", "tuner-controller"]["spec"]["template"][
        "spec"
    ]
    assert pod["containers"][0]["env"][2]["valueFrom"]["secretKeyRef"] == {"name": "db", "key": "url"}
    assert "affinity" not in pod
    assert pod["volumes"][0] == {"name": "data", "emptyDir": {"sizeLimit": "1Gi"}}


def test_it_is_told_what_the_site_says_of_pods(tmp_path: Path) -> None:
    """A RayService of the controller has the pods that the chart gives the same layout."""
    case = next(case for case in CASES if case.name == "one-node")
    layout, site = tmp_path / "layout.yaml", tmp_path / "site.yaml"
    layout.write_text(emit("helm-values", case.shipment, Platform()), encoding="utf-8")
    site.write_text(yaml.safe_dump({"serving": WHOLE}), encoding="utf-8")
    words = ["template", "tuner", str(CHART), "--values", str(site)]
    controls = [word for value in (*ENABLED, "controller.store.claim=c") for word in ("--set", value)]

    def documents(*more: str) -> dict[str, Any]:
        done = subprocess.run([str(tools.helm()), *words, *more], capture_output=True, text=True, check=True)
        return {one["kind"]: one for one in yaml.safe_load_all(done.stdout) if one}

    (tmp_path / "read.yaml").write_text(documents(*controls)["ConfigMap"]["data"]["site.yaml"], encoding="utf-8")
    ours = yaml.safe_load(emit("rayservice", case.shipment, Platform.at(read_site(tmp_path / "read.yaml"))))
    theirs = documents("--values", str(layout), "--values", str(site))["RayService"]
    assert ours["spec"] == theirs["spec"]
    queue = "kueue.x-k8s.io/queue-name"
    assert ours["metadata"]["labels"][queue] == theirs["metadata"]["labels"][queue] == "serving"


def test_its_words_are_those_of_the_command() -> None:
    import typer

    from tuner.app.cli.commands import app

    found = rendered(*ENABLED, "controller.store.claim=c", "controller.rayVersion=2.60.0", "controller.engineImage=x")
    command, *words = found["Deployment", "tuner-controller"]["spec"]["template"]["spec"]["containers"][0]["args"]
    cli: Any = typer.main.get_command(app)
    cli.commands[command].make_context(command, words)  # raises for an option that does not exist


def test_nodes_are_listed_only_where_that_was_asked_for() -> None:
    name = ("ClusterRole", "tuning.tuner-controller-nodes")
    assert name not in rendered(*ENABLED, "controller.store.secret=db")
    found = rendered(*ENABLED, "controller.store.secret=db", "controller.watchNodes=true")
    assert found[name]["rules"] == [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["list"]}]
    bound = found["ClusterRoleBinding", name[1]]
    assert bound["roleRef"]["name"] == name[1]
    assert bound["subjects"][0]["namespace"] == "tuning"


def test_what_re_tuning_needs_is_allowed_only_where_that_was_asked_for() -> None:
    """In each namespace that it looks after, and no more than the controller does."""
    name = "tuner-controller-retune"
    assert ("Role", name) not in rendered(*ENABLED, "controller.store.secret=db")
    found = rendered(*ENABLED, "controller.store.secret=db", "controller.retune=true")
    rules = {(rule["apiGroups"][0], rule["resources"][0]): rule["verbs"] for rule in found["Role", name]["rules"]}
    assert rules == {
        ("ray.io", "rayservices"): ["delete"],
        ("gateway.networking.k8s.io", "httproutes"): ["get", "create", "patch"],
        ("", "services"): ["get", "create", "patch"],
        ("", "pods"): ["list"],
    }
    assert found["RoleBinding", name]["roleRef"] == {
        "apiGroup": "rbac.authorization.k8s.io",
        "kind": "Role",
        "name": name,
    }
