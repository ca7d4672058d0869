"""Tokens in an answer: as they were asked for, and as the server counts them."""

from __future__ import annotations

from pydantic import Field

from serve.measure.token_counts import TokenCounts
from tuner.app.answers.base import Answer


class TokensAnswer(Answer):
    """Tokens of the answered requests, as asked for and as the server counts them."""

    prompt_asked_per_request: float | None = Field(description="Mean prompt asked for, tokens; null: not counted.")
    prompt_per_request: float | None = Field(description="Mean prompt by the server's count; null where it tells none.")
    output_asked: int = Field(description="Output tokens asked for.")
    output: int = Field(description="Output tokens, by the server's count where it tells one, else events.")
    output_events: int = Field(description="Events that carried them.")
    counted_by_events: int = Field(description="Answers of which the server told no count of output tokens.")
    short_answers: int = Field(description="Answers with fewer tokens than asked.")
    short_median: float | None = Field(description="Of those, the median of their tokens; null of none.")
    short_median_asked: float | None = Field(description="Of those, the median of what was asked; null of none.")
    ignored_events: int = Field(description="Events that were no part of an answer.")


def tokens_answer(found: TokenCounts) -> TokensAnswer:
    """Counts of a window."""
    return TokensAnswer(
        prompt_asked_per_request=found.asked_prompt_tokens_per_request,
        prompt_per_request=found.prompt_tokens_per_request,
        output_asked=found.asked_output_tokens,
        output=found.output_tokens,
        output_events=found.output_events,
        counted_by_events=found.by_events,
        short_answers=found.short,
        short_median=found.short_median_tokens,
        short_median_asked=found.short_median_asked_tokens,
        ignored_events=found.ignored_events,
    )
