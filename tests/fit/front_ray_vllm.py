"""Ray Serve LLM's own vLLM engine over steps that cost nothing: what vLLM itself adds to the replica's event loop.

The core runs ``FreeWorker`` in its own process, and the streaming interval is the control file's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from ray.llm._internal.serve.engines.vllm.vllm_engine import VLLMEngine
from ray.llm._internal.serve.engines.vllm.vllm_models import VLLMEngineConfig

from tests.fit.front_control import Control

_arguments = VLLMEngineConfig.get_initialization_kwargs


def _in_process(self: VLLMEngineConfig) -> dict[str, Any]:
    """Serve LLM asks for a process per worker on CPUs; a worker that does nothing needs none."""
    return dict(_arguments(self)) | {"distributed_executor_backend": "uni"}


VLLMEngineConfig.get_initialization_kwargs = _in_process


class FreeVllm(VLLMEngine):  # type: ignore[misc]
    """The engine, with an interval that changes between requests."""

    def __init__(self, llm_config: Any) -> None:
        super().__init__(llm_config)
        self._config, self._control = llm_config, Control()

    async def completions(self, request: Any, raw_request_info: Any = None) -> AsyncIterator[Any]:
        """As vLLM's."""
        self._config.experimental_configs["stream_batching_interval_ms"] = self._control.read()["interval_ms"]
        async for event in super().completions(request, raw_request_info):
            yield event
