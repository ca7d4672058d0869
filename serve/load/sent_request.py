"""A request on its way: what its connection tells of it, the limits of time, and the sample that comes of it."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

from serve.load.connection import Connection
from serve.load.request_sample import Outcome, Sample
from serve.load.request_spec import Call, Timeouts
from serve.load.streamed_answer import Answer

# Timers have whole milliseconds: a shorter sleep would spin.
SHORTEST_SLEEP_S = 0.001


class Sender(Protocol):
    """Who sent a request and is told of its end."""

    timeouts: Timeouts

    def expire(self, request: SentRequest, outcome: Outcome, detail: str | None) -> None:
        """A limit of time has passed: the request has to end."""

    def request_ended(self, request: SentRequest, outcome: Outcome, detail: str | None, reusable: bool) -> None:
        """The answer is whole, or failed; ``reusable``: its connection can carry another request."""


class SentRequest:
    """A request on its way; ``sent_s`` is in seconds from ``start_s``, the ``perf_counter`` when its window opened."""

    __slots__ = (
        "answer",
        "call",
        "connection",
        "first_byte_s",
        "last_byte_s",
        "sender",
        "sent_s",
        "start_s",
        "status",
        "timers",
    )

    def __init__(self, sender: Sender, call: Call, start_s: float) -> None:
        self.sender, self.call, self.start_s = sender, call, start_s
        self.sent_s = self._now()
        self.answer = Answer(call.output_tokens, call.keep_text)
        self.first_byte_s: float | None = None
        self.last_byte_s: float | None = None
        self.status: int | None = None
        self.connection: Connection | asyncio.Task[None] | None = None
        self.timers: list[asyncio.TimerHandle] = []

    def first_byte(self) -> None:
        """The answer begins: from here on the stall limit holds instead of the first byte's."""
        if len(self.timers) > 1:
            self.timers.pop().cancel()
        if self.sender.timeouts.stall_s is not None:
            self.watch_stall(self.sender.timeouts.stall_s)

    def watch_stall(self, wait_s: float) -> None:
        """Look again after ``wait_s`` whether anything came."""
        self.timers.append(asyncio.get_running_loop().call_later(wait_s, self.check_stall))

    def check_stall(self) -> None:
        """Give up when nothing came for the stall limit."""
        limit_s = self.sender.timeouts.stall_s
        assert limit_s is not None
        assert self.last_byte_s is not None
        self.timers.pop()
        quiet_s = time.perf_counter() - self.last_byte_s
        if quiet_s >= limit_s:
            self.sender.expire(self, Outcome.STALLED, f"nothing for {quiet_s:.3g} s")
        else:
            self.watch_stall(max(limit_s - quiet_s, SHORTEST_SLEEP_S))

    def expired(self) -> None:
        """The request's whole time is over."""
        if self.first_byte_s is None:
            self.sender.expire(self, *self._silence())
            return
        assert self.last_byte_s is not None
        quiet_s = time.perf_counter() - self.last_byte_s
        stalled = quiet_s > self.sender.timeouts.total_s / 2
        words = f"after {len(self.answer.chunk_s)} events, the last byte {quiet_s:.3g} s ago"
        self.sender.expire(self, Outcome.STALLED if stalled else Outcome.TIMEOUT, words)

    def ended(self, outcome: Outcome, detail: str | None, reusable: bool) -> None:
        """The answer is whole, or failed."""
        self.sender.request_ended(self, outcome, detail, reusable)

    @property
    def first_token_s(self) -> float | None:
        """Seconds from the start of the window to the first token; None before it."""
        return self.answer.chunk_s[0] - self.start_s if self.answer.chunk_s else None

    def disconnect(self) -> None:
        """Close its connection, or give up making one."""
        if isinstance(self.connection, Connection):
            self.connection.close()
        elif self.connection is not None and self.connection is not asyncio.current_task():
            self.connection.cancel()

    def sample(self, outcome: Outcome, detail: str | None) -> Sample:
        """What is known of it now that it has ended."""
        call, answer, start_s = self.call, self.answer, self.start_s
        by_events = outcome is Outcome.OK and answer.output_tokens is None
        return Sample(
            index=call.index,
            intended_s=call.intended_s,
            sent_s=self.sent_s,
            headers_s=None if self.first_byte_s is None else self.first_byte_s - start_s,
            chunk_s=tuple([one_s - start_s for one_s in answer.chunk_s]),
            end_s=self._now(),
            prompt_tokens=call.prompt_tokens,
            output_tokens=len(answer.chunk_s) if by_events else answer.output_tokens,
            outcome=outcome,
            status=self.status,
            detail=detail,
            counted_prompt_tokens=answer.prompt_tokens,
            text="".join(answer.text) if call.keep_text else None,
            asked_output_tokens=call.output_tokens,
            counted_by_events=by_events,
            ignored_events=answer.ignored,
            ignored_example=answer.ignored_example,
        )

    def _silence(self) -> tuple[Outcome, str]:
        """What it means that not a byte came in time."""
        waited_s = self._now() - self.sent_s
        if isinstance(self.connection, Connection):
            return Outcome.NO_ANSWER, f"no byte of an answer after {waited_s:.3g} s"
        return Outcome.CONNECT_TIMEOUT, f"no connection after {waited_s:.3g} s"

    def _now(self) -> float:
        return time.perf_counter() - self.start_s
