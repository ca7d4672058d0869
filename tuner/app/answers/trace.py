"""What answers say of the trace whose load a request has: what was read from it, and what was left out."""

from __future__ import annotations

from pydantic import Field

from tuner.app.answers.base import Answer
from tuner.ask.recorded import notes
from tuner.ask.workload import TokenLengths, Workload


class LengthsAnswer(Answer):
    """Lengths of one kind, tokens."""

    mean: float = Field(description="Mean, tokens.")
    min: int = Field(description="Shortest, tokens.")
    max: int = Field(description="Longest, tokens.")


class TraceAnswer(Answer):
    """A recorded load, as it is replayed."""

    requests: int = Field(description="Requests of one round.")
    requests_per_s: float = Field(description="The rate at which it is replayed, requests/s.")
    prompt_tokens: LengthsAnswer = Field(description="Of the prompts.")
    output_tokens: LengthsAnswer = Field(description="Of the outputs.")
    longest_tokens: int = Field(description="The longest prompt with its output, tokens.")
    limit_tokens: int = Field(description="What the engine takes at most of both, tokens.")
    too_long: int = Field(description="Requests that exceeded it, and were skipped or truncated.")
    without_tokens: int = Field(description="Rows without a prompt or an output, which were left out.")
    notes: list[str] = Field(description="What was left out or cut, in sentences.")


BURSTS = "The closed form takes mean lengths and even arrivals; the bursts of the trace show with --simulate 1"


def trace_answer(workload: Workload, *more: str) -> TraceAnswer | None:
    """What a trace brought to a workload, with ``more`` notes; None where it has none."""
    arrival, recorded = workload.arrival, workload.arrival.recorded
    if recorded is None:
        return None
    return TraceAnswer(
        requests=recorded.requests,
        requests_per_s=arrival.requests_per_s,
        prompt_tokens=_lengths(workload.prompt_tokens),
        output_tokens=_lengths(workload.output_tokens),
        longest_tokens=recorded.longest_tokens,
        limit_tokens=recorded.limit_tokens,
        too_long=recorded.too_long,
        without_tokens=recorded.without_tokens,
        notes=[*notes(workload), *more],
    )


def _lengths(tokens: TokenLengths) -> LengthsAnswer:
    low, high = tokens.bounds
    return LengthsAnswer(mean=tokens.mean, min=low, max=high)
