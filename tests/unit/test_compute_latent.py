"""Latent and sparse attention, products per head, quantising: measured samples, limits of physics, unknown devices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tuner.ask.latent_fits import LATENT_SECTIONS
from tuner.ask.profile import load_profile
from tuner.cost.compute.attention import prefill_attention_ms
from tuner.cost.compute.decode import decode_attention_ms
from tuner.cost.compute.latent import (
    absorbs,
    apart_ms,
    head_product_ms,
    latent_decode_terms,
    latent_prefill_terms,
    latent_products_ms,
)
from tuner.cost.compute.quantise import quantise_rows_ms
from tuner.cost.compute.sparse import sparse_decode_terms, sparse_launch_ms, sparse_prefill_terms
from tuner.errors import BadInput
from tuner.validate.latent_operations import KINDS
from tuner.validate.operations import predict_rows
from tuner.validate.score import validate

SAMPLES = Path(__file__).parents[1] / "data" / "kernels"
GPUS = ("h100_sxm", "h200_sxm", "b200_sxm", "gb300", "l40s", "gh200", "a100_sxm", "generic")
UNMEASURED = ("a100_sxm", "generic")
EXPANDED: dict[str, Any] = {"qk_nope": 128, "qk_rope": 64, "v_head": 128}
CACHED: dict[str, Any] = {"kv_rank": 512, "qk_rope": 64}
SPARSE: dict[str, Any] = CACHED | {"heads": 16, "index_heads": 64}
gpus, sizes, heads = st.sampled_from(GPUS), st.integers(1, 20_000), st.integers(1, 128)


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_is_recognised_and_predicted_well(kind: str) -> None:
    found = validate(SAMPLES / f"{kind}.csv")
    assert (found.kind, found.scored) == (kind, len(found.points))
    error = found.predictions[0].ape_percent()["median"]
    assert error is not None
    assert error <= 12


@pytest.mark.slow
@given(name=gpus, new=sizes, past=sizes, h=heads)
def test_a_prompt_is_no_faster_than_its_products_and_grows(name: str, new: int, past: int, h: int) -> None:
    profile = load_profile(name)

    def cost(new: int, past: int, h: int) -> float:
        return float(latent_prefill_terms(profile, new_tokens=new, context_tokens=past, heads=h, **EXPANDED).total_ms)

    pairs = new * (past + new / 2) * h
    assert cost(new, past, h) >= 2 * 320 * pairs / profile.peak_flops_per_s["bf16"] * 1e3 / 1.2
    assert cost(2 * new, past, h) >= cost(new, past, h)
    assert cost(new, past + 4096, h) >= cost(new, past, h)
    assert cost(new, past, 2 * h) >= cost(new, past, h)


@pytest.mark.slow
@given(name=gpus, batch=st.integers(1, 1024), context=st.integers(1, 200_000), kv=st.sampled_from(["auto", "fp8"]))
def test_a_cache_is_read_no_faster_than_memory_and_once_for_all_heads(
    name: str, batch: int, context: int, kv: str
) -> None:
    profile = load_profile(name)

    def cost(batch: int, context: int, h: int = 16) -> float:
        found = latent_decode_terms(profile, batch=batch, context_tokens=context, heads=h, kv_dtype=kv, **CACHED)
        return float(found.total_ms)

    read = batch * context * 576 * (1 if kv == "fp8" else 2)
    assert cost(batch, context) >= read / profile.memory_bytes_per_s * 1e3 / (3 if name in UNMEASURED else 1)
    assert cost(batch, context + 4096) >= 0.999 * cost(batch, context)  # splitting its keys may pay
    assert cost(2 * batch, context) >= 0.999 * cost(batch, context)


@pytest.mark.parametrize("name", ["h100_sxm", "b200_sxm"])
def test_sixteen_heads_share_what_one_head_reads(name: str) -> None:
    shape: dict[str, Any] = {"batch": 64, "context_tokens": 65_536, **CACHED}
    one, sixteen = (latent_decode_terms(load_profile(name), heads=h, **shape).total_ms for h in (1, 16))
    assert sixteen < 1.1 * one


def test_hopper_takes_short_prompts_on_the_cache() -> None:
    hopper, blackwell = load_profile("h100_sxm"), load_profile("b200_sxm")
    assert absorbs(hopper, [1, 512, 513]).tolist() == [True, True, False]
    assert absorbs(hopper, [128, 129], "fp8").tolist() == [True, False]
    assert absorbs(blackwell, [1, 2]).tolist() == [True, False]


@pytest.mark.parametrize("name", UNMEASURED)
def test_a_device_without_measurements_is_priced_by_ordinary_attention(name: str) -> None:
    profile = load_profile(name)
    prompt = latent_prefill_terms(profile, new_tokens=4096, heads=16, **EXPANDED).total_ms
    ordinary = prefill_attention_ms(
        profile, new_tokens=4096, heads=16, kv_heads=16, head_dim=192, value_dim=128
    )  # fmt: skip
    assert prompt == ordinary
    cached = latent_decode_terms(profile, batch=8, context_tokens=4096, heads=16, **CACHED).total_ms
    assert cached == decode_attention_ms(
        profile, batch=8, context_tokens=4096, heads=16, kv_heads=1, head_dim=576, value_dim=512
    )
    assert absorbs(profile, [1, 2]).tolist() == [True, False]
    assert (float(apart_ms(profile, 100)), sparse_launch_ms(profile)) == (0.0, 0.0)
    assert all(not getattr(profile, section) for section in LATENT_SECTIONS)


def test_a_relative_lends_its_sections() -> None:
    assert load_profile("gh200").latent_decode == load_profile("h200_sxm").latent_decode
    assert "h200_sxm" in load_profile("gh200").sources["latent_decode"]


@pytest.mark.slow
@given(name=gpus, tokens=st.integers(1, 16_384), h=heads)
def test_products_per_head_move_their_bytes(name: str, tokens: int, h: int) -> None:
    profile = load_profile(name)
    found = float(latent_products_ms(profile, tokens, heads=h, kv_rank=512, qk_nope=128, v_head=128))
    assert found >= 2 * h * (2 * 65_536 + 640 * tokens) / profile.memory_bytes_per_s * 1e3
    one = [float(head_product_ms(profile, tokens, h, k, n)) for k, n in ((128, 512), (512, 128))]
    assert found == pytest.approx(sum(one))


@pytest.mark.slow
@given(name=gpus, new=sizes, past=sizes, kv=st.sampled_from(["auto", "fp8"]))
def test_sparse_prompts_grow_and_an_indexer_costs(name: str, new: int, past: int, kv: str) -> None:
    profile = load_profile(name)

    def cost(new: int, past: int, **changed: Any) -> float:
        shape = SPARSE | {"kv_dtype": kv} | changed
        return float(sparse_prefill_terms(profile, new_tokens=new, context_tokens=past, **shape).total_ms)

    assert cost(2 * new, past) >= cost(new, past)
    assert cost(new, past + 100) >= cost(new, past)
    assert cost(new, past, index_heads=0) < cost(new, past)


@pytest.mark.parametrize("name", GPUS)
@pytest.mark.parametrize("kv", ["auto", "fp8_ds_mla"])
def test_beyond_the_chosen_keys_only_the_indexer_grows(name: str, kv: str) -> None:
    profile = load_profile(name)
    shape = SPARSE | {"batch": 32, "context_tokens": np.array([2_049, 131_072]), "kv_dtype": kv}
    without = sparse_decode_terms(profile, **shape | {"index_heads": 0}).total_ms
    assert without[1] == without[0]
    short, long = sparse_decode_terms(profile, **shape).total_ms
    assert long > short > without[0]
    dense = latent_decode_terms(profile, batch=32, context_tokens=131_072, heads=16, kv_dtype=kv, **CACHED).total_ms
    assert long < dense


def test_the_keys_that_a_prompt_chooses_are_counted_one_by_one() -> None:
    profile = load_profile("h100_sxm")
    pasts, filler = (0, 100, 500), profile.sparse_prefill["bf16"].few_filler
    shape = SPARSE | {"index_heads": 0, "top_k": 200, "context_tokens": np.array(pasts)}
    found = sparse_prefill_terms(profile, new_tokens=300, **shape).compute_ms
    counted = np.array([np.minimum(past + 1 + np.arange(300), 200).mean() for past in pasts])
    slots = filler * 200 + (1 - filler) * counted
    assert found / found[2] == pytest.approx(slots / slots[2])


@pytest.mark.slow
@given(name=gpus, rows=sizes, width=sizes)
@example(name="gb300", rows=2, width=1)
def test_finding_scales_takes_longer_than_casting(name: str, rows: int, width: int) -> None:
    profile = load_profile(name)
    cast, found = (float(quantise_rows_ms(profile, rows, width, find_scales=s)) for s in (False, True))
    assert found >= cast >= 3 * rows * width / profile.memory_bytes_per_s * 1e3
    assert quantise_rows_ms(profile, rows, width, warm=True) <= found * (1 + 1e-9)  # the same but for rounding


@pytest.mark.parametrize(
    ("kind", "column", "value"),
    [
        ("mla_bmm", "op_name", "mla_gen_mid"), ("mla_bmm", "bmm_dtype", "fp8"), ("quantize", "op_name", "rest"),
        ("quantize", "quant_dtype", "int8"), ("dsa_context", "model", "someone/else"),
    ],
)  # fmt: skip
def test_what_a_table_measures_otherwise_is_refused(kind: str, column: str, value: str) -> None:
    points = validate(SAMPLES / f"{kind}.csv").points
    rows = {name: np.asarray(values[:1]) for name, values in points.columns.items()} | {column: np.array([value])}
    with pytest.raises(BadInput, match=value):
        predict_rows(kind, rows)
