"""Linear attention and Mamba: kernels against measurements, what physics allows, and what the layers are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fit.tables import read_table
from tuner.ask.linear_fits import LINEAR, LinearAttentionFits
from tuner.ask.profile import HardwareProfile, known_profiles, load_profile, profile_from_document
from tuner.cost.compute import (
    Terms,
    gated_delta_terms,
    kimi_delta_terms,
    mamba1_terms,
    mamba2_terms,
    short_convolution_terms,
)
from tuner.cost.compute.causal_convolution import convolution_terms
from tuner.errors import BadInput
from tuner.validate.operations import predict_rows
from tuner.validate.score import validate

SAMPLES = Path(__file__).parents[1] / "data" / "kernels"
H100 = load_profile("h100_sxm")
Layer = Callable[..., Terms]
LAYERS: dict[str, tuple[Layer, dict[str, Any]]] = {
    "gated delta net": (gated_delta_terms, {"key_heads": 16, "value_heads": 32}),
    "Kimi delta attention": (kimi_delta_terms, {"heads": 32}),
    "Mamba-2": (mamba2_terms, {"heads": 128, "groups": 8, "chunk_size": 128}),
    "Mamba-1": (mamba1_terms, {"inner": 8192}),
    "short convolution": (short_convolution_terms, {"channels": 2048}),
}
layers = st.sampled_from(sorted(LAYERS))
gpus = st.sampled_from(known_profiles())
tokens = st.integers(min_value=1, max_value=40_000)
batches = st.integers(min_value=1, max_value=512)


def layer_ms(name: str, gpu: str, phase: str, **more: Any) -> float:
    price, shape = LAYERS[name]
    return total_ms(price, load_profile(gpu), phase, **(shape | more))


def total_ms(price: Layer, profile: HardwareProfile, phase: str, **shape: Any) -> float:
    return float(price(profile, phase, **shape).total_ms)


# --- against measurements -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gdn", "kda", "mamba2_trtllm"])
def test_measured_kernels_are_predicted_well(kind: str) -> None:
    table = read_table(SAMPLES / f"{kind}.csv")
    error = 100 * np.abs(predict_rows(kind, table) / table["latency_ms"] - 1)
    assert len(error) == 60
    assert np.median(error) <= 8
    for phase in np.unique(table["phase"]):
        assert np.median(error[table["phase"] == phase]) <= 12


@pytest.mark.parametrize("kind", ["gdn", "kda", "mamba2_trtllm"])
def test_a_table_is_recognised_by_its_columns(kind: str) -> None:
    found = validate(SAMPLES / f"{kind}.csv")
    assert (found.kind, found.scored, found.unpriced()) == (kind, 60, [])


def test_a_kernel_of_another_kind_has_no_price() -> None:
    row = {name: column[:1] for name, column in read_table(SAMPLES / "gdn.csv").items()}
    with pytest.raises(BadInput, match="kernel_source"):
        predict_rows("gdn", row | {"kernel_source": np.array(["flashkda_fwd"])})


def test_a_nightly_loop_paid_for_the_host_and_a_release_did_not() -> None:
    kda = read_table(SAMPLES / "kda.csv")
    chosen = kda["kernel_source"] == "causal_conv1d_fn_qkv3"
    rows = {name: column[chosen][:1] for name, column in kda.items()}
    nightly, release = (
        float(predict_rows("kda", rows | {"vllm": np.array([v])})[0]) for v in ("0.1.dev19262", "0.27.0")
    )
    assert nightly > release + 3 * H100.linear_attention.convolution.host_us / 2e3


# --- what physics allows --------------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(name=layers, gpu=gpus, new=tokens, batch=batches)
def test_more_work_never_takes_less_time(name: str, gpu: str, new: int, batch: int) -> None:
    few = layer_ms(name, gpu, "prefill", new_tokens=64 * new, sequences=1)
    assert layer_ms(name, gpu, "prefill", new_tokens=64 * (new + 1), sequences=1) >= few > 0
    assert layer_ms(name, gpu, "prefill", new_tokens=64 * new, sequences=2) >= few
    decode = layer_ms(name, gpu, "decode", sequences=batch)
    assert layer_ms(name, gpu, "decode", sequences=batch + 1) >= decode > 0


@settings(max_examples=20)
@given(name=layers, gpu=gpus)
def test_a_long_prompt_costs_in_proportion_to_its_tokens(name: str, gpu: str) -> None:
    long, longer = (layer_ms(name, gpu, "prefill", new_tokens=n) for n in (2**17, 2**18))
    assert longer / long == pytest.approx(2, rel=0.05)


@settings(max_examples=20)
@given(gpu=gpus, batch=batches, heads=st.sampled_from((2, 8, 32)))
def test_decode_reads_and_writes_every_state_once(gpu: str, batch: int, heads: int) -> None:
    profile = load_profile(gpu)
    least = 1e3 * 2 * batch * heads * 128 * 128 * 4 / profile.memory_bytes_per_s
    assert total_ms(gated_delta_terms, profile, "decode", sequences=batch, key_heads=heads, value_heads=heads) >= least
    assert total_ms(kimi_delta_terms, profile, "decode", sequences=batch, heads=heads) >= least


@settings(max_examples=20)
@given(gpu=gpus, new=tokens)
def test_a_state_of_half_the_width_takes_no_longer(gpu: str, new: int) -> None:
    for name in ("gated delta net", "Mamba-2"):
        for more in ({"new_tokens": new}, {"sequences": 256}):
            phase = "prefill" if "new_tokens" in more else "decode"
            narrow, wide = (layer_ms(name, gpu, phase, state_bytes=width, **more) for width in (2.0, 4.0))
            assert narrow < wide


@pytest.mark.parametrize("name", ["gated delta net", "Kimi delta attention"])
def test_a_relative_with_less_arithmetic_is_slower(name: str) -> None:
    price, shape = LAYERS[name]
    weak = replace(H100, peak_flops_per_s={"bf16": H100.peak_flops_per_s["bf16"] / 7})
    fast, slow = (total_ms(price, profile, "prefill", new_tokens=8192, **shape) for profile in (H100, weak))
    products = 1e3 * 128 * 32 * 11.5e6 / weak.peak_flops_per_s["bf16"]
    assert slow > max(1.2 * fast, products)


def test_prices_broadcast_over_arrays_and_their_terms_add_up() -> None:
    new = np.array([1, 64, 4096])[:, None]
    batch = np.array([1, 64])
    for terms in (
        gated_delta_terms(H100, "prefill", new_tokens=new, sequences=batch, key_heads=4, value_heads=8),
        kimi_delta_terms(H100, "prefill", new_tokens=new, sequences=batch, heads=12),
        mamba2_terms(H100, "prefill", new_tokens=new, sequences=batch, heads=64),
    ):
        assert terms.total_ms.shape == (3, 2)
        parts = terms.compute_ms + terms.memory_ms + terms.overhead_ms
        assert np.all(terms.total_ms <= parts * (1 + 1e-9))
        assert np.all(terms.total_ms >= parts / 2)


# --- which kernels run ----------------------------------------------------------------------------------------------


def test_the_fused_decode_of_kda_runs_where_vllm_built_it() -> None:
    slower = replace(H100.linear_attention.recurrent, fused_us=50.0)
    other = replace(H100, linear_attention=replace(H100.linear_attention, recurrent=slower))

    def counts(**more: Any) -> bool:
        shape = {"sequences": 64, "heads": 48} | more
        changed, fitted = (total_ms(kimi_delta_terms, profile, "decode", **shape) for profile in (other, H100))
        return changed != fitted

    assert counts()
    assert not counts(heads=32)
    assert not counts(head_dim=64)
    assert not counts(bounded_gate=False)
    assert not counts(speculative=True)
    assert not counts(new_tokens=4)
    ada = load_profile("l40s")
    plain, drafts = (
        total_ms(kimi_delta_terms, ada, "decode", sequences=64, heads=48, speculative=asked) for asked in (False, True)
    )
    assert plain == drafts


def test_an_unbounded_gate_takes_tritons_kernels() -> None:
    flash, triton = (
        total_ms(kimi_delta_terms, H100, "prefill", new_tokens=8192, heads=32, bounded_gate=bounded)
        for bounded in (True, False)
    )
    assert triton > 1.2 * flash


def test_drafts_write_a_state_per_token() -> None:
    one, eight = (
        total_ms(gated_delta_terms, H100, "decode", new_tokens=n, sequences=256, key_heads=16, value_heads=32)
        for n in (1, 8)
    )
    assert 3.5 < eight / one < 5.5  # nine states moved against two


def test_sequences_without_a_state_are_skipped() -> None:
    all_of_them, one_less = (
        convolution_terms(H100, new_tokens=4096, sequences=2, channels=4096, idle_sequences=idle) for idle in (0, 1)
    )
    alone = convolution_terms(H100, new_tokens=4096, sequences=1, channels=4096)
    assert alone.memory_ms == pytest.approx(float(one_less.memory_ms))
    assert float(one_less.total_ms) < float(all_of_them.total_ms)


# --- profiles -------------------------------------------------------------------------------------------------------


def document(**more: Any) -> dict[str, Any]:
    fitted = {
        "gemm": {}, "attention_prefill": {}, "attention_decode": {}, "moe": {},
        "elementwise": {"floor_us": 2.0, "memory_efficiency": 0.75}, "engine": {},
    }  # fmt: skip
    sheet = {
        "name": "mine", "arch": "generic", "compute_capability": None, "memory_bytes": 8e10, "memory_bytes_per_s": 2e12,
        "l2_bytes": 4e7, "peak_flops_per_s": {"bf16": 3e14}, "sm_count": 108, "gpus_per_node": 8,
        "nvlink": {"links": 0, "bytes_per_s": 0.0}, "pcie_bytes_per_s": 3e10, "nics_per_node": 1,
        "fabric": "ethernet_100", "usd_per_hour": None, "sources": {},
    }  # fmt: skip
    return sheet | fitted | more


def built(**more: Any) -> HardwareProfile:
    return profile_from_document(document(**more), where="mine")


def test_a_device_without_the_section_is_priced_by_what_is_assumed() -> None:
    profile = built()
    assert profile.linear_attention == LinearAttentionFits()
    assert LINEAR not in profile.sources
    for price, shape in LAYERS.values():
        assert total_ms(price, profile, "prefill", new_tokens=8192, **shape) > 0


def test_a_relative_lends_its_section_with_its_source() -> None:
    profile, relative = load_profile("gh200"), load_profile("h200_sxm")
    assert profile.linear_attention == relative.linear_attention != LinearAttentionFits()
    assert f"taken over from h200_sxm ({relative.sources[LINEAR]})" in profile.sources[LINEAR]


def test_a_misspelt_kernel_is_refused_with_its_place() -> None:
    with pytest.raises(BadInput, match=f"{LINEAR}.*recurrant"):
        built(linear_attention={"recurrant": {"floor_us": 1.0}})


def test_measured_devices_name_their_tables() -> None:
    for name in ("h100_sxm", "h200_sxm", "b200_sxm", "b300_sxm", "gb200", "gb300", "l40s"):
        profile = load_profile(name)
        assert profile.linear_attention != LinearAttentionFits()
        assert "tests/fit/linear.py" in profile.sources[LINEAR]
