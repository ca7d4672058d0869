"""Samples as a few arrays, for the way from one process to another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serve.load.request_sample import Outcome, Sample

_OUTCOMES = tuple(Outcome)
_ABSENT = -1
_NO_WORDS = (None, None, None)


@dataclass(frozen=True, slots=True)
class PackedSamples:
    """``n`` samples: ``whole`` (n, 10) counts and codes, ``time_s`` (n, 4), and all chunk times one after the other.

    Absent whole numbers are -1 and absent times NaN. ``words`` holds the (detail, text, example of
    what was ignored) of the samples that have any.
    """

    whole: NDArray[np.int64]
    time_s: NDArray[np.float64]
    chunk_s: NDArray[np.float64]
    words: dict[int, tuple[str | None, str | None, str | None]]

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> PackedSamples:
        """Pack them."""
        whole = [
            (
                one.index,
                one.prompt_tokens,
                _number(one.output_tokens),
                _number(one.counted_prompt_tokens),
                _OUTCOMES.index(one.outcome),
                _number(one.status),
                len(one.chunk_s),
                _number(one.asked_output_tokens),
                one.counted_by_events,
                one.ignored_events,
            )
            for one in samples
        ]
        time_s = [(one.intended_s, one.sent_s, _time(one.headers_s), one.end_s) for one in samples]
        return cls(
            np.array(whole, dtype=np.int64).reshape(-1, 10),
            np.array(time_s, dtype=np.float64).reshape(-1, 4),
            np.array([at_s for one in samples for at_s in one.chunk_s], dtype=np.float64),
            {row: said for row, one in enumerate(samples) if (said := _words(one)) != _NO_WORDS},
        )

    def samples(self) -> list[Sample]:
        """The samples as they were packed."""
        found, start = [], 0
        chunk_s = self.chunk_s.tolist()
        rows = zip(self.whole.tolist(), self.time_s.tolist(), strict=True)
        for row, (numbers, (intended_s, sent_s, headers_s, end_s)) in enumerate(rows):
            index, prompt, output, counted, outcome, status, chunks, asked, by_events, ignored = numbers
            detail, text, example = self.words.get(row, _NO_WORDS)
            found.append(
                Sample(
                    index=index,
                    intended_s=intended_s,
                    sent_s=sent_s,
                    headers_s=None if headers_s != headers_s else headers_s,
                    chunk_s=tuple(chunk_s[start : start + chunks]),
                    end_s=end_s,
                    prompt_tokens=prompt,
                    output_tokens=_seen(output),
                    outcome=_OUTCOMES[outcome],
                    status=_seen(status),
                    detail=detail,
                    counted_prompt_tokens=_seen(counted),
                    text=text,
                    asked_output_tokens=_seen(asked),
                    counted_by_events=bool(by_events),
                    ignored_events=ignored,
                    ignored_example=example,
                )
            )
            start += chunks
        return found


def _words(one: Sample) -> tuple[str | None, str | None, str | None]:
    return one.detail, one.text, one.ignored_example


def _number(value: int | None) -> int:
    return _ABSENT if value is None else value


def _time(value: float | None) -> float:
    return float("nan") if value is None else value


def _seen(value: int) -> int | None:
    return None if value == _ABSENT else value
