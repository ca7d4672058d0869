"""TPOT and ITL of streams whose messages carry several tokens."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.load.request_sample import Outcome, Sample
from tuner.stats.streamed import per_token, time_per_token


def sample(chunk_s: list[float], tokens: int | None = None) -> Sample:
    """A whole answer whose events came at these times."""
    count = len(chunk_s) if tokens is None else tokens
    return Sample(0, 0.0, 0.0, None, tuple(chunk_s), chunk_s[-1], 8, count, Outcome.OK)


def test_a_plain_stream_is_counted_as_ever() -> None:
    plain = sample([0.5, 0.6, 0.8, 0.9])
    assert plain.tpot_s == pytest.approx(0.4 / 3)
    assert plain.itl_s == pytest.approx([0.1, 0.2, 0.1])
    assert sample([0.5]).tpot_s is None


def test_tokens_of_the_first_message_share_no_time_after_it() -> None:
    batched = sample([0.5, 0.5, 0.5, 1.0, 1.0, 1.0, 1.5, 1.5, 1.5])
    assert batched.tpot_s == pytest.approx(1.0 / 6)
    assert batched.itl_s == pytest.approx([0.5, 0.5])


def test_an_answer_that_comes_at_once_is_not_streamed() -> None:
    assert sample([2.0, 2.0, 2.0, 2.0]).tpot_s == pytest.approx(0.5)
    assert sample([2.0, 2.0, 2.0, 2.1]).tpot_s == pytest.approx(2.1 / 4)
    assert sample([2.0], tokens=8).tpot_s == pytest.approx(0.25)


def test_events_of_several_tokens_count_by_the_server_s_own_count() -> None:
    assert sample([0.5, 1.0, 1.5, 2.0], tokens=16).tpot_s == pytest.approx(1.5 / 12)


@given(
    st.integers(8, 300), st.floats(1e-3, 0.2), st.floats(0.0, 3.0), st.floats(0.001, 20.0), st.floats(0.0, 1.0)
)  # fmt: skip
def test_no_interval_makes_tpot_shorter(tokens: int, tpot: float, ttft: float, interval: float, phase: float) -> None:
    made = max(ttft, tpot) + tpot * np.arange(tokens)
    ticks = (np.ceil(made / interval - phase) + phase) * interval
    seen = np.minimum(ticks, made[-1])
    found = sample(seen.tolist())
    assert found.tpot_s is not None
    assert found.tpot_s >= tpot * (1 - 2.0 / tokens) - 1e-9
    assert max(found.itl_s, default=np.inf) >= tpot * (1 - 1e-6) or len(found.message_s) <= 2


@given(st.floats(0, 5), st.floats(0, 5), st.integers(1, 50), st.integers(0, 50))
def test_arrays_are_judged_as_single_answers(ttft: float, more: float, tokens: int, first: int) -> None:
    single, array = time_per_token(more, ttft + more, tokens, first), float(per_token(more, ttft + more, tokens, first))
    assert np.isnan(array) if single is None else array == pytest.approx(single)
