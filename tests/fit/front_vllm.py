"""vLLM whose model costs nothing: its own API server, output processor, core and scheduler, and a step that sleeps.

``FreeWorker`` is a worker class (``--worker-cls tests.fit.front_vllm.FreeWorker``): it loads the tiny model, and in
place of running it waits until the step's time is over and names a token for every sequence whose prompt is through.
"""

from __future__ import annotations

import time
from typing import Any

from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.worker.cpu_worker import CPUWorker

from tests.fit.front_control import Control

TOKEN = 300


class FreeWorker(CPUWorker):  # type: ignore[misc]
    """A worker whose steps take the time that the control file says, and no processor time."""

    def execute_model(self, scheduler_output: Any) -> ModelRunnerOutput:
        """A token for each sequence whose prompt ends in this step or before it."""
        begun_s = time.perf_counter()
        prompts = self.__dict__.setdefault("prompts", {})
        for request_id in scheduler_output.finished_req_ids:
            prompts.pop(request_id, None)
        done = {}
        for new in scheduler_output.scheduled_new_reqs:
            prompts[new.req_id] = len(new.prompt_token_ids)
            done[new.req_id] = new.num_computed_tokens
        cached = scheduler_output.scheduled_cached_reqs
        done.update(zip(cached.req_ids, cached.num_computed_tokens, strict=True))
        scheduled = scheduler_output.num_scheduled_tokens
        tokens = [[TOKEN] if done[name] + count >= prompts[name] else [] for name, count in scheduled.items()]
        if scheduled:
            time.sleep(max(0.0, self._step_s() - (time.perf_counter() - begun_s)))
        return ModelRunnerOutput(list(scheduled), {name: i for i, name in enumerate(scheduled)}, tokens)

    def _step_s(self) -> float:
        if "control" not in self.__dict__:
            self.control = Control()
        return self.control.read()["step_ms"] / 1e3
