"""A layout is a value: it prints, parses back, orders totally and refuses what no engine could run."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.ask.layout import AXES, ParallelLayout
from tuner.errors import BadInput

DEGREES = st.integers(1, 64)
LAYOUTS = st.builds(
    ParallelLayout,
    tp=DEGREES,
    pp=DEGREES,
    dp=DEGREES,
    ep=st.booleans(),
    dcp=DEGREES,
    pcp=DEGREES,
    executor=st.sampled_from(AXES["executor"].words),
    all2all=st.sampled_from(AXES["all2all"].words),
    kv_cache_dtype=st.sampled_from(AXES["kv_cache_dtype"].words),
    max_num_batched_tokens=st.integers(1, 10**6),
    max_num_seqs=st.integers(1, 10**4),
    front=st.sampled_from(AXES["front"].words),
    stream_interval_ms=st.integers(0, 1000),
    ingress_replicas=st.integers(0, 8),
    api_servers=st.integers(1, 8),
    request_router=st.sampled_from(AXES["request_router"].words),
    serve_mode=st.sampled_from(AXES["serve_mode"].words),
    gpu=st.none() | st.sampled_from(["h100_sxm", "profiles/mine.yaml"]),
)


@pytest.mark.parametrize(
    ("layout", "text"),
    [
        (ParallelLayout(), "tp=1,pp=1,dp=1"),
        (ParallelLayout(tp=4, pp=2), "tp=4,pp=2,dp=1"),
        (ParallelLayout(dp=8, ep=True), "tp=1,pp=1,dp=8,ep=true"),
        (ParallelLayout(tp=2, executor="ray"), "tp=2,pp=1,dp=1,executor=ray"),
        (ParallelLayout(max_num_batched_tokens=8192), "tp=1,pp=1,dp=1,max_num_batched_tokens=8192"),
        (ParallelLayout(tp=8, dcp=2, pcp=2), "tp=8,pp=1,dp=1,dcp=2,pcp=2"),
        (ParallelLayout(tp=2, kv_cache_dtype="fp8"), "tp=2,pp=1,dp=1,kv_cache_dtype=fp8"),
        (ParallelLayout(tp=2, gpu="l40s"), "tp=2,pp=1,dp=1,gpu=l40s"),
    ],
)
def test_str_shows_the_degrees_and_what_is_not_default(layout, text):
    assert str(layout) == text


@given(layout=LAYOUTS)
def test_parse_reads_back_what_str_printed(layout):
    assert ParallelLayout.parse(str(layout)) == layout


@given(layout=LAYOUTS, data=st.data())
def test_parse_takes_axes_in_any_order_and_with_blanks(layout, data):
    shuffled = data.draw(st.permutations(str(layout).split(",")))
    assert ParallelLayout.parse(" , ".join(shuffled).replace("=", " = ")) == layout


@given(a=LAYOUTS, b=LAYOUTS, c=LAYOUTS)
def test_order_is_total(a, b, c):
    assert (a < b) + (a == b) + (a > b) == 1
    assert not (a < b and b < c) or a < c
    assert (a <= b) == (not b < a)


@pytest.mark.slow
@given(layouts=st.lists(LAYOUTS, max_size=8))
def test_order_puts_fewer_devices_first(layouts):
    devices = [layout.devices for layout in sorted(layouts)]
    assert devices == sorted(devices)


@given(layout=LAYOUTS)
def test_equal_layouts_are_one_key(layout):
    twin = ParallelLayout(**layout.as_dict())
    assert {layout: 1}[twin] == 1
    assert pickle.loads(pickle.dumps(layout)) == layout


def test_a_layout_is_no_number():
    assert ParallelLayout() != 1
    with pytest.raises(TypeError):
        assert ParallelLayout() < 1


@given(layout=LAYOUTS)
def test_devices_are_those_of_all_replicas(layout):
    assert layout.devices_per_replica == layout.tp * layout.pp * layout.pcp  # dcp shares tensor-parallel ranks
    assert layout.devices == layout.devices_per_replica * layout.dp


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("", "layout"),
        ("tp", "layout"),
        ("tp=2,", "layout"),
        ("cp=2", "layout"),
        ("TP=2", "layout"),
        ("tp=2,tp=2", "layout.tp"),
        ("tp=two", "layout.tp"),
        ("tp=", "layout.tp"),
        ("tp=0", "layout.tp"),
        ("tp=-1", "layout.tp"),
        ("tp=1.5", "layout.tp"),
        ("tp=+2", "layout.tp"),
        ("tp=²", "layout.tp"),
        ("ep=yes", "layout.ep"),
        ("ep=True", "layout.ep"),
        ("executor=slurm", "layout.executor"),
        ("executor=mp;rm -rf", "layout.executor"),
        ("all2all=pplx", "layout.all2all"),
        ("kv_cache_dtype=fp4", "layout.kv_cache_dtype"),
        ("max_num_seqs=0", "layout.max_num_seqs"),
        ("gpu=", "layout.gpu"),
        ("gpu=h100 sxm", "layout.gpu"),
    ],
)
def test_parse_refuses(text, where):
    with pytest.raises(BadInput) as caught:
        ParallelLayout.parse(text)
    assert caught.value.where == where


@pytest.mark.parametrize(
    "axes",
    [{"tp": 0}, {"tp": True}, {"tp": 2.0}, {"tp": "2"}, {"ep": 1}, {"executor": "uniproc"}, {"all2all": "naive"}],
)
def test_no_layout_has_such_a_value(axes):
    (axis,) = axes
    with pytest.raises(BadInput) as caught:
        ParallelLayout(**axes)
    assert caught.value.where == f"layout.{axis}"
    assert caught.value.given == axes[axis]


@pytest.mark.slow
@given(text=st.text(max_size=30))
def test_any_text_is_a_layout_or_refused(text):
    try:
        parsed = ParallelLayout.parse(text)
    except BadInput:
        return
    assert ParallelLayout.parse(str(parsed)) == parsed
