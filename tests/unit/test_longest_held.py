"""The longest sequence that a cache holds, whatever grows, is bounded or stays: one token more does not fit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.cost.sequence_memory import SequenceMemory
from tuner.simulate.scheduler import blocks_of
from tuner.simulate.simulator import Simulator, _blocks
from tuner.simulate.state import Limits


def held(sequence, kv_tokens, longest):
    simulator = object.__new__(Simulator)
    simulator._longest = longest
    sizes = _blocks(sequence, kv_tokens, 16)
    simulator._limits = Limits(2048, 64, 0, **sizes, depth=1, asynchronous=0, chunked=1, skip=1, together=0)
    return simulator._limits, simulator._longest_held()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sequence", "found"),
    [
        (SequenceMemory(1.0, True), 2992),
        (SequenceMemory(1.0, True, ((5.0, 1024),)), 480 + 16),
        (SequenceMemory(1.0, False, ((1.0, 4096),)), 2992),
        (SequenceMemory(1.0, True, (), 1584.0, 528), 1056),
        (SequenceMemory(1.0, False, (), 1.0), 100_000),
    ],
)
def test_by_kind(sequence, found):
    assert held(sequence, 3000, 100_000)[1] == found


@given(
    grows=st.booleans(),
    windows=st.lists(st.tuples(st.floats(0.1, 8), st.integers(16, 8192)), max_size=3),
    state=st.floats(0, 4000),
    kv_tokens=st.integers(0, 20_000),
)
def test_one_token_more_does_not_fit(grows, windows, state, kv_tokens):
    limits, found = held(SequenceMemory(1.0, grows, tuple(windows), state), kv_tokens, 30_000)
    assert found in (0, 30_000) or blocks_of(limits, found) <= limits.blocks
    assert found == 30_000 or blocks_of(limits, found + 1) > limits.blocks


@given(
    grows=st.booleans(),
    windows=st.lists(st.tuples(st.floats(0.1, 8), st.integers(16, 8192)), max_size=3),
    state=st.floats(0, 4000),
    block=st.sampled_from([0, 16, 528]),
    tokens=st.integers(1, 20_000),
    spare=st.integers(0, 1),
)
def test_a_plan_and_the_simulator_agree_on_what_fits(grows, windows, state, block, tokens, spare):
    """Or else a layout that a plan takes could not be simulated."""
    sequence = SequenceMemory(1.0, grows, tuple(windows), state if grows or windows else 1.0, block)
    needed = int(sequence.tokens_of(tokens, 16))
    limits, _ = held(sequence, needed - spare, tokens)
    assert (blocks_of(limits, tokens) <= limits.blocks) is (spare == 0)
