"""What the load generator saw of one request, and the latencies that follow from it.

All times are seconds of one clock from the start of the window.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from tuner.stats.streamed import time_per_token


class Outcome(StrEnum):
    """What became of one request; all but OK are failures, and CUT_OFF says nothing of the server."""

    OK = "ok"
    REFUSED = "refused"  # no connection: refused, no route, unknown host
    TLS = "tls"  # the server's certificate or its TLS was not accepted
    CONNECT_TIMEOUT = "connect_timeout"  # no connection in time
    NO_ANSWER = "no_answer"  # connected and sent, and no byte of an answer in time
    STALLED = "stalled"  # the answer began, then nothing came for longer than the stall limit
    TIMEOUT = "timeout"  # still streaming when the request's time was over
    CLOSED = "closed"  # the connection was closed before a byte of the answer
    RESET = "reset"  # the connection broke before the answer was whole
    HTTP_ERROR = "http_error"  # a status other than 200
    NOT_HTTP = "not_http"  # what came back is not HTTP/1
    NOT_A_STREAM = "not_a_stream"  # another content type than text/event-stream
    EMPTY = "empty"  # status 200 and a whole answer without an event
    MALFORMED = "malformed"  # an event that is not the JSON of a completion
    HUGE_EVENT = "huge_event"  # an event without an end
    SERVER_ERROR = "server_error"  # an error inside the stream
    TRUNCATED = "truncated"  # the stream ended in good order, but before [DONE] or a reason to end
    NO_TOKENS = "no_tokens"  # complete, and nothing was generated
    OVERLONG = "overlong"  # more tokens than asked; a stream that does not end is cut off there
    CLIENT_LIMIT = "client_limit"  # this process ran out of file descriptors
    CUT_OFF = "cut_off"  # the window was ended by its owner while the request was in flight


@dataclass(frozen=True, slots=True)
class Sample:
    """What was seen of one request.

    ``sent_s`` is when the request was taken up: an idle connection got it, or a new one was begun. ``headers_s`` is
    when the first byte of the answer came, ``chunk_s`` when each event that carries generated tokens came, ``end_s``
    when the answer was whole or the failure showed. ``output_tokens`` is the server's own count, as is
    ``counted_prompt_tokens``; ``prompt_tokens`` is what was meant to be sent, ``asked_output_tokens`` what was asked
    for. With ``counted_by_events`` the server told no count, and ``output_tokens`` are the events that carry tokens.
    ``ignored_events`` were no part of the answer. ``text`` is kept only where the call asks for it. A figure that was
    not seen is None.
    """

    index: int
    intended_s: float
    sent_s: float
    headers_s: float | None
    chunk_s: tuple[float, ...]
    end_s: float
    prompt_tokens: int
    output_tokens: int | None
    outcome: Outcome
    status: int | None = None
    detail: str | None = None
    counted_prompt_tokens: int | None = None
    text: str | None = None
    asked_output_tokens: int | None = None
    counted_by_events: bool = False
    ignored_events: int = 0
    ignored_example: str | None = None

    @property
    def ok(self) -> bool:
        """True when the answer was whole."""
        return self.outcome is Outcome.OK

    @property
    def error(self) -> str:
        """The outcome by name, an HTTP error by its status: ``http_429``."""
        return f"http_{self.status}" if self.outcome is Outcome.HTTP_ERROR else self.outcome.value

    @property
    def lag_s(self) -> float:
        """Seconds from the intended to the actual send."""
        return self.sent_s - self.intended_s

    @property
    def ttft_s(self) -> float | None:
        """Seconds from the actual send to the first token."""
        return self.chunk_s[0] - self.sent_s if self.chunk_s else None

    @property
    def ttft_from_intended_s(self) -> float | None:
        """Seconds from the intended send to the first token: what a user in this arrival process would wait."""
        return self.chunk_s[0] - self.intended_s if self.chunk_s else None

    @property
    def e2e_s(self) -> float | None:
        """Seconds from the actual send to the last token."""
        return self.chunk_s[-1] - self.sent_s if self.chunk_s else None

    @property
    def tpot_s(self) -> float | None:
        """TPOT (``tuner.stats.streamed``) in seconds; None of fewer than two tokens."""
        if self.e2e_s is None or self.output_tokens is None:
            return None
        return time_per_token(self.chunk_s[-1] - self.chunk_s[0], self.e2e_s, self.output_tokens, self.opening_tokens)

    @property
    def opening_tokens(self) -> int:
        """Tokens of the first message: of its events, where each carries as many tokens as all do on average."""
        events = sum(at_s == self.chunk_s[0] for at_s in self.chunk_s)
        whole = self.output_tokens or 0
        return max(events, round(events * whole / len(self.chunk_s))) if events else 0

    @property
    def message_s(self) -> list[float]:
        """When each message came: events that came in one read are one."""
        return [at_s for place, at_s in enumerate(self.chunk_s) if not place or at_s != self.chunk_s[place - 1]]

    @property
    def itl_s(self) -> list[float]:
        """Seconds between one message that carries tokens and the next."""
        came_s = self.message_s
        return [later - earlier for earlier, later in pairwise(came_s)]
