"""The body of a streamed answer: server-sent events, and what the tokens in them amount to.

Events are split as the HTML standard says (server-sent events, "Interpreting an event stream"): lines may end in LF,
CRLF or CR, comments and other fields are passed over, several ``data`` lines make one event. The JSON of every event
is decoded and checked, by field types, in well under a microsecond (msgspec).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec

from serve.load.request_sample import Outcome

MAX_EVENT_BYTES = 1 << 20
# Events beyond the tokens asked for before a stream counts as endless: chat servers send some that carry none.
SPARE_EVENTS = 16
_Count = Annotated[int, msgspec.Meta(ge=0)]


class _Delta(msgspec.Struct):
    role: str | None = None
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[Any] | None = None


class _Choice(msgspec.Struct):
    text: str | None = None
    delta: _Delta | None = None


class _Usage(msgspec.Struct):
    completion_tokens: _Count
    prompt_tokens: _Count | None = None


class _Event(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Event).decode


class BadAnswer(Exception):
    """The answer is not the stream that was asked for."""

    def __init__(self, outcome: Outcome, detail: str) -> None:
        super().__init__(detail)
        self.outcome, self.detail = outcome, detail


@dataclass(slots=True)
class Answer:
    """What has been seen of one streamed answer so far; ``chunk_s`` holds the times of token-carrying events."""

    asked_tokens: int
    keep_text: bool = False
    chunk_s: list[float] = field(default_factory=list)
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    done: bool = False
    error: str | None = None
    events: int = 0
    text: list[str] = field(default_factory=list)
    _rest: bytes = b""
    _lines: list[bytes] = field(default_factory=list)

    def feed(self, body: bytes, now_s: float) -> None:
        """Fold in what was read at ``now_s``; raises BadAnswer when it cannot be such a stream."""
        if not self._rest and not self._lines and _is_one_event(body):
            self._take(body[6:-2], now_s)
            return
        body = self._rest + body
        self._rest = b""
        if b"\r" in body:
            if body.endswith(b"\r"):  # perhaps the first half of a CRLF
                body, self._rest = body[:-1], b"\r"
            body = body.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = body.split(b"\n")
        self._rest = rest + self._rest
        for line in lines:
            self._line(line, now_s)
        if len(self._rest) + sum(map(len, self._lines)) > MAX_EVENT_BYTES:
            raise BadAnswer(Outcome.HUGE_EVENT, f"more than {MAX_EVENT_BYTES} bytes")

    def _line(self, line: bytes, now_s: float) -> None:
        if line.startswith(b"data:"):
            self._lines.append(line[5:].removeprefix(b" "))
        elif not line and self._lines:
            event = b"\n".join(self._lines)
            self._lines.clear()
            self._take(event, now_s)

    def _take(self, event: bytes, now_s: float) -> None:
        self.events += 1
        if event == b"[DONE]":
            self.done = True
            return
        try:
            message = _decode(event)
        except msgspec.ValidationError as error:
            raise BadAnswer(Outcome.MALFORMED, f"{error}: {shown(event)}") from None
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise BadAnswer(Outcome.MALFORMED, f"not JSON: {shown(event)}") from None
        if message.error is not None:
            self.error = shown(event)
            return
        if message.choices is None:
            raise BadAnswer(Outcome.MALFORMED, f"no choices: {shown(event)}")
        if message.choices and _carries_token(message.choices[0]):
            self.chunk_s.append(now_s)
            if self.keep_text:
                self.text.append(_text(message.choices[0]))
            if len(self.chunk_s) > self.asked_tokens + SPARE_EVENTS:
                raise BadAnswer(Outcome.OVERLONG, f"{len(self.chunk_s)} events, {self.asked_tokens} tokens asked")
        if message.usage is not None:
            self.output_tokens = message.usage.completion_tokens
            self.prompt_tokens = message.usage.prompt_tokens

    def verdict(self) -> tuple[Outcome, str | None]:
        """What a stream that ended in good order amounts to."""
        asked, made = self.asked_tokens, self.output_tokens
        if self.error is not None:
            return Outcome.SERVER_ERROR, self.error
        if not self.events:
            return Outcome.EMPTY, None
        if not self.done:
            return Outcome.TRUNCATED, f"after {len(self.chunk_s)} events"
        if not self.chunk_s or made == 0:
            return Outcome.NO_TOKENS, None
        if made is None:
            return Outcome.NO_USAGE, None
        if made < asked:
            return Outcome.SHORT, f"{made} of {asked} tokens"
        if made > asked:
            return Outcome.OVERLONG, f"{made} tokens, {asked} asked"
        return Outcome.OK, None


def _is_one_event(body: bytes) -> bool:
    """By far the most common read: one event of one line, whole."""
    return (
        body.startswith(b"data: ")
        and body.endswith(b"\n\n")
        and body.find(b"\n") == len(body) - 2
        and b"\r" not in body
    )


def _carries_token(choice: _Choice) -> bool:
    """Does the event stand for generated tokens? Their text may be empty.

    Of a chat, the opening that only names the role and the close that holds nothing do not.
    """
    delta = choice.delta
    if delta is None:
        return True
    if delta.content or delta.reasoning_content or delta.reasoning or delta.tool_calls:
        return True
    return delta.content is not None and delta.role is None


def _text(choice: _Choice) -> str:
    return (choice.text or "") if choice.delta is None else (choice.delta.content or "")


def shown(text: bytes) -> str:
    """The beginning of what a server sent, fit for one line."""
    return " ".join(text[:200].decode("utf-8", "replace").split())
