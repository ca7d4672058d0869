"""Models whose layers are a mixer or an MLP alone: half the kernels of a layer that has both."""

from dataclasses import replace

import numpy as np
import pytest

from tuner.ask.cluster import Cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import load_model
from tuner.ask.request import ClusterSpec
from tuner.cost.latency import StepCosts, StepShape
from tuner.cost.stages import launched_layers, stage_blocks
from tuner.simulate.step_tables import GRAPH_LAUNCH, LAUNCH, LAYERS, step_table

LLAMA = load_model("meta-llama/Llama-3.1-8B")
BLOCK = LLAMA.kinds[0]
APART = LLAMA.with_layers({replace(BLOCK, mlp=None): 32, replace(BLOCK, mixer=None): 32})
H100 = Cluster.from_spec(ClusterSpec(gpu="h100_sxm", gpus_per_node=8))


def test_the_host_launches_them_as_half_a_layer():
    assert launched_layers(APART.counted) == launched_layers(LLAMA.counted) == 32
    assert launched_layers(stage_blocks(APART, 4)[0]) == 8


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_cut_in_halves_a_model_costs_what_it_cost(phase):
    step = StepShape(phase, np.ones(1), np.zeros(1), np.ones(1))
    (whole,), (apart,) = (StepCosts(model, H100).stages(ParallelLayout(), step) for model in (LLAMA, APART))
    assert {name: ms[0] for name, ms in apart.items()} == pytest.approx({name: ms[0] for name, ms in whole.items()})


def test_a_stage_without_mixers_attends_to_nothing():
    shared = StepCosts(APART, H100).attention_layers(ParallelLayout(pp=2))
    assert shared == pytest.approx([64, 0])  # of which the mean has half
    assert StepCosts(LLAMA, H100).attention_layers(ParallelLayout(pp=3)) == pytest.approx([11, 11, 10])


def test_a_simulated_step_too():
    layout = ParallelLayout(max_num_batched_tokens=64, max_num_seqs=4)
    whole, apart = (step_table(StepCosts(model, H100), layout, 256).stages[0] for model in (LLAMA, APART))
    assert (whole[LAYERS], apart[LAYERS]) == (32, 64)  # of which half have no attention, in the mean
    assert (whole[LAUNCH], whole[GRAPH_LAUNCH]) == (apart[LAUNCH], apart[GRAPH_LAUNCH])
