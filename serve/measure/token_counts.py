"""Tokens as they were asked for, and as the server counts them: where the two differ, figures per token mean another
thing than the load says, so that it has to be said."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from serve.load.request_sample import Sample

MATERIAL_SHARE = 0.02  # counts that differ by less are taken for the same


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """Counts over the ``answers`` of a window, those that were whole.

    ``prompt_tokens`` are sums over the ``counted_prompts`` answers whose prompts the server counts, as ``asked`` and as
    counted, with the sum of the differences without their signs. ``output_events`` are the events that carried the
    ``output_tokens``; ``by_events`` answers came without a count, so that theirs are events. ``short`` answers have
    fewer tokens than asked, with the medians of what they have and of what was asked of them. ``ignored_events`` were
    no part of an answer, in failed requests too.
    """

    answers: int
    counted_prompts: int
    asked_prompt_tokens: int
    prompt_tokens: int
    prompt_difference_tokens: int
    asked_output_tokens: int
    output_tokens: int
    output_events: int
    by_events: int
    short: int
    short_median_tokens: float | None
    short_median_asked_tokens: float | None
    ignored_events: int
    ignored_example: str | None

    @property
    def prompt_tokens_per_request(self) -> float | None:
        """Mean prompt by the server's count; None where it tells none."""
        return self.prompt_tokens / self.counted_prompts if self.counted_prompts else None

    @property
    def asked_prompt_tokens_per_request(self) -> float | None:
        """Mean prompt as it was meant, over the same requests."""
        return self.asked_prompt_tokens / self.counted_prompts if self.counted_prompts else None

    @property
    def tokens_per_event(self) -> float | None:
        """Output tokens per event that carried some, over the answers with a count; None of none."""
        return self.output_tokens / self.output_events if self.output_events and self.by_events == 0 else None

    @property
    def cautions(self) -> tuple[str, ...]:
        """What a reader of the figures has to know of the counts, a sentence each."""
        return tuple(self._cautions())

    def _cautions(self) -> Iterator[str]:
        seen, asked = self.prompt_tokens_per_request, self.asked_prompt_tokens_per_request
        if seen is None or asked is None:
            if self.answers:
                yield "the server does not count prompt tokens: prompt lengths and rates are those asked for"
        elif self.prompt_difference_tokens > MATERIAL_SHARE * self.asked_prompt_tokens:
            yield f"the server counts {seen:,.4g} prompt tokens per request, {asked:,.4g} were asked for"
        if self.short:
            made, wanted = self.short_median_tokens or 0.0, self.short_median_asked_tokens or 0.0
            head = f"{self.short} of {self.answers} answers were shorter than asked"
            yield f"{head}: median {made:,.4g} of {wanted:,.4g} tokens"
        if self.by_events:
            head = f"{self.by_events} of {self.answers} answers came without a count of their tokens (usage)"
            yield f"{head}: their events are counted, of which one may hold several tokens"
        elif abs(self.output_events - self.output_tokens) > MATERIAL_SHARE * self.output_tokens:
            head = f"the server sent {self.output_tokens:,} output tokens in {self.output_events:,} events"
            yield f"{head}: ITL is the time between events, not between tokens"
        if self.ignored_events:
            words = f"{self.ignored_events} events were no part of an answer and were ignored"
            yield words + (f", such as {self.ignored_example}" if self.ignored_example else "")


def token_counts(samples: Sequence[Sample]) -> TokenCounts:
    """The counts of a window's samples."""
    whole = [one for one in samples if one.ok]
    prompts = [(one.prompt_tokens, one.counted_prompt_tokens) for one in whole if one.counted_prompt_tokens is not None]
    outputs = [(one.asked_output_tokens or one.output_tokens or 0, one.output_tokens or 0) for one in whole]
    short = [(asked, made) for asked, made in outputs if made < asked]
    return TokenCounts(
        answers=len(whole),
        counted_prompts=len(prompts),
        asked_prompt_tokens=sum(asked for asked, _ in prompts),
        prompt_tokens=sum(counted for _, counted in prompts),
        prompt_difference_tokens=sum(abs(asked - counted) for asked, counted in prompts),
        asked_output_tokens=sum(asked for asked, _ in outputs),
        output_tokens=sum(made for _, made in outputs),
        output_events=sum(len(one.chunk_s) for one in whole),
        by_events=sum(one.counted_by_events for one in whole),
        short=len(short),
        short_median_tokens=median(made for _, made in short) if short else None,
        short_median_asked_tokens=median(asked for asked, _ in short) if short else None,
        ignored_events=sum(one.ignored_events for one in samples),
        ignored_example=next((one.ignored_example for one in samples if one.ignored_example is not None), None),
    )
