"""An open-loop streaming client for OpenAI-compatible completions.

Every request is sent at its intended time, whatever the server does; nothing waits for a free connection and nothing
is retried. All times are seconds of one ``time.perf_counter`` clock from the start of the window. Generated tokens are
counted from ``usage``, never from the text, which may be empty; one event of the stream may carry several tokens.
"""

from __future__ import annotations

import asyncio
import errno
import json
import resource
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from serve.sample import Outcome, Sample
from tuner.errors import BadInput

MAX_EVENT_BYTES = 1 << 20
# Shorter than the 5 s after which uvicorn closes an idle connection: a request never meets one that is just closing.
KEEPALIVE_S = 2.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to send: ``url`` without ``/v1``, the model name that requests carry, and extra headers (an API key)."""

    url: str
    model: str
    headers: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BadInput("url", self.url, "http://HOST[:PORT] or https://HOST[:PORT]")

    @property
    def completions_url(self) -> str:
        """Address of the completions endpoint."""
        return self.url.rstrip("/") + "/v1/completions"


@dataclass(frozen=True, slots=True)
class Call:
    """One request to send ``intended_s`` after the start, its body ready."""

    index: int
    intended_s: float
    body: bytes
    prompt_tokens: int
    output_tokens: int


class _Malformed(Exception):
    """The answer is not a completion stream; the text says why."""


@dataclass(slots=True)
class _Answer:
    """What has been seen of one answer so far."""

    status: int | None = None
    headers_s: float | None = None
    chunk_s: list[float] = field(default_factory=list)
    output_tokens: int | None = None
    done: bool = False
    error: str | None = None

    def take(self, event: bytes, now_s: float) -> None:
        """Fold in one event that arrived at ``now_s``."""
        if event == b"[DONE]":
            self.done = True
            return
        try:
            message = json.loads(event)
        except ValueError:
            raise _Malformed(f"not JSON: {_shown(event)}") from None
        if not isinstance(message, dict):
            raise _Malformed(f"not an object: {_shown(event)}")
        if message.get("error") is not None:
            self.error = _shown(event)
            return
        choices = message.get("choices")
        if not isinstance(choices, list):
            raise _Malformed(f"no choices: {_shown(event)}")
        if choices:
            self.chunk_s.append(now_s)
        self._take_usage(message.get("usage"), event)

    def _take_usage(self, usage: Any, event: bytes) -> None:
        if usage is None:
            return
        tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
        if not isinstance(tokens, int) or isinstance(tokens, bool) or tokens < 0:
            raise _Malformed(f"no completion_tokens in usage: {_shown(event)}")
        self.output_tokens = tokens

    def verdict(self, asked_tokens: int) -> tuple[Outcome, str | None]:
        """What a stream that ended in good order amounts to."""
        if self.error is not None:
            return Outcome.SERVER_ERROR, self.error
        if not self.done:
            return Outcome.TRUNCATED, f"after {len(self.chunk_s)} events"
        if not self.chunk_s or self.output_tokens == 0:
            return Outcome.NO_TOKENS, None
        if self.output_tokens is None:
            return Outcome.NO_USAGE, None
        if self.output_tokens < asked_tokens:
            return Outcome.SHORT, f"{self.output_tokens} of {asked_tokens} tokens"
        return Outcome.OK, None


class LoadRun:
    """One window of load on one endpoint; its counters may be read while it runs."""

    def __init__(self, endpoint: Endpoint, timeout_s: float) -> None:
        self.endpoint = endpoint
        self.timeout_s = timeout_s
        self.sent = 0
        self.samples: list[Sample] = []
        self._start: float | None = None

    @property
    def in_flight(self) -> int:
        """Requests sent and not yet ended."""
        return self.sent - len(self.samples)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the window opened; 0 before."""
        return 0.0 if self._start is None else self._now()

    async def run(self, calls: Iterable[Call]) -> list[Sample]:
        """Send every call at its intended time, wait for all answers, and return the samples in order of sending.

        ``calls`` come by rising ``intended_s``; each is drawn before its time is awaited, so that making its body
        costs no lag unless the client is saturated. Ends at most ``timeout_s`` after the last send. A cancellation
        closes every connection.
        """
        _raise_file_limit()
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S)
        timeout = aiohttp.ClientTimeout(total=None)
        headers = {"Content-Type": "application/json", **dict(self.endpoint.headers)}
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout, headers=headers) as session,
            asyncio.TaskGroup() as tasks,
        ):
            self._start = time.perf_counter()
            for call in calls:
                while (wait_s := call.intended_s - self._now()) > 0:
                    await asyncio.sleep(wait_s)  # loops because timers of whole milliseconds may wake early
                tasks.create_task(self._send(session, call))
        return sorted(self.samples, key=lambda sample: sample.index)

    def _now(self) -> float:
        assert self._start is not None  # set by run before anything is sent
        return time.perf_counter() - self._start

    async def _send(self, session: aiohttp.ClientSession, call: Call) -> None:
        answer, sent_s = _Answer(), self._now()
        self.sent += 1
        try:
            async with asyncio.timeout(self.timeout_s):
                outcome, detail = await self._exchange(session, call, answer)
        except _Malformed as error:
            outcome, detail = Outcome.MALFORMED, str(error)
        except TimeoutError:
            outcome, detail = Outcome.TIMEOUT, f"after {len(answer.chunk_s)} events and {self.timeout_s:g} s"
        except aiohttp.ClientError as error:
            outcome, detail = _broken(error), f"{type(error).__name__}: {error}"
        self.samples.append(
            Sample(
                index=call.index,
                intended_s=call.intended_s,
                sent_s=sent_s,
                headers_s=answer.headers_s,
                chunk_s=tuple(answer.chunk_s),
                end_s=self._now(),
                prompt_tokens=call.prompt_tokens,
                output_tokens=answer.output_tokens,
                outcome=outcome,
                status=answer.status,
                detail=detail,
            )
        )

    async def _exchange(
        self, session: aiohttp.ClientSession, call: Call, answer: _Answer
    ) -> tuple[Outcome, str | None]:
        async with session.post(self.endpoint.completions_url, data=call.body, allow_redirects=False) as response:
            answer.status, answer.headers_s = response.status, self._now()
            if response.status != 200:
                return Outcome.HTTP_ERROR, _shown(await response.content.read(300))
            if response.content_type != "text/event-stream":
                raise _Malformed(f"content type {response.content_type}")
            async for events in _events(response.content):
                now_s = self._now()
                for event in events:
                    answer.take(event, now_s)
        return answer.verdict(call.output_tokens)


async def _events(stream: aiohttp.StreamReader) -> AsyncIterator[list[bytes]]:
    """The data lines of a server-sent event stream, read by read; OpenAI's events are one line each."""
    rest = b""
    async for block in stream.iter_any():
        *lines, rest = (rest + block).split(b"\n")
        if len(rest) > MAX_EVENT_BYTES:
            raise _Malformed(f"an event of more than {MAX_EVENT_BYTES} bytes")
        yield [line[5:].strip() for line in lines if line.startswith(b"data:")]


def _broken(error: aiohttp.ClientError) -> Outcome:
    if isinstance(error, aiohttp.ClientOSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return Outcome.CLIENT_LIMIT
    if isinstance(error, aiohttp.ClientConnectorError):
        return Outcome.REFUSED
    if isinstance(error, aiohttp.ClientConnectionError | aiohttp.ClientPayloadError):
        return Outcome.RESET
    return Outcome.MALFORMED  # what is left of aiohttp's tree: an answer that is not HTTP


def _shown(text: bytes) -> str:
    return " ".join(text[:200].decode("utf-8", "replace").split())


def _raise_file_limit() -> None:
    """Let this process open as many connections as the system allows it: each request in flight holds one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
