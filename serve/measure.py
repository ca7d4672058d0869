"""The meter: one load step on one deployment, from the schedule to the figures."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module, util
from typing import cast

import numpy as np

from serve.loadgen import Call, Endpoint, LoadRun
from serve.sample import Sample
from tuner.arrivals import OfferedLoad, offered
from tuner.errors import BadInput, FailureReason, LaunchFailed
from tuner.request import Metric, TuneRequest
from tuner.stats import attained, lag_limit_ms, percentile, quantiles
from tuner.trial import Deployment, LoadStep, StepResult

PROGRESS_EVERY_S = 0.5
_PREFIX_SEED = 0  # the same for every step, as a shared system prompt would be
LatencySamples = Mapping[Metric, Sequence[float]]


@dataclass(frozen=True, slots=True)
class LiveFigures:
    """A load step while it runs; the medians are over the requests completed so far."""

    step: LoadStep
    elapsed_s: float
    expected: int
    sent: int
    in_flight: int
    completed: int
    failed: int
    ttft_p50_ms: float | None
    tpot_p50_ms: float | None


class HttpMeter:
    """Measures any deployment with an OpenAI-compatible completions endpoint; implements ``tuner.trial.Meter``.

    ``on_progress`` is called about twice a second; ``on_samples`` once per step with the samples of each metric in
    seconds, completed requests only. Both run in the measuring thread and should be quick. Prompts are token ids
    drawn from ``token_ids`` (first, last), which must lie in the model's vocabulary and hold no special token.
    """

    def __init__(
        self,
        on_progress: Callable[[LiveFigures], None] | None = None,
        on_samples: Callable[[LoadStep, LatencySamples], None] | None = None,
        token_ids: tuple[int, int] = (10, 1000),
    ) -> None:
        if not 0 <= token_ids[0] < token_ids[1]:
            raise BadInput("token_ids", token_ids, "two rising token ids of at least 0")
        self.on_progress, self.on_samples, self.token_ids = on_progress, on_samples, token_ids

    def measure(self, deployment: Deployment, step: LoadStep, request: TuneRequest) -> StepResult:
        """Run the step to its end; requests still in flight when the window closes are waited for and count.

        Raises LaunchFailed with the deployment's own reason when requests failed because it died, or CLIENT_ERROR
        when every request failed. Must not be called where an event loop runs; KeyboardInterrupt closes all
        connections and passes on.
        """
        load = offered(request.workload, step.rate_req_per_s, step.duration_s, step.seed)
        run = LoadRun(Endpoint(deployment.url, deployment.model_id), request.load.request_timeout_s)
        calls = prompt_calls(load, deployment.model_id, request.workload.shared_prefix_tokens, step, self.token_ids)
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            samples = runner.run(self._watched(run, calls, step, len(load)))
        _refuse_the_dead(deployment, samples)
        result = summarise(samples, step, request)
        if self.on_samples is not None:
            self.on_samples(step, latency_s(samples))
        return result

    async def _watched(self, run: LoadRun, calls: Iterator[Call], step: LoadStep, expected: int) -> list[Sample]:
        if self.on_progress is None:
            return await run.run(calls)
        ticker = asyncio.create_task(_tick(run, self.on_progress, step, expected))
        try:
            samples = await run.run(calls)
        finally:
            ticker.cancel()
        if ticker.done():
            ticker.result()  # it ends by itself only by an error of on_progress
        self.on_progress(_live(run, step, expected))
        return samples


def prompt_calls(
    load: OfferedLoad, model: str, shared_prefix_tokens: int, step: LoadStep, token_ids: tuple[int, int]
) -> Iterator[Call]:
    """The requests of a window, made one by one as they are drawn, so that long prompts need no memory.

    Prompts are token ids: their length is exact for any tokenizer. All open with the same ``shared_prefix_tokens``
    ids; what follows is random and differs between requests and steps, so that prefix caching cannot help.
    """
    low, high = token_ids
    prefix = np.random.default_rng(_PREFIX_SEED).integers(low, high, shared_prefix_tokens, endpoint=True).tolist()
    options = {"model": model, "temperature": 0, "ignore_eos": True, "stream": True}
    options["stream_options"] = {"include_usage": True}
    rows = zip(load.offset_s.tolist(), load.prompt_tokens.tolist(), load.output_tokens.tolist(), strict=True)
    for index, (offset_s, prompt_tokens, output_tokens) in enumerate(rows):
        random = np.random.default_rng([step.seed, step.index + 1, int(step.warmup), index])
        own = random.integers(low, high, prompt_tokens - shared_prefix_tokens, endpoint=True).tolist()
        body = json.dumps({**options, "prompt": prefix + own, "max_tokens": output_tokens}).encode()
        yield Call(index, offset_s, body, prompt_tokens, output_tokens)


def summarise(samples: Sequence[Sample], step: LoadStep, request: TuneRequest) -> StepResult:
    """Fold the samples of a window into its figures.

    Goodput divides by the window in which requests were offered, not by the time until the last answer: the wait for
    stragglers offers no load, and would make a rate depend on how long answers are. Output tokens per second divide
    by the time from the first send to the last answer, as tokens are made until then.
    """
    whole = [sample for sample in samples if sample.ok]
    latency_ms = {metric: np.asarray(values) * 1e3 for metric, values in latency_s(samples).items()}
    latency = {metric: found for metric, values in latency_ms.items() if (found := quantiles(values)) is not None}
    good = sum(attained(_one_ms(sample), request.slo) for sample in whole)
    wall_s = max((s.end_s for s in samples), default=0.0) - min((s.sent_s for s in samples), default=0.0)
    lag_ms = np.asarray([sample.lag_s for sample in samples]) * 1e3
    tokens = sum(sample.output_tokens or 0 for sample in whole)
    return StepResult(
        step=step,
        sent=len(samples),
        completed=len(whole),
        failed=len(samples) - len(whole),
        wall_s=wall_s,
        latency=latency,
        slo_values_ms=tuple(percentile(latency_ms.get(t.metric, ()), t.percentile) for t in request.slo),
        attainment=good / len(samples) if samples else None,
        goodput_req_per_s=good / step.duration_s if samples else None,
        output_tok_per_s=tokens / wall_s if whole and wall_s > 0 else None,
        schedule_lag_p99_ms=percentile(lag_ms, 99),
        errors=dict(Counter(sample.error for sample in samples if not sample.ok)),
        client_bound=_client_bound(samples, latency[Metric.TTFT].p50_ms if Metric.TTFT in latency else None),
    )


def latency_s(samples: Sequence[Sample]) -> dict[Metric, list[float]]:
    """Every metric's samples in seconds over the completed requests; ITL has one per gap, the others one per request.

    A metric without a sample is absent.
    """
    found: dict[Metric, list[float]] = {metric: [] for metric in Metric}
    for sample in samples:
        if sample.ok:
            for metric, values in _one_s(sample).items():
                found[metric].extend(values)
    return {metric: values for metric, values in found.items() if values}


def _one_s(sample: Sample) -> dict[Metric, list[float]]:
    single = ((Metric.TTFT, sample.ttft_s), (Metric.TPOT, sample.tpot_s), (Metric.E2E, sample.e2e_s))
    values = {metric: [value] for metric, value in single if value is not None}
    return {**values, Metric.ITL: sample.itl_s}


def _one_ms(sample: Sample) -> dict[Metric, list[float]]:
    return {metric: [value * 1e3 for value in values] for metric, values in _one_s(sample).items()}


def _client_bound(samples: Sequence[Sample], ttft_p50_ms: float | None) -> bool:
    """Did the client fail to keep its schedule: is the lag's p99 above its limit?"""
    limit_ms = lag_limit_ms(ttft_p50_ms)
    return 100 * sum(sample.lag_s * 1e3 > limit_ms for sample in samples) > len(samples)


def _refuse_the_dead(deployment: Deployment, samples: Sequence[Sample]) -> None:
    failed = [sample for sample in samples if not sample.ok]
    if not failed:
        return
    (name, count), *_ = Counter(sample.error for sample in failed).most_common(1)
    example = next(sample.detail for sample in failed if sample.error == name)
    words = f"{len(failed)} of {len(samples)} requests failed; most often ({count}): {name}"
    words += f", for example {example}" if example else ""
    if (death := deployment.failure()) is not None:
        raise LaunchFailed(death[0], f"{death[1]}; {words}", deployment.log_tail())
    if len(failed) == len(samples):
        raise LaunchFailed(FailureReason.CLIENT_ERROR, words, deployment.log_tail())


async def _tick(run: LoadRun, tell: Callable[[LiveFigures], None], step: LoadStep, expected: int) -> None:
    while True:
        await asyncio.sleep(PROGRESS_EVERY_S)
        tell(_live(run, step, expected))


def _live(run: LoadRun, step: LoadStep, expected: int) -> LiveFigures:
    whole = [sample for sample in run.samples if sample.ok]
    ttft_s = percentile([s.ttft_s for s in whole if s.ttft_s is not None], 50)
    tpot_s = percentile([s.tpot_s for s in whole if s.tpot_s is not None], 50)
    return LiveFigures(
        step=step,
        elapsed_s=run.elapsed_s,
        expected=expected,
        sent=run.sent,
        in_flight=run.in_flight,
        completed=len(whole),
        failed=len(run.samples) - len(whole),
        ttft_p50_ms=None if ttft_s is None else ttft_s * 1e3,
        tpot_p50_ms=None if tpot_s is None else tpot_s * 1e3,
    )


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where it is installed (it has no Windows wheel), else asyncio's own loop."""
    if util.find_spec("uvloop") is None:
        return None
    return cast("Callable[[], asyncio.AbstractEventLoop]", import_module("uvloop").new_event_loop)
