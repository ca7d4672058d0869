"""An engine that costs nothing, behind Ray Serve LLM's engine protocol: what is left of a request is its path.

Ray Serve LLM takes it by ``RAYLLM_VLLM_ENGINE_CLS``. As a real engine does, it works in steps: a request joins at the
next step, and each step ends with a token for every running sequence at once. Steps keep to the clock: whoever is late
to read finds several tokens in one message, as vLLM's output collector hands them over.

``tests.fit.front_control`` says how long a step lasts, and what is kept of each request.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from ray.llm._internal.serve.core.engine.protocol import LLMEngine

from tests.fit.front_control import LOG, Control

CHOICE = {"index": 0, "logprobs": None, "finish_reason": None, "stop_reason": None, "token_ids": None}


class Sequence:
    """One running request: tokens that were made and not yet read."""

    def __init__(self) -> None:
        self.ready = 0
        self.first_s: float | None = None
        self.changed = asyncio.Event()

    async def take(self) -> int:
        """All tokens that are there, at least one."""
        await self.changed.wait()
        self.changed.clear()
        taken, self.ready = self.ready, 0
        return taken


class Steps:
    """Steps of one length, one after the other while there is a sequence."""

    def __init__(self, step_s: float) -> None:
        self.step_s = step_s
        self.running: list[Sequence] = []
        self._task: asyncio.Task[None] | None = None

    def join(self) -> Sequence:
        """A new sequence, in the next step that begins."""
        sequence = Sequence()
        self.running.append(sequence)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())
        return sequence

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        end_s = loop.time()
        while self.running:
            batch = list(self.running)
            end_s += self.step_s
            await asyncio.sleep(end_s - loop.time())
            for sequence in batch:
                sequence.first_s = sequence.first_s or end_s
                sequence.ready += 1
                sequence.changed.set()
            await asyncio.sleep(0)


class FreeEngine(LLMEngine):  # type: ignore[misc]
    """Implements what the ingress and the server of Ray Serve LLM ask of an engine."""

    def __init__(self, llm_config: Any) -> None:
        self._config, self._control = llm_config, Control()
        self._steps = Steps(0.02)
        self._log = Path(os.environ[LOG])

    async def start(self) -> None:
        """Nothing to load."""
        self._obey()

    def _obey(self) -> None:
        values = self._control.read()
        self._steps.step_s = values["step_ms"] / 1e3
        self._config.experimental_configs["stream_batching_interval_ms"] = values["interval_ms"]

    async def _stream(self, model: str, tokens: int) -> AsyncIterator[str]:
        loop = asyncio.get_running_loop()
        came_s, left, sequence = loop.time(), tokens, self._steps.join()
        head = {
            "id": "cmpl-0123456789abcdef0123456789abcdef",
            "object": "text_completion",
            "created": 1,
            "model": model,
        }
        try:
            while left:
                taken = min(left, await sequence.take())
                left -= taken
                choice = CHOICE | {"text": " a" * taken}
                if not left:
                    self._steps.running.remove(sequence)
                    choice["finish_reason"] = "length"
                yield f"data: {json.dumps(head | {'choices': [choice], 'usage': None})}\n\n"
        finally:
            if sequence in self._steps.running:
                self._steps.running.remove(sequence)
        first_s = sequence.first_s or came_s
        with self._log.open("a", encoding="utf-8") as log:
            log.write(f"{time.time() + first_s - loop.time():.4f} {1e3 * (first_s - came_s):.3f}\n")
        usage = {"prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": 1 + tokens}
        yield f"data: {json.dumps(head | {'choices': [], 'usage': usage})}\n\n"
        yield "data: [DONE]\n\n"

    async def completions(self, request: Any, raw_request_info: Any = None) -> AsyncIterator[str]:
        """A stream of events, a token each where the reader keeps up."""
        self._obey()
        async for event in self._stream(request.model, request.max_tokens or 16):
            yield event

    async def chat(self, request: Any, raw_request_info: Any = None) -> AsyncIterator[str]:
        """As ``completions``."""
        async for event in self.completions(request, raw_request_info):
            yield event

    async def build_asgi_app(self) -> FastAPI:
        """The same events without an ingress, for direct streaming."""
        app = FastAPI()

        @app.post("/v1/completions")
        async def completions(request: Request) -> StreamingResponse:
            body = await request.json()
            self._obey()
            return StreamingResponse(self._stream(body["model"], body["max_tokens"]), media_type="text/event-stream")

        return app

    async def check_health(self) -> None:
        """Always well."""

    async def reset_prefix_cache(self) -> None:
        """It has none."""

    async def resolve_lora(self, lora_model: Any) -> None:
        """It has none."""

    def routing_stats(self) -> dict[str, Any]:
        """None."""
        return {}

    async def embeddings(self, request: Any, raw_request_info: Any = None) -> AsyncIterator[Any]:
        """Nothing is embedded."""
        yield None

    async def transcriptions(self, request: Any, raw_request_info: Any = None) -> AsyncIterator[Any]:
        """Nothing is transcribed."""
        yield None
