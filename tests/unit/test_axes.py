"""Axes are declared once: a declaration agrees with its field, and with what the models of cost and memory do."""

from dataclasses import fields, replace
from itertools import pairwise
from types import NoneType
from typing import get_args, get_type_hints

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.ask.axes import Memory, Prices, Role
from tuner.ask.cluster import Cluster
from tuner.ask.layout import AXES, SPACE_AXES, ParallelLayout
from tuner.ask.model import load_model
from tuner.ask.request import ClusterSpec, Engine
from tuner.cost.latency import StepCosts, StepShape, Terms
from tuner.cost.memory import estimate_memory
from tuner.errors import BadInput

HINTS = get_type_hints(ParallelLayout)
MODEL = load_model("deepseek-ai/DeepSeek-V3")  # experts and latent attention: every axis means something
CLUSTER = Cluster.from_spec(ClusterSpec(gpu="h200_sxm", nodes=4, gpus_per_node=8))
ONE = np.ones(1)
DECODE = StepShape("decode", ONE, 4096 * ONE, 64 * ONE)
BASES = [
    ParallelLayout.parse(text)
    for text in ("tp=2,pp=2,dp=2,pcp=2,ep=true,executor=ray", "tp=4,pp=1,dp=2,executor=ray", "tp=1,pp=1,dp=4,ep=true")
]
VALUES = {"gpu": (None, "l40s", "profiles/mine.yaml")}


def values(name):
    axis = AXES[name]
    if name in VALUES or axis.words:
        return VALUES.get(name, axis.words)
    return (False, True) if isinstance(axis.default, bool) else (axis.least, axis.least + 1, 4, 256)


PAIRS = [(name, base) for name in SPACE_AXES for base in BASES]


def variants(name, base):
    """The base with every value of an axis."""
    return [replace(base, **{name: value}) for value in values(name)]


def terms(layout, step=DECODE) -> list[Terms]:
    return StepCosts(MODEL, CLUSTER).stages(layout, step)


def needed(layout):
    """Bytes of a device beside the cache, and of each token in it."""
    limits = (np.array([float(layout.max_num_batched_tokens)]), np.array([float(layout.max_num_seqs)]))
    found = estimate_memory(MODEL, layout, CLUSTER, Engine(), *limits)
    return np.array([found.weights_bytes, float(found.activation_bytes[0]), found.kv_bytes_per_token])


@pytest.mark.parametrize("name", AXES)
def test_a_declaration_agrees_with_its_field(name):
    axis, hint = AXES[name], HINTS[name]
    assert [f.name for f in fields(ParallelLayout)] == list(AXES) == list(HINTS)
    assert axis.has(axis.default)
    for value in values(name):
        assert axis.has(value)
        assert isinstance(value, get_args(hint) or hint)
    optional = NoneType in get_args(hint)
    assert optional == axis.has(None)


@pytest.mark.slow
@pytest.mark.parametrize("name", AXES)
@given(data=st.data())
def test_every_value_reads_back_as_it_prints(name, data):
    axis = AXES[name]
    many = st.integers(axis.least, 10**6) if type(axis.default) is int else st.nothing()
    value = data.draw(st.sampled_from([v for v in values(name) if v is not None]) | many)
    layout = ParallelLayout(**{name: value})
    assert axis.read(axis.shown(value)) == value
    assert ParallelLayout.parse(str(layout)) == layout


@pytest.mark.parametrize("name", AXES)
@pytest.mark.parametrize("wrong", [-1, 2.0, "", "no such value", [1], {}, b"mp"])
def test_a_value_of_no_axis_is_refused_with_those_allowed(name, wrong):
    with pytest.raises(BadInput) as caught:
        ParallelLayout(**{name: wrong})
    assert (caught.value.where, caught.value.allowed) == (f"layout.{name}", AXES[name].allowed)


@pytest.mark.parametrize("name", [name for name, axis in AXES.items() if type(axis.default) is int])
def test_a_count_is_refused_below_its_least(name):
    least = AXES[name].least
    assert getattr(ParallelLayout(**{name: least}), name) == least
    with pytest.raises(BadInput, match=f"a whole number of at least {least}"):
        ParallelLayout(**{name: least - 1})


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("front=ray_direct,stream_interval_ms=20,ingress_replicas=2", "front=ray_direct"),
        ("front=vllm,stream_interval_ms=20,api_servers=2", "front=vllm,api_servers=2"),
        ("front=ray_haproxy,stream_interval_ms=20,api_servers=2", "front=ray_haproxy,stream_interval_ms=20"),
        ("stream_interval_ms=20,ingress_replicas=2", "stream_interval_ms=20,ingress_replicas=2"),
        ("request_router=prefix_aware", ""),
        ("front=ray_direct,serve_mode=grpc", "front=ray_direct"),
        ("front=vllm,serve_mode=throughput", "front=vllm"),
        ("front=ray_haproxy,serve_mode=throughput", "front=ray_haproxy,serve_mode=throughput"),
        ("dp=2,request_router=prefix_aware", "dp=2,request_router=prefix_aware"),
        ("dp=2,ep=true,executor=ray,request_router=prefix_aware", "dp=2,ep=true,executor=ray"),
        ("dp=2,front=vllm,request_router=round_robin", "dp=2,front=vllm"),
    ],
)
def test_a_front_is_written_without_what_it_has_not(written, meant):
    assert ParallelLayout.parse(written).canonical == ParallelLayout.parse(meant or "tp=1")
    assert ParallelLayout.parse(written).engine.front == "auto"


def layer_terms(layout):
    costs = StepCosts(MODEL, CLUSTER)
    return [costs._block_terms(block, layout, DECODE) for block in MODEL.kinds]


@pytest.mark.slow
def test_prices_move_as_declared():
    """Of a decode step and its layers; what moves steps alone leaves the kernels of a layer as they are."""
    moved = {name: set() for name in SPACE_AXES}
    for name, base in PAIRS:
        first, *others = (layer_terms(one) for one in variants(name, base))
        if any(repr(other) != repr(first) for other in others):
            moved[name].add(Prices.LAYERS)
        first, *others = (terms(one) for one in variants(name, base))
        if any(repr(other) != repr(first) for other in others):
            moved[name].add(Prices.STEPS)
    for name, axis in AXES.items():
        if name == "max_num_batched_tokens":
            assert axis.prices is Prices.STEPS  # it decides how long a step with prompts is
        elif axis.role is not Role.PLACE:
            assert (Prices.LAYERS in moved[name]) == (axis.prices is Prices.LAYERS), name
            assert (Prices.STEPS in moved[name]) == (axis.prices is not Prices.NONE), name


@pytest.mark.slow
@pytest.mark.parametrize(("name", "base"), PAIRS, ids=str)
def test_memory_moves_as_declared(name, base):
    axis, layouts = AXES[name], variants(name, base)
    for lower, higher in pairwise(layouts):
        change = needed(higher) - needed(lower)
        if axis.memory is Memory.NONE:
            assert not change.any()
        if axis.memory is Memory.SPLITS:
            assert (change <= 0).all()
        if axis.memory is Memory.SPLITS_EXPERTS:  # those who share experts gather the tokens of all
            assert change[0] <= 0
            assert change[2] <= 0
        if axis.memory is Memory.ADDS:
            assert (change >= 0).all()
            assert change.any()


@given(st.sampled_from(BASES), st.data())
def test_what_is_served_alike_differs_in_idle_axes_alone(base, data):
    name = data.draw(st.sampled_from(SPACE_AXES))
    other = replace(base, **{name: data.draw(st.sampled_from(values(name)))})
    idle = AXES[name].prices is Prices.NONE and AXES[name].memory is Memory.NONE and AXES[name].role is not Role.FRONT
    assert (other.served == base.served) == (idle or other == base)
    assert (other.shape == base.shape) == (AXES[name].role is not Role.STRUCTURE or other == base)


def test_a_shape_is_named_and_is_a_layout_of_defaults():
    layout = ParallelLayout.parse("tp=4,pp=2,dp=2,ep=true,executor=ray,max_num_seqs=64,gpu=l40s")
    assert str(layout.shape) == "tp=4,pp=2,dp=2,ep=true,gpu=l40s"
    assert (layout.shape.tp, layout.shape.gpu) == (4, "l40s")
