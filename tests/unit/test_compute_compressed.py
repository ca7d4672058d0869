"""Kernels that few models need: measured samples, limits that physics sets, and profiles that know nothing of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.ask.profile import load_profile
from tuner.cost.collectives import CollectiveModel, CommGroup
from tuner.cost.compute.block_sparse import block_sparse_decode_terms, block_sparse_prefill_terms
from tuner.cost.compute.compressed import compressed_decode_terms, compressed_prefill_terms
from tuner.cost.compute.compressed_projections import compressed_projections_ms
from tuner.cost.compute.encoder import encoder_attention_terms
from tuner.cost.compute.hyper_connections import hyper_connection_terms
from tuner.cost.compute.visible import visible_keys
from tuner.errors import BadInput
from tuner.validate.score import validate

SAMPLES = Path(__file__).parents[1] / "data" / "kernels"
GPUS = ("h100_sxm", "b200_sxm", "gb300", "l40s", "a100_sxm", "generic")  # nothing was measured on the last two
SAMPLED_MEDIAN_PERCENT = {
    "msa_context": 12, "msa_generation": 12, "dsv4_context": 10, "dsv4_generation": 10, "dsv4_parts": 10,
    "mhc": 8, "encoder_attention": 12, "moe_a2a": 14,
}  # fmt: skip
MSA: dict[str, Any] = {"heads": 16, "kv_heads": 1, "head_dim": 128}
gpus = st.sampled_from(GPUS)


@pytest.mark.parametrize("kind", SAMPLED_MEDIAN_PERCENT)
def test_a_sample_is_recognised_and_predicted_well(kind: str) -> None:
    found = validate(SAMPLES / f"{kind}.csv")
    assert (found.kind, found.scored) == (kind, len(found.points))
    error = found.predictions[0].ape_percent()["median"]
    assert error is not None
    assert error <= SAMPLED_MEDIAN_PERCENT[kind]


@settings(max_examples=30)
@given(
    past=st.integers(0, 5000), new=st.integers(1, 3000), limit=st.integers(1, 4000), per=st.sampled_from([1, 4, 128])
)
def test_visible_keys_are_what_one_counts(past: int, new: int, limit: int, per: int) -> None:
    counted = np.minimum((past + 1 + np.arange(new)) / per, limit).sum()
    found = visible_keys(np.asarray(float(past)), np.asarray(float(new)), float(limit), per=per)
    assert float(found) == pytest.approx(counted, rel=1e-3, abs=1 + limit / per)


# --- blocks that an indexer chose -------------------------------------------------------------------------------------


@pytest.mark.slow
@settings(max_examples=30)
@given(name=gpus, new=st.integers(1, 50_000), past=st.integers(0, 50_000))
def test_chosen_blocks_cost_more_with_more_tokens_and_more_context(name: str, new: int, past: int) -> None:
    profile = load_profile(name)

    def cost(new: int, past: int) -> float:
        return float(block_sparse_prefill_terms(profile, new_tokens=new, context_tokens=past, **MSA).total_ms)

    assert cost(2 * new, past) >= cost(new, past)
    assert cost(new, past + 256) >= cost(new, past)


@pytest.mark.parametrize("name", GPUS)
def test_past_the_chosen_blocks_only_the_index_grows(name: str) -> None:
    profile = load_profile(name)
    context = np.array([1024, 2048, 131072, 262144])
    cost = block_sparse_decode_terms(profile, batch=64, context_tokens=context, **MSA).memory_ms
    chosen = cost[1] - cost[0]  # 8 blocks, and their index keys
    index_bytes = 64 * 131072 * 128 * 2
    assert chosen > 0
    assert cost[3] - cost[2] >= index_bytes / profile.memory_bytes_per_s * 1e3
    assert cost[2] < 130 * chosen
    assert cost[3] == pytest.approx(2 * cost[2], rel=0.1)


def test_ranks_that_share_the_heads_take_less_each() -> None:
    profile = load_profile("h100_sxm")
    shape: dict[str, Any] = {"new_tokens": 8192, "head_dim": 128}
    whole = block_sparse_prefill_terms(profile, heads=64, kv_heads=4, **shape).total_ms
    quarter = block_sparse_prefill_terms(profile, heads=16, kv_heads=1, **shape).total_ms
    assert 3.0 < float(whole / quarter) <= 4.0


# --- a window and a compressed cache ----------------------------------------------------------------------------------


@settings(max_examples=30)
@given(name=gpus, new=st.integers(1, 20_000), past=st.integers(0, 60_000), ratio=st.sampled_from([0, 4, 128]))
def test_compressed_attention_grows_with_tokens_and_context(name: str, new: int, past: int, ratio: int) -> None:
    profile = load_profile(name)

    def cost(new: int, past: int) -> float:
        terms = compressed_prefill_terms(profile, new_tokens=new, context_tokens=past, heads=64, ratio=ratio)
        assert float(terms.total_ms) == pytest.approx(float(terms.compute_ms + terms.memory_ms + terms.overhead_ms))
        return float(terms.total_ms)

    assert cost(2 * new, past) >= cost(new, past)
    assert cost(new, past + 256) >= cost(new, past) * 0.999999


@pytest.mark.parametrize("name", GPUS)
def test_a_window_alone_costs_the_same_at_any_length(name: str) -> None:
    cost = compressed_decode_terms(
        load_profile(name), batch=64, context_tokens=[128, 1000, 100_000], heads=64, ratio=0
    ).total_ms
    assert cost[0] == cost[1] == cost[2]


@pytest.mark.parametrize("name", GPUS)
def test_an_indexer_costs_more_than_reading_few_vectors_and_grows_with_the_context(name: str) -> None:
    shape: dict[str, Any] = {"batch": 64, "context_tokens": np.array([8192, 65536]), "heads": 64}
    none, indexed, whole = (
        compressed_decode_terms(load_profile(name), ratio=ratio, **shape).total_ms for ratio in (0, 4, 128)
    )
    assert (none <= whole).all()
    assert (whole < indexed).all()
    assert indexed[1] > indexed[0]


def test_fewer_than_64_heads_are_padded() -> None:
    profile = load_profile("h100_sxm")
    terms = compressed_prefill_terms(profile, new_tokens=4096, heads=[8, 64, 65, 128], ratio=128).compute_ms
    assert terms[0] == terms[1]
    assert terms[2] == terms[3] == pytest.approx(2 * terms[1])


def test_projections_that_are_whole_on_every_rank_do_not_shrink() -> None:
    profile = load_profile("b200_sxm")
    shape: dict[str, Any] = {"hidden": 4096, "query_rank": 1024}

    def cost(heads: int, groups: int, ratio: int) -> float:
        return float(
            compressed_projections_ms(
                profile, "fp8_block", 8192, heads=heads, output_groups=groups, ratio=ratio, **shape
            )
        )

    assert cost(64, 8, 0) < cost(64, 8, 128) < cost(64, 8, 4)
    assert cost(64, 8, 4) / 8 < cost(8, 1, 4) < cost(64, 8, 4)
    assert cost(8, 1, 4) - cost(8, 1, 0) == pytest.approx(cost(64, 8, 4) - cost(64, 8, 0))


# --- residual streams -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GPUS)
def test_mixing_streams_moves_their_bytes(name: str) -> None:
    profile = load_profile(name)
    for side in ("pre", "post"):
        cost = hyper_connection_terms(profile, side, [1, 64, 65536], 4096).total_ms
        assert cost[0] <= cost[1] < cost[2]
        assert cost[2] >= 65536 * 4096 * 2 * 9 / profile.memory_bytes_per_s * 1e3
        assert cost[2] > hyper_connection_terms(profile, side, 65536, 4096, streams=2).total_ms


# --- images -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GPUS)
def test_attention_within_images_grows_with_the_square_of_the_patches_and_with_the_images(name: str) -> None:
    profile = load_profile(name)
    shape: dict[str, Any] = {"heads": 16, "head_dim": 80}
    patches = encoder_attention_terms(profile, patches=[8192, 16384], **shape).total_ms
    images = encoder_attention_terms(profile, patches=8192, images=[1, 2], **shape).total_ms
    assert 3.2 < patches[1] / patches[0] < 4.2
    assert 1.6 < images[1] / images[0] < 2.2


@settings(max_examples=30)
@given(name=gpus, patches=st.integers(1, 20_000), heads=st.integers(1, 32))
def test_attention_within_an_image_is_never_faster_than_the_datasheet(name: str, patches: int, heads: int) -> None:
    profile = load_profile(name)
    found = encoder_attention_terms(profile, patches=patches, heads=heads, head_dim=72).total_ms
    assert float(found) >= 4e3 * 72 * heads * patches**2 / profile.peak_flops_per_s["bf16"]


# --- tokens on their way to experts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GPUS)
@pytest.mark.parametrize("backend", ["deepep_ht", "deepep_ll"])
def test_tokens_travel_no_faster_than_the_link_and_slower_between_nodes(name: str, backend: str) -> None:
    model, size = CollectiveModel.of(load_profile(name)), np.array([1e3, 1e6, 1e9])
    profile = model.profile
    for phase in ("dispatch", "combine"):
        inside = model.exchange_us(backend, phase, size, CommGroup(8))
        assert (np.diff(inside) > 0).all()
        assert inside[-1] >= 7 / 8 * 1e9 / (profile.nvlink.bytes_per_s or profile.pcie_bytes_per_s) * 1e6
        assert (model.exchange_us(backend, phase, size, CommGroup(16, 2)) >= inside * 0.999).all()
        assert (model.exchange_us(backend, phase, size, CommGroup(1)) == 0).all()


def test_an_unknown_way_to_experts_is_refused() -> None:
    model = CollectiveModel.of(load_profile("h100_sxm"))
    with pytest.raises(BadInput, match="deepep_ht"):
        model.exchange_us("pplx", "dispatch", 1e6, CommGroup(8))
    with pytest.raises(BadInput, match="combine"):
        model.exchange_us("deepep_ht", "gather", 1e6, CommGroup(8))
