"""Whole installations, word by word. Renew with PARLAY_UPDATE_GOLDEN=1, and read the difference."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deploy.specs.writing import write_whole
from tests.chart import documents, render
from tests.chart_goldens import FOLDER, GOLDENS

pytestmark = pytest.mark.tools


@pytest.mark.parametrize("name", GOLDENS)
def test_golden_rendering(name: str, tmp_path: Path) -> None:
    text, path = render(GOLDENS[name], tmp_path), FOLDER / f"{name}.yaml"
    if os.environ.get("PARLAY_UPDATE_GOLDEN") == "1":
        write_whole(path, text)
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "pods"),
    [
        ("llama-8b", [(1, "1")]),
        ("llama-70b", [(1, "8")]),
        ("llama-405b", [(2, "8")]),
        ("qwen-moe", [(2, "8")]),
        ("mixed-gpus", [(2, "4")]),
        ("two-pools", [(2, "4"), (1, "4")]),
    ],
)
def test_pods_are_where_the_layout_was_measured(name: str, pods: list[tuple[int, str]], tmp_path: Path) -> None:
    service = next(made for made in documents(render(GOLDENS[name], tmp_path)) if made["kind"] == "RayService")
    groups = service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    limits = [group["template"]["spec"]["containers"][0]["resources"]["limits"] for group in groups]
    assert [(group["replicas"], limit["nvidia.com/gpu"]) for group, limit in zip(groups, limits, strict=True)] == pods


def test_two_pools_are_told_apart_by_rays_labels_and_by_their_nodes(tmp_path: Path) -> None:
    service = next(made for made in documents(render(GOLDENS["two-pools"], tmp_path)) if made["kind"] == "RayService")
    prefill, decode = service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    assert (prefill["labels"], decode["labels"]) == ({"parlay.dev/pool": "prefill"}, {"parlay.dev/pool": "decode"})
    specs = [group["template"]["spec"] for group in (prefill, decode)]
    assert [spec["nodeSelector"] for spec in specs] == [{"gpu": "h100"}, {"gpu": "a100"}]
    assert [spec["runtimeClassName"] for spec in specs] == ["nvidia", "nvidia-a100"]
