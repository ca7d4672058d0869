"""What the events of one streamed answer amount to: tokens, counts, the end of it, or an error.

The JSON of every event is decoded and checked, by field types, in well under a microsecond (msgspec). An event that is
no part of a completion (a ping, a keep-alive, a type that the server made up) is ignored and counted, never a token.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec

from serve.load.event_stream import EventStream, EventTooLong
from serve.load.request_sample import Outcome

# Events before a stream counts as endless: gateways cut one token into several, chat servers send some that carry none.
EVENTS_PER_TOKEN, SPARE_EVENTS = 8, 16
_KEEP_ALIVE = re.compile(rb"ping|pong|keep[-_ ]?alive|heart[-_ ]?beat", re.IGNORECASE)
_BROKEN_OFF = frozenset({"abort", "error"})  # how vLLM and gateways say that an answer was not finished
_Count = Annotated[int, msgspec.Meta(ge=0)]


class _Delta(msgspec.Struct):
    content: str | list[Any] | None = None
    role: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    refusal: Any = None
    tool_calls: Any = None
    function_call: Any = None


class _Choice(msgspec.Struct):
    text: str | None = None
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    completion_tokens: _Count | None = None
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
    """What has been seen of one streamed answer so far; ``chunk_s`` holds the times of token-carrying events.

    ``ignored`` counts the events that were no part of a completion, ``ignored_example`` is the first of them.
    ``output_tokens`` and ``prompt_tokens`` are the server's own counts, None where it sent none.
    """

    asked_tokens: int
    keep_text: bool = False
    chunk_s: list[float] = field(default_factory=list)
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    finish_reason: str | None = None
    done: bool = False
    error: str | None = None
    events: int = 0
    ignored: int = 0
    ignored_example: str | None = None
    text: list[str] = field(default_factory=list)
    _wordless: list[int] = field(default_factory=list)  # places in chunk_s of events without text
    _stream: EventStream = field(default_factory=EventStream)
    _most_events: int = field(init=False)

    def __post_init__(self) -> None:
        self._most_events = EVENTS_PER_TOKEN * self.asked_tokens + SPARE_EVENTS

    def feed(self, body: bytes, now_s: float) -> None:
        """Fold in what was read at ``now_s``; raises BadAnswer when it cannot be such a stream."""
        try:
            for data, kind in self._stream.feed(body):
                self._take(data, kind, now_s)
        except EventTooLong as error:
            raise BadAnswer(Outcome.HUGE_EVENT, str(error)) from None

    def _take(self, data: bytes, kind: bytes, now_s: float) -> None:
        self.events += 1
        try:
            message = _decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            odd = self._odd(data, kind)
            if odd is None:
                return
            message = odd
        choices = message.choices
        if not choices or message.error or kind == b"error":
            self._no_choices(message, data, kind)
        else:
            choice, finish_reason = choices[0], choices[0].finish_reason
            if finish_reason is not None:
                self.finish_reason = finish_reason
            delta = choice.delta
            if (choice.text if delta is None else delta.content) or self._without_text(choice, data):
                self.chunk_s.append(now_s)
                if self.keep_text:
                    self.text.append(_text(choice))
                if len(self.chunk_s) > self._most_events:
                    words = f"{len(self.chunk_s)} events, {self.asked_tokens} tokens asked"
                    raise BadAnswer(Outcome.OVERLONG, words)
        if message.usage is not None:
            self._count(message.usage)

    def _without_text(self, choice: _Choice, data: bytes) -> bool:
        """Does an event without plain text stand for a token? Reasoning and calls of tools do, and so does an empty
        text: a token may have none of its own. The opening of a chat that only names the role, and a close that holds
        nothing, do not."""
        delta = choice.delta
        if delta is not None and (
            delta.reasoning_content or delta.reasoning or delta.tool_calls or delta.refusal or delta.function_call
        ):
            return True
        if choice.text is not None if delta is None else delta.content is not None and delta.role is None:
            self._wordless.append(len(self.chunk_s))
            self._most_events += 1
            return True
        if choice.finish_reason is None and (delta is None or delta.role is None):
            self._ignore(data)
        return False

    def _no_choices(self, message: _Event, data: bytes, kind: bytes) -> None:
        """An error, a count of tokens, or no part of a completion."""
        if message.error or kind == b"error":
            self.error = shown(data) or "an event of type error"
        elif message.choices is not None or message.usage is not None:
            if message.usage is None:
                self._ignore(data, kind)
        else:
            said = msgspec.json.decode(data.decode("utf-8", "replace"))
            if "error" in (said.get("object"), said.get("type")):
                self.error = shown(data)
            else:
                self._ignore(data, kind)

    def _count(self, usage: _Usage) -> None:
        if usage.completion_tokens is not None:
            self.output_tokens = usage.completion_tokens
        if usage.prompt_tokens is not None:
            self.prompt_tokens = usage.prompt_tokens

    def _ignore(self, data: bytes, kind: bytes = b"") -> None:
        self.ignored += 1
        if self.ignored_example is None:
            self.ignored_example = shown((b"event: " + kind + b" " if kind else b"") + data) or "an empty event"

    def _odd(self, data: bytes, kind: bytes) -> _Event | None:
        """What data says that is no object of the JSON of a completion; None where nothing more is to be done.

        Raises BadAnswer for what is broken: an event that says nothing is a server's way to stay connected, half of a
        message is not.
        """
        plain = data.strip()
        if plain == b"[DONE]":
            self.done = True
            return None
        if kind == b"error":
            return _Event()
        named = kind not in (b"", b"message")
        if not plain or _KEEP_ALIVE.fullmatch(plain):
            self._ignore(data, kind)
            return None
        try:
            document = msgspec.json.decode(data.decode("utf-8", "replace"))
            if not isinstance(document, dict):
                self._ignore(data, kind)
                return None
            return msgspec.convert(document, _Event)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            if named and not plain.startswith(b"{"):
                self._ignore(data, kind)
                return None
            raise BadAnswer(Outcome.MALFORMED, f"{error}: {shown(data)}") from None

    def verdict(self) -> tuple[Outcome, str | None]:
        """What a stream that ended in good order amounts to.

        It is whole with [DONE], or where its last choice names a reason to end. Fewer tokens than asked are an answer;
        where the server counts none, the events that carry some are what is known.
        """
        self._drop_wordless()
        asked, made = self.asked_tokens, self.output_tokens
        if self.error is not None:
            return Outcome.SERVER_ERROR, self.error
        if self.finish_reason in _BROKEN_OFF:
            return Outcome.SERVER_ERROR, f"finish_reason {self.finish_reason}, after {len(self.chunk_s)} events"
        if not self.events:
            return Outcome.EMPTY, None
        if not self.done and self.finish_reason is None:
            return Outcome.TRUNCATED, f"after {len(self.chunk_s)} events"
        if not self.chunk_s or made == 0:
            return Outcome.NO_TOKENS, None
        if made is not None and made > asked:
            return Outcome.OVERLONG, f"{made} tokens, {asked} asked"
        return Outcome.OK, None

    def _drop_wordless(self) -> None:
        """Where there are more events than tokens, those without text carried none: openings, closes, keep-alives. A
        token may have no text of its own, so that only the server's count tells."""
        known = 0 if self.output_tokens is None else self.output_tokens
        if self._wordless and known < len(self.chunk_s) and len(self._wordless) < len(self.chunk_s):
            none = set(self._wordless)
            self.chunk_s = [at_s for place, at_s in enumerate(self.chunk_s) if place not in none]
            self._wordless.clear()


def _text(choice: _Choice) -> str:
    said = choice.text if choice.delta is None else choice.delta.content
    if isinstance(said, list):
        return "".join(str(part.get("text") or "") for part in said if isinstance(part, dict))
    return said or ""


def shown(text: bytes, most_bytes: int = 200) -> str:
    """The beginning of what a server sent, fit for one line."""
    return " ".join(text[:most_bytes].decode("utf-8", "replace").split())
