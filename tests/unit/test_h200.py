"""What one H200 measured: kernels by themselves, and an engine as people use it, without a fit on the site."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks.h200_engine import FIGURES, read_windows, simulated
from tests.fit.tables import read_table, rows_where
from tuner.ask.cluster import Cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import load_model
from tuner.ask.profile import LAUNCH_US, load_profile
from tuner.cost.compute import gemm_ms, quantise_ms
from tuner.cost.latency import StepCosts
from tuner.cost.step_batch import StepShape, total

DATA = Path(__file__).parents[1] / "data" / "h200"
KERNELS = read_table(DATA / "kernels.csv")
WINDOWS = {row["id"]: row for row in read_windows(DATA / "engine.csv")}
H200 = load_profile("h200_sxm")
ONE = np.ones(1)


@pytest.mark.parametrize(("dtype", "median_percent", "bias_percent"), [("bf16", 5, 3), ("fp8", 13, 12)])
def test_products_without_quantising(dtype: str, median_percent: float, bias_percent: float) -> None:
    rows = rows_where(KERNELS, (KERNELS["op"] == "gemm") & (KERNELS["dtype"] == dtype))
    error = 1e5 * gemm_ms(H200, dtype, rows["m"], rows["n"], rows["k"]) / rows["latency_us"] - 100
    assert len(error) > 20
    assert np.median(np.abs(error)) < median_percent
    assert abs(np.median(error)) < bias_percent


def test_quantising_is_a_step_of_its_own() -> None:
    alone = float(quantise_ms(H200, "fp8", 4096 * 4096))
    assert alone == pytest.approx(1e-3 * H200.elementwise.floor_us + 3 * 4096**2 / (0.75 * 4.8e12) * 1e3)
    assert float(quantise_ms(H200, "bf16", 4096 * 4096)) == 0
    assert float(quantise_ms(H200, "fp8_block", 4096)) > 0
    raw, table = (gemm_ms(H200, "fp8", 64, 4096, 4096, eager=eager) for eager in (False, True))
    assert 3e-3 < float(table - raw) < 4e-3


def test_one_user_sees_what_was_measured() -> None:
    row = WINDOWS["vllm-users1"]
    found = dict(zip(FIGURES, simulated(row, H200), strict=True))
    assert found["ttft_mean_ms"] == pytest.approx(float(row["ttft_mean_ms"]), rel=0.05)
    assert found["tpot_mean_ms"] == pytest.approx(float(row["tpot_mean_ms"]), rel=0.08)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vllm-rate4", "vllm-rate12"])
def test_an_open_window_is_near(name: str) -> None:
    row = WINDOWS[name]
    found = dict(zip(FIGURES, simulated(row, H200, seeds=4), strict=True))
    assert found["ttft_p50_ms"] == pytest.approx(float(row["ttft_p50_ms"]), rel=0.13)
    assert found["tpot_mean_ms"] == pytest.approx(float(row["tpot_mean_ms"]), rel=0.09)


def test_a_slow_host_is_felt_where_it_launches() -> None:
    """Steps out of graphs wait for it, replayed ones do not; it was measured, not fitted."""
    assert H200.engine.launch_us == pytest.approx(
        KERNELS["latency_us"][KERNELS["op"] == "eager_stream_per_kernel"], rel=1e-3
    )
    quick = replace(H200, engine=replace(H200.engine, launch_us=LAUNCH_US))
    model, layout = load_model("meta-llama/Llama-3.1-8B"), ParallelLayout()
    slow, fast = (StepCosts(model, Cluster(p, 1, 1, p.fabric)) for p in (H200, quick))

    def ms(costs: StepCosts, phase: str, tokens: float, sequences: float) -> float:
        return float(total(costs.stages(layout, StepShape(phase, tokens * ONE, 1e3 * ONE, sequences * ONE))[0])[0])

    assert ms(slow, "prefill", 1024, 1) > 1.1 * ms(fast, "prefill", 1024, 1)
    assert ms(slow, "prefill", 4096, 1) == ms(fast, "prefill", 4096, 1)
    assert ms(slow, "decode", 1, 8) == ms(fast, "decode", 1, 8)


def test_other_devices_do_not_inherit_the_host() -> None:
    assert load_profile("gh200").engine.launch_us == LAUNCH_US
