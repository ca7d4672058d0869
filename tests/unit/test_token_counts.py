"""What the server counts otherwise than was asked is said, with both numbers; what it counts alike is not."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.load.request_sample import Outcome, Sample
from serve.measure.summary import figures
from serve.measure.token_counts import token_counts


def answer(prompt=100, counted=100, asked=8, made=8, events=8, **more):
    times = tuple(0.1 + 0.01 * place for place in range(events))
    return Sample(
        0, 0.0, 0.0, 0.1, times, times[-1], prompt, made, Outcome.OK,
        counted_prompt_tokens=counted, asked_output_tokens=asked, **more,
    )  # fmt: skip


FAILED = Sample(1, 0.0, 0.0, None, (), 1.0, 100, None, Outcome.RESET, asked_output_tokens=8)


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        ([], []),
        ([FAILED], []),
        ([answer(), FAILED], []),
        ([answer(counted=102)], []),
        ([answer(counted=103)], ["the server counts 103 prompt tokens per request, 100 were asked for"]),
        ([answer(1024, 8)], ["the server counts 8 prompt tokens per request, 1,024 were asked for"]),
        (  # a mean that agrees hides nothing
            [answer(counted=90), answer(counted=110)],
            ["the server counts 100 prompt tokens per request, 100 were asked for"],
        ),
        ([answer(counted=None)], ["does not count prompt tokens"]),
        ([answer(made=2, events=2), answer()], ["1 of 2 answers were shorter than asked: median 2 of 8 tokens"]),
        ([answer(events=2)], ["8 output tokens in 2 events: ITL is the time between events"]),
        ([answer(events=20)], ["8 output tokens in 20 events: ITL"]),
        ([answer(counted_by_events=True)], ["1 of 1 answers came without a count"]),
        (
            [answer(ignored_events=2, ignored_example='{"type":"ping"}')],
            ['2 events were no part of an answer and were ignored, such as {"type":"ping"}'],
        ),
        ([answer(counted=7, made=2, events=1)], ["7 prompt tokens", "2 of 8 tokens", "2 output tokens in 1 events"]),
    ],
)
def test_what_is_said(samples, words):
    cautions = token_counts(samples).cautions
    assert len(cautions) == len(words)
    for said, caution in zip(words, cautions, strict=True):
        assert said in caution


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(1, 5000), st.none() | st.integers(0, 5000)), min_size=1, max_size=8))
def test_rates_are_those_of_the_servers_counts(prompts):
    samples = [replace(answer(asked, counted), index=number) for number, (asked, counted) in enumerate(prompts)]
    found = figures(samples, (), 1.0)
    tokens = sum(asked if counted is None else counted for asked, counted in prompts)
    assert found.prompt_tok_per_s == pytest.approx(tokens / found.wall_s)
    differs = sum(abs(asked - counted) for asked, counted in prompts if counted is not None)
    of = sum(asked for asked, counted in prompts if counted is not None)
    said = any("prompt tokens per request" in words for words in found.tokens.cautions)
    assert said is (of > 0 and differs > 0.02 * of)
