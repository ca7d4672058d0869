"""Spaces are products of axes: those that ship load whole, and what no layout can have is refused."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.ask.layout import ParallelLayout
from tuner.ask.space import KNOB_AXES, SPACES_DIR, STRUCTURE_AXES, load_space
from tuner.errors import BadInput

SHIPPED = {"cpu": 48, "dense": 12960, "long_context": 34560, "moe": 58320}


def test_every_shipped_space_is_listed_here():
    assert {path.stem for path in SPACES_DIR.glob("*.yaml")} == set(SHIPPED)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), SHIPPED.items())
def test_shipped_spaces(name, size):
    space = load_space(name)
    assert (space.name, space.size) == (name, size)
    structures = list(space.structures())
    assert len(structures) == len(set(structures))
    for axis in STRUCTURE_AXES:
        assert {getattr(layout, axis) for layout in structures} == set(space.values(axis))


def test_a_space_in_place():
    space = load_space({"tp": [1, 2], "executor": "ray", "max_num_seqs": [64, 128]})
    assert space.size == 4
    assert [str(layout) for layout in space.structures()] == [
        "tp=1,pp=1,dp=1,executor=ray,max_num_seqs=64",
        "tp=2,pp=1,dp=1,executor=ray,max_num_seqs=64",
    ]
    assert space.values("pp") == (1,)


def test_one_deployment_is_one_structure():
    """The dispatch backend is not looked at unless tokens travel to experts on other data-parallel ranks."""
    axes = {"tp": [2], "dp": [1, 2], "ep": [False, True], "all2all": ["allgather_reducescatter", "deepep_low_latency"]}
    shown = [str(layout) for layout in load_space(axes).structures()]
    assert shown == [
        "tp=2,pp=1,dp=1",
        "tp=2,pp=1,dp=1,ep=true",
        "tp=2,pp=1,dp=2",
        "tp=2,pp=1,dp=2,ep=true",
        "tp=2,pp=1,dp=2,ep=true,all2all=deepep_low_latency",
    ]


AXES = st.fixed_dictionaries(
    {},
    optional={
        "tp": st.lists(st.integers(1, 16), min_size=1, max_size=4, unique=True),
        "pp": st.lists(st.integers(1, 8), min_size=1, max_size=3, unique=True),
        "executor": st.lists(st.sampled_from(["mp", "ray", "uni"]), min_size=1, max_size=3, unique=True),
        "max_num_batched_tokens": st.lists(st.integers(1, 8192), min_size=1, max_size=3, unique=True),
        "max_num_seqs": st.lists(st.integers(1, 1024), min_size=1, max_size=3, unique=True),
    },
)


@pytest.mark.slow
@given(axes=AXES)
def test_a_space_is_the_product_of_its_axes(axes):
    space = load_space(axes)
    points = [ParallelLayout(**dict(zip(axes, values, strict=True))) for values in product(*axes.values())]
    knobs = len(space.values(KNOB_AXES[0])) * len(space.values(KNOB_AXES[1]))
    structures = list(space.structures())
    assert space.size == len(set(points)) == len(structures) * knobs
    assert {layout.shape for layout in structures} == {layout.shape for layout in points}


@pytest.mark.parametrize(
    ("axes", "where", "given", "allowed"),
    [
        ({"gpu": [1]}, "space.gpu", [1], "an axis of tp, pp, dp"),
        ({"TP": [1]}, "space.TP", [1], "an axis of tp, pp, dp"),
        ({"tp": []}, "space.tp", [], "a list of different values"),
        ({"tp": [2, 2]}, "space.tp", [2, 2], "a list of different values"),
        ({"tp": [0]}, "layout.tp", 0, "a whole number of at least 1"),
        ({"tp": ["2"]}, "layout.tp", "2", "a whole number of at least 1"),
        ({"tp": None}, "layout.tp", None, "a whole number of at least 1"),
        ({"tp": [[1, 2]]}, "layout.tp", [1, 2], "a whole number of at least 1"),
        ({"ep": ["maybe"]}, "layout.ep", "maybe", "true or false"),
        ({"executor": ["slurm"]}, "layout.executor", "slurm", "mp, ray, uni"),
        ({"all2all": ["pplx"]}, "layout.all2all", "pplx", "deepep_low_latency"),
    ],
)
def test_what_no_layout_can_have_is_refused(axes, where, given, allowed):
    with pytest.raises(BadInput) as caught:
        load_space(axes)
    assert (caught.value.where, caught.value.given) == (where, given)
    assert allowed in caught.value.allowed


@pytest.mark.parametrize("name", ["sparse", "", "../search_spaces/dense", "dense.yaml", "/etc/passwd"])
def test_an_unknown_name_is_refused_with_those_known(name):
    with pytest.raises(BadInput, match="one of cpu, dense, long_context, moe"):
        load_space(name)


def test_an_empty_space_is_the_default_layout_alone():
    assert list(load_space({}).structures()) == [ParallelLayout()]
