"""Server-sent events, taken up again where they broke off."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from tuner.errors import ServiceError

GIVE_UP_S = 120.0  # without one event or comment, however often it was tried
AGAIN_S = 1.0  # until the stream says how long

Lines = Callable[[int], AbstractContextManager[Iterable[str]]]


@dataclass(frozen=True, slots=True)
class StudyEvent:
    """What happened in a study: its number there, from 1, the kind, and the data as an answer has them."""

    number: int
    kind: str
    data: dict[str, Any]


def follow(
    lines: Lines, over: Callable[[], bool], after: int = 0, wait: Callable[[float], None] = time.sleep
) -> Iterator[StudyEvent]:
    """Each event behind that number, once and in order, until ``over``.

    ``lines`` opens the stream behind an event's number; it raises ServiceError where there is none to be had, now or in
    the middle. ``over`` says whether the study has ended, when the stream does. Raises ServiceError where nothing could
    be had for ``GIVE_UP_S``.
    """
    heard_at, again_s = time.monotonic(), AGAIN_S
    while True:
        try:
            with lines(after) as opened:
                for found in _parsed(opened):
                    heard_at = time.monotonic()
                    if isinstance(found, StudyEvent) and found.number > after:
                        after = found.number
                        yield found
                    elif isinstance(found, float):
                        again_s = found
            if over():
                return
        except ServiceError:
            if time.monotonic() - heard_at > GIVE_UP_S:
                raise
        wait(again_s)


def _parsed(lines: Iterable[str]) -> Iterator[StudyEvent | float | None]:
    """Events; a float for each ``retry``, in s; None for whatever else shows that the stream lives."""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
            continue
        if {"id", "event", "data"} <= set(fields):
            yield StudyEvent(int(fields["id"]), fields["event"], json.loads(fields["data"]))
        elif fields.get("retry", "").isdigit():
            yield int(fields["retry"]) / 1000
        else:
            yield None
        fields = {}
