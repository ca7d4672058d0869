"""Releases of vLLM: how they are read and compared, and which rules and prices depend on them."""

from dataclasses import replace

import pytest

from tuner.ask.cluster import Cluster
from tuner.ask.engine_version import NEWEST, RELEASES, EngineVersion
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import load_model
from tuner.ask.request import ClusterSpec
from tuner.ask.rules import DropReason, illegal
from tuner.cost.latency import StepCosts
from tuner.errors import BadInput

HOPPER = Cluster.from_spec(ClusterSpec(gpu="h100_sxm", nodes=2, gpus_per_node=8))


def at(release: str, cluster: Cluster = HOPPER) -> Cluster:
    return replace(cluster, vllm=EngineVersion.parse(release))


@pytest.mark.parametrize("text", ["0.29", "0.29.0", "v0.29.1", "0.29.1rc1", "0.29.0+cpu", "0.29.1.dev3+g123"])
def test_a_release_is_read_without_its_patch(text: str) -> None:
    assert EngineVersion.parse(text) == EngineVersion(0, 29)
    assert str(EngineVersion.parse(text)) == "0.29"


@pytest.mark.parametrize("text", ["", "latest", "29", "0.x", "0.29;rm"])
def test_what_names_no_release_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="a release of vLLM"):
        EngineVersion.parse(text)


def test_releases_compare_by_age_not_as_text() -> None:
    assert EngineVersion(0, 9) < EngineVersion(0, 26) < NEWEST
    assert list(RELEASES) == sorted(RELEASES)


@pytest.mark.parametrize(("text", "known"), [("0.19", "0.26"), ("0.27", "0.27"), ("0.33", "0.29"), ("1.0", "0.29")])
def test_another_release_has_the_rules_of_the_nearest_known_one(text: str, known: str) -> None:
    assert str(EngineVersion.parse(text).known) == known


def test_prefill_context_parallelism_needs_a_release_that_chooses_its_runner() -> None:
    layout = ParallelLayout.parse("tp=8,pp=1,dp=1,pcp=2,executor=ray")
    drop = illegal(load_model("deepseek-ai/DeepSeek-V3"), layout, at("0.26"))
    assert drop is not None
    assert drop.reason is DropReason.CONTEXT_PARALLEL
    assert drop.figure == "pcp=2 needs vLLM 0.27 for DeepseekV3ForCausalLM, the engines run 0.26"
    for release in ("0.27", "0.28", "0.29"):
        assert illegal(load_model("deepseek-ai/DeepSeek-V3"), layout, at(release)) is None


@pytest.mark.parametrize(("release", "legal"), [("0.26", False), ("0.27", False), ("0.28", False), ("0.29", True)])
def test_blocks_of_fp8_experts_are_refined_from_one_release_on(release: str, legal: bool) -> None:
    """Width 1,536 over 8 ranks is 192: no whole blocks of 128."""
    model, layout = load_model("Qwen/Qwen3-235B-A22B-FP8"), ParallelLayout.parse("tp=8,pp=1,dp=1")
    drop = illegal(model, layout, at(release))
    assert (drop is None) is legal
    if drop is not None:
        assert "which vLLM refines from 0.29 on" in drop.figure
    assert illegal(model, ParallelLayout.parse("tp=4,pp=1,dp=1"), at(release)) is None


def test_all_reduces_are_priced_as_the_release_of_the_cluster_runs_them() -> None:
    """Standalone FlashInfer all-reduces are on from 0.29."""
    model = load_model("meta-llama/Llama-3.1-70B")
    asked = {str(release): StepCosts(model, at(str(release)))._collectives.vllm_version for release in RELEASES}
    assert asked == {"0.26": (0, 26), "0.27": (0, 27), "0.28": (0, 28), "0.29": (0, 29)}
