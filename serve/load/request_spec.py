"""What the load generator is told to send, and within which limits of time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Call:
    """One request to send ``intended_s`` after the start, its body ready. ``keep_text``: the answer's text is wanted.

    ``user`` names the simulated user or session that makes it, where there is one.
    """

    index: int
    intended_s: float
    body: bytes
    prompt_tokens: int
    output_tokens: int
    keep_text: bool = False
    user: int | None = None


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds until a request is given up: in all, for a connection, for the first byte, and between two reads."""

    total_s: float
    connect_s: float | None = None
    first_byte_s: float | None = None
    stall_s: float | None = None


@dataclass(frozen=True, slots=True)
class OpenCall:
    """A request in flight: its times in seconds from the start of the window; None: no token yet."""

    index: int
    intended_s: float
    sent_s: float
    first_token_s: float | None
