"""A mock of an OpenAI-compatible streaming endpoint, on a thread, that keeps its own log and can misbehave."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from types import TracebackType
from typing import Any

from aiohttp import web

FOREVER_S = 3600.0


class Behaviour(StrEnum):
    """What the server does with a request."""

    OK = "ok"
    HTTP_429 = "http_429"
    HTTP_500 = "http_500"
    REDIRECT = "redirect"
    SLOW_HEADERS = "slow_headers"
    STALL = "stall"
    RESET = "reset"
    NOT_HTTP = "not_http"
    NOT_A_STREAM = "not_a_stream"
    NOT_JSON = "not_json"
    UNKNOWN_EVENT = "unknown_event"
    HUGE_EVENT = "huge_event"
    ERROR_EVENT = "error_event"
    TRUNCATED = "truncated"
    NO_USAGE = "no_usage"
    BAD_USAGE = "bad_usage"
    ZERO_TOKENS = "zero_tokens"
    SHORT = "short"
    OVERLONG = "overlong"
    ENDLESS = "endless"
    WRONG_MODEL = "wrong_model"
    CLOSED = "closed"
    EMPTY = "empty"
    MUST_END = "must_end"


@dataclass(slots=True)
class Served:
    """One request as the server saw it; times by ``time.perf_counter``, in seconds."""

    body: dict[str, Any]
    headers: dict[str, str]
    arrived_s: float
    peer: object
    written_s: list[float] = field(default_factory=list)


class MockServer:
    """Serves completions and chats, the list of ``models`` (or a status in its place) and, where there is a text for
    them, ``/metrics``, while its ``with`` block lasts; with a ``key`` only to those who send it.

    The first event leaves ``ttft_s`` after the request arrived and the others ``itl_s`` apart; each carries
    ``tokens_per_event`` tokens and ``text``. ``behaviour`` may be a function of the request's number. No answer begins
    before ``hold_until`` requests have arrived, so that a client that waits for answers never ends. What ``refuses``
    says of a body is answered with
    ``refusal_status``. ``counts`` makes the prompt tokens of ``usage`` from those sent;
    ``opening`` are the first bytes of every stream.
    """

    def __init__(
        self,
        behaviour: Behaviour | Callable[[int], Behaviour] = Behaviour.OK,
        *,
        ttft_s: float = 0.0,
        itl_s: float = 0.0,
        tokens_per_event: int = 1,
        text: str = "x",
        hold_until: int = 0,
        models: tuple[str, ...] | int = ("tiny",),
        metrics: Callable[[], str] | None = None,
        refuses: Callable[[dict[str, Any]], str | None] = lambda body: None,
        counts: Callable[[int], int] = lambda asked: asked,
        opening: bytes = b"",
        refusal_status: int = 400,
        key: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.behaviour, self.ttft_s, self.itl_s = behaviour, ttft_s, itl_s
        self.tokens_per_event, self.text, self.hold_until = tokens_per_event, text, hold_until
        self.models, self.metrics, self.key, self.tls = models, metrics, key, tls
        self.refuses, self.refusal_status, self.counts, self.opening = refuses, refusal_status, counts, opening
        self.served: list[Served] = []
        self.url = ""
        self._loop = asyncio.new_event_loop()
        self._stop, self._enough = asyncio.Event(), asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> MockServer:
        self._thread.start()
        assert self._ready.wait(20)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)

    def _serve(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._main())

    async def _main(self) -> None:
        app = web.Application(client_max_size=1 << 26)
        app.router.add_post("/v1/completions", self._complete)
        app.router.add_post("/v1/chat/completions", self._complete)
        app.router.add_get("/v1/models", self._list_models)
        app.router.add_get("/metrics", self._expose)
        runner = web.AppRunner(app, shutdown_timeout=0.05, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=self.tls)
        await site.start()
        self.url = f"http{'s' if self.tls else ''}://127.0.0.1:{runner.addresses[0][1]}"
        self._ready.set()
        await self._stop.wait()
        await runner.cleanup()

    async def _list_models(self, request: web.Request) -> web.StreamResponse:
        if self._refuses(request):
            return web.json_response({"error": {"message": "who are you"}}, status=401)
        if isinstance(self.models, int):
            return web.Response(status=self.models)
        return web.json_response({"object": "list", "data": [{"id": name, "object": "model"} for name in self.models]})

    async def _expose(self, request: web.Request) -> web.StreamResponse:
        return web.Response(status=404) if self.metrics is None else web.Response(text=self.metrics())

    def _refuses(self, request: web.Request) -> bool:
        return self.key is not None and request.headers.get("Authorization") != f"Bearer {self.key}"

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        arrived_s = time.perf_counter()
        if self._refuses(request):
            return web.json_response({"error": {"message": "who are you"}}, status=401)
        served = Served(await request.json(), dict(request.headers), arrived_s, _peer(request))
        if (refusal := self.refuses(served.body)) is not None:
            return web.json_response({"error": {"message": refusal}}, status=self.refusal_status)
        number = len(self.served)
        self.served.append(served)
        if len(self.served) >= self.hold_until:
            self._enough.set()
        await self._enough.wait()
        kind = self.behaviour if isinstance(self.behaviour, Behaviour) else self.behaviour(number)
        match kind:
            case Behaviour.HTTP_429 | Behaviour.HTTP_500:
                return web.json_response({"error": {"message": "busy"}}, status=int(kind.value[-3:]))
            case Behaviour.WRONG_MODEL:
                message = {"message": "The model `m` does not exist.", "type": "NotFoundError", "code": 404}
                return web.json_response({"error": message}, status=404)
            case Behaviour.EMPTY:
                return web.Response(content_type="text/event-stream")
            case Behaviour.CLOSED:
                assert request.transport is not None
                request.transport.close()
            case Behaviour.REDIRECT:
                return web.Response(status=307, headers={"Location": "/v1/completions"})
            case Behaviour.NOT_A_STREAM:
                return web.json_response({"choices": [{"text": "x"}], "usage": {"completion_tokens": 4}})
            case Behaviour.SLOW_HEADERS:
                await asyncio.sleep(FOREVER_S)
            case Behaviour.NOT_HTTP:
                assert request.transport is not None
                request.transport.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
                await asyncio.sleep(0.05)
                request.transport.close()
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        await self._stream(request, response, served, kind)
        return response

    async def _stream(
        self, request: web.Request, response: web.StreamResponse, served: Served, kind: Behaviour
    ) -> None:
        asked = served.body.get("max_tokens") or served.body["max_completion_tokens"]
        odd = {Behaviour.ZERO_TOKENS: 0, Behaviour.SHORT: asked - 1, Behaviour.OVERLONG: asked + 1}
        tokens = {**odd, Behaviour.ENDLESS: 1 << 30}.get(kind, asked)
        events = -(-tokens // self.tokens_per_event)
        await response.write(self.opening)
        if "messages" in served.body:  # as OpenAI does: who speaks, before anything is said
            await response.write(_event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}))
        due_s = served.arrived_s + self.ttft_s
        for number in range(events):
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
            served.written_s.append(time.perf_counter())
            said = {"delta": {"content": self.text}} if "messages" in served.body else {"text": self.text}
            await response.write(_event({"choices": [{"index": 0, **said}], "usage": None}))
            due_s = served.written_s[-1] + self.itl_s
            if number == 1 and await self._misbehave(request, response, served, kind):
                return
        if kind is not Behaviour.NO_USAGE:
            count: object = "many" if kind is Behaviour.BAD_USAGE else tokens
            if "messages" in served.body:
                await response.write(_event({"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}))
            usage = {"prompt_tokens": self.counts(_prompt_tokens(served.body)), "completion_tokens": count}
            await response.write(_event({"choices": [], "usage": usage}))
        await response.write(b"data: [DONE]\n\n")

    async def _misbehave(
        self, request: web.Request, response: web.StreamResponse, served: Served, kind: Behaviour
    ) -> bool:
        """Break the stream after its second event; True when it ends here."""
        match kind:
            case Behaviour.STALL:
                await asyncio.sleep(FOREVER_S)
            case Behaviour.RESET:
                assert request.transport is not None
                request.transport.abort()
            case Behaviour.NOT_JSON:
                await response.write(b"data: {'choices': oops}\n\n")
            case Behaviour.UNKNOWN_EVENT:
                await response.write(b'event: ping\ndata: {"type": "ping"}\n\n')
                return False
            case Behaviour.HUGE_EVENT:
                await response.write(b"data: " + b"x" * (1 << 22))
            case Behaviour.MUST_END if {"ignore_eos", "min_tokens"} & served.body.keys():  # as a Harmony model does
                error = "Unexpected token 200002 while expecting start token 200006"
                await response.write(_event({"error": {"message": error, "type": "BadRequestError", "code": 400}}))
                await response.write(b"data: [DONE]\n\n")
            case Behaviour.ERROR_EVENT:
                await response.write(_event({"error": {"message": "EngineDeadError", "code": 500}}))
                await response.write(b"data: [DONE]\n\n")
            case Behaviour.TRUNCATED:
                pass
            case _:
                return False
        return True


def _prompt_tokens(body: dict[str, Any]) -> int:
    """Token ids, or words, of a prompt or of a chat's messages."""
    if "messages" in body:
        return sum(len(message["content"].split()) for message in body["messages"])
    prompt = body["prompt"]
    return len(prompt.split() if isinstance(prompt, str) else prompt)


def _peer(request: web.Request) -> object:
    """The address of the client's end of the connection."""
    return None if request.transport is None else request.transport.get_extra_info("peername")


def closed_port() -> int:
    """A port of this machine on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _event(message: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(message).encode() + b"\n\n"
