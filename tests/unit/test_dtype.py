"""What a model computes in: as the engine decides it, as the request says, and in every price and command alike."""

from pathlib import Path

import numpy as np
import pytest

from tests.fakes import make_request
from tests.unit.test_weight_formats import AWQ, BLOCKS, CASES, FLOAT8, LLAMA, compressed, group
from tuner.ask.cluster import Cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import from_config, load_model
from tuner.ask.request import ClusterSpec, Engine
from tuner.ask.requested_model import requested_model
from tuner.cost.latency import StepCosts, StepShape, total
from tuner.cost.memory import estimate_memory
from tuner.cost.stored import weight_bytes
from tuner.cost.volume import pass_operations
from tuner.errors import BadInput

ONE = np.ones(1)
LIMITS = (np.array([2048.0]), np.array([256.0]))
CPU = ClusterSpec(gpu="cpu", gpus_per_node=2)


@pytest.mark.parametrize(
    ("stored", "asked", "precision"),
    [
        ({"torch_dtype": "float32"}, "auto", "bf16"),  # _resolve_auto_dtype
        ({"torch_dtype": None}, "auto", "bf16"),
        ({"torch_dtype": None, "dtype": "float16"}, "auto", "bf16"),  # as wide
        ({"torch_dtype": "torch.bfloat16"}, "auto", "bf16"),
        ({"torch_dtype": "half"}, "auto", "bf16"),
        ({"torch_dtype": "float32"}, "bfloat16", "bf16"),
        ({"torch_dtype": "bfloat16"}, "float16", "bf16"),
        ({"torch_dtype": "bfloat16"}, "float32", "fp32"),
        ({"torch_dtype": "float32"}, "float32", "fp32"),
        ({"model_type": "gemma2", "torch_dtype": "float16"}, "auto", "bf16"),
        ({"text_config": LLAMA | {"torch_dtype": "float32"}, "torch_dtype": None}, "auto", "bf16"),
    ],
)
def test_what_is_computed_in(stored, asked, precision):
    assert from_config(LLAMA | stored, "m", asked).precision == precision


@pytest.mark.parametrize(
    ("changes", "asked", "where", "allowed"),
    [
        ({"torch_dtype": "float8_e4m3fn"}, "auto", "m: torch_dtype", "bfloat16, float16, float32"),
        ({"model_type": "gemma2"}, "float16", "engine.dtype", "unstable in float16"),
        ({"quantization_config": AWQ}, "float32", "engine.dtype", "bfloat16 or float16 with awq weights"),
        ({"quantization_config": BLOCKS}, "float32", "engine.dtype", "bfloat16 or float16 with fp8 weights"),
        ({"quantization_config": compressed(group(**FLOAT8))}, "float32", "engine.dtype", "with compressed-tensors"),
        ({"quantization_config": {"quant_algo": "FP8"}}, "float32", "engine.dtype", "with modelopt weights"),
        ({"quantization_config": {"quant_method": "mxfp4"}}, "float16", "engine.dtype", "bfloat16 with mxfp4 weights"),
    ],
)
def test_what_the_engine_does_not_run_is_refused(changes, asked, where, allowed):
    with pytest.raises(BadInput) as caught:
        from_config(LLAMA | changes, "m", asked)
    assert caught.value.where == where
    assert allowed in caught.value.allowed


def test_a_checkpoint_in_float32_is_served_in_bfloat16():
    model = load_model(str(CASES / "float32_checkpoint_auto" / "model"))
    assert weight_bytes(model, ParallelLayout(), 0) / 1e9 == pytest.approx(16.1, abs=0.05)


def test_float32_doubles_every_byte():
    narrow, wide = (load_model("Qwen/Qwen3-0.6B", dtype) for dtype in ("bfloat16", "float32"))
    layout = ParallelLayout(tp=2)
    assert weight_bytes(wide, layout, 0) == 2 * weight_bytes(narrow, layout, 0)
    held = [estimate_memory(model, layout, Cluster.from_spec(CPU), Engine(), *LIMITS) for model in (narrow, wide)]
    assert held[1].kv_bytes_per_token == 2 * held[0].kv_bytes_per_token
    assert held[1].activation_bytes[0] > held[0].activation_bytes[0]
    sent = [sum(op.message_bytes(1, 1) for op in pass_operations(model, layout)) for model in (narrow, wide)]
    assert sent[1] == 2 * sent[0]


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_float32_on_a_cpu_is_slower_by_its_peak_and_its_bytes(phase):
    step = StepShape(phase, 256 * ONE if phase == "prefill" else ONE, 128 * ONE, ONE)
    cluster, layout = Cluster.from_spec(CPU), ParallelLayout()
    ms = [
        float(total(StepCosts(load_model("Qwen/Qwen3-0.6B", dtype), cluster).stages(layout, step)[0])[0])
        for dtype in ("bfloat16", "float16", "float32")
    ]
    assert ms[0] == ms[1]
    peaks = cluster.profile.peak_flops_per_s
    assert 1.5 * ms[0] < ms[2] < 1.05 * ms[0] * max(2.0, peaks["bf16"] / peaks["fp32"])


def test_float32_on_a_gpu_without_a_peak_for_it_is_refused_by_name():
    asked = make_request({"engine": {"dtype": "float32"}})
    with pytest.raises(BadInput, match=r"engine\.dtype.*float16 on h100_sxm.*peak_flops_per_s\.fp32"):
        requested_model(asked)
    assert requested_model(make_request({"engine": {"dtype": "float16"}})).precision == "bf16"
    on_cpu = make_request({"engine": {"dtype": "float32"}, "cluster": {"gpu": "cpu", "gpus_per_node": 2}})
    assert requested_model(on_cpu).precision == "fp32"


def test_one_group_of_several_suffices_to_refuse():
    groups = [{"gpu": "cpu", "gpus_per_node": 2}, {"gpu": "l40s", "gpus_per_node": 2}]
    with pytest.raises(BadInput, match="l40s"):
        requested_model(make_request({"engine": {"dtype": "float32"}, "cluster": groups}))


def test_the_shape_of_a_request_is_made_in_one_place():
    """Who else loads a model has no request, or none yet: a trace, the compiler's warm-up, a command that
    takes a model, measured runs."""
    root = Path(__file__).parents[2]
    loading = {
        str(path.relative_to(root)) for path in (root / "tuner").rglob("*.py") if "load_model(" in path.read_text()
    }
    assert loading == {
        "tuner/ask/model.py",
        "tuner/ask/requested_model.py",
        "tuner/ask/trace_document.py",
        "tuner/simulate/precompile.py",
        "tuner/app/cli/planning_commands.py",
        "tuner/validate/runs.py",
    }
