"""Samples come out as they went in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.load.request_sample import Outcome, Sample
from serve.load.sample_arrays import PackedSamples

times = st.floats(0, 1e6)
counts = st.integers(0, 2**40)
samples = st.builds(
    Sample,
    index=counts,
    intended_s=times,
    sent_s=times,
    headers_s=st.none() | times,
    chunk_s=st.lists(times, max_size=4).map(tuple),
    end_s=times,
    prompt_tokens=counts,
    output_tokens=st.none() | counts,
    outcome=st.sampled_from(Outcome),
    status=st.none() | st.integers(100, 599),
    detail=st.none() | st.text(max_size=4),
    counted_prompt_tokens=st.none() | counts,
    text=st.none() | st.text(max_size=4),
    asked_output_tokens=st.none() | counts,
    counted_by_events=st.booleans(),
    ignored_events=counts,
    ignored_example=st.none() | st.text(max_size=4),
)


@pytest.mark.slow
@given(st.lists(samples, max_size=5))
def test_packing_loses_nothing(found):
    assert PackedSamples.of(found).samples() == found
