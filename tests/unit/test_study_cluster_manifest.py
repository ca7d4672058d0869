"""The RayCluster of a study as a manifest, and what its worker is told."""

from __future__ import annotations

import pytest
import yaml

from deploy.specs.rayservice import Platform
from deploy.specs.site_values import Site
from deploy.specs.study_cluster import gpus_of, read_trials, study_cluster
from tests import crd
from tests.study_clusters import TRIALS
from tuner.app.service.options import bracketed
from tuner.ask.request import ClusterSpec
from tuner.errors import BadInput


@pytest.mark.slow
def test_it_has_the_nodes_of_the_request_and_a_worker_beside_its_head():
    groups = (
        ClusterSpec(gpu="h100_sxm", nodes=2, gpus_per_node=8, node_selector={"rack": "1"}),
        ClusterSpec(gpu="l40s", nodes=1, gpus_per_node=4),
    )
    site = Site.model_validate({"gang": {"scheduler": "volcano", "queue": "q"}, "rdma": {"resource": "rdma/hca"}})
    made = study_cluster("llama-x", groups, Platform.at(site, cache_claim="weights"), TRIALS, "/models/own")
    assert crd.problems(made) == []
    assert made["metadata"]["labels"]["volcano.sh/queue-name"] == "q"
    assert made["metadata"]["annotations"]["parlay.dev/gpus"] == "20"
    counts = [(one["replicas"], one["minReplicas"], one["maxReplicas"]) for one in made["spec"]["workerGroupSpecs"]]
    assert counts == [(2, 2, 2), (1, 1, 1)]
    first = made["spec"]["workerGroupSpecs"][0]["template"]["spec"]
    assert first["nodeSelector"] == {"rack": "1"}
    assert first["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "8"
    assert first["containers"][0]["resources"]["limits"]["rdma/hca"] == "1"
    assert "8000" not in str(first["containers"][0]["readinessProbe"])  # nothing is served there yet
    head, worker = made["spec"]["headGroupSpec"]["template"]["spec"]["containers"]
    assert head["name"] == "ray-head"
    assert worker["image"] == TRIALS.image
    assert "--cluster=llama-x" in worker["args"]
    assert "--ray-devices=20" in worker["args"]
    store = next(one for one in worker["env"] if one["name"] == "PARLAY_STORE")
    assert store["valueFrom"]["secretKeyRef"] == {"name": "store", "key": "url"}
    shared = {"shared-memory", "ray"}
    for container in (head, worker):
        assert shared <= {mount["name"] for mount in container["volumeMounts"]}
    named = [volume["name"] for volume in made["spec"]["headGroupSpec"]["template"]["spec"]["volumes"]]
    assert len(named) == len(set(named))
    assert {mount["name"] for mount in worker["volumeMounts"]} <= set(named)


def test_its_workers_words_are_those_of_the_command():
    import typer

    from tuner.app.cli.commands import app

    made = study_cluster("x", (ClusterSpec(gpu="cpu", gpus_per_node=4),), Platform(), TRIALS, "org/model")
    command, *words = made["spec"]["headGroupSpec"]["template"]["spec"]["containers"][1]["args"]
    typer.main.get_command(app).commands[command].make_context(command, words)
    (group,) = made["spec"]["workerGroupSpecs"]
    cores = group["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"]
    assert group["rayStartParams"]["num-gpus"] == cores  # by which Ray's nodes are seen to be cores


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("10.0.0.1:6379", "10.0.0.1:6379"),
        ("fd00::1:6379", "[fd00::1]:6379"),
        ("[fd00::1]:6379", "[fd00::1]:6379"),
        ("head.ns.svc:6379", "head.ns.svc:6379"),
        ("ray://10.0.0.1:10001", "ray://10.0.0.1:10001"),
        ("auto", "auto"),
        (None, None),
    ],
)
def test_a_pods_own_address_may_be_ipv6(given, read):
    assert bracketed(given) == read


def test_a_worker_is_given_the_address_as_ray_reads_it():
    import typer

    from tuner.app.cli.commands import app

    command = typer.main.get_command(app).commands["worker"]
    context = command.make_context("worker", ["--ray-address=fd00::1:6379"])
    assert context.params["ray_address"] == "[fd00::1]:6379"


def test_nodes_without_gpus_count_too():
    groups = (ClusterSpec(gpu="cpu", nodes=3, gpus_per_node=4), ClusterSpec(gpu="h100_sxm", nodes=2, gpus_per_node=8))
    assert gpus_of(groups) == 19
    made = study_cluster("x", groups[:1], Platform(), TRIALS, "org/model")
    assert made["metadata"]["annotations"]["parlay.dev/gpus"] == "3"


@pytest.mark.parametrize(
    ("changes", "named"), [({"maxGpus": 0}, "maxGpus"), ({"image": ""}, "image"), ({"gpus": 1}, "gpus")]
)
def test_a_file_that_cannot_work_is_refused_by_name(changes, named, tmp_path):
    path = tmp_path / "trials.yaml"
    path.write_text(yaml.safe_dump({**TRIALS.model_dump(by_alias=True), **changes}), encoding="utf-8")
    with pytest.raises(BadInput) as refused:
        read_trials(path)
    assert named in str(refused.value)
    path.write_text(yaml.safe_dump(TRIALS.model_dump(by_alias=True)), encoding="utf-8")
    assert read_trials(path) == TRIALS
