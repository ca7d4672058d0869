"""The meter of a study's trials: a step of load is a window on the deployment's endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from serve.load.endpoint import Endpoint
from serve.load.request_fields import RequestFields
from serve.load.request_sample import Outcome, Sample
from serve.measure.summary import latency_s
from serve.measure.window import Window, failures
from serve.measure.window_requests import order_of
from serve.measure.window_runner import WindowRunner
from tuner.ask.request import Objective, TuneRequest
from tuner.errors import BadInput, FailureReason, LaunchFailed
from tuner.stats.intervals import Quantiles
from tuner.trial.results import LoadStep, StepResult
from tuner.trial.seams import RunningDeployment, Watch


@runtime_checkable
class ServesMetrics(Protocol):
    """A deployment that knows where its engines' own metrics are read."""

    @property
    def metrics_urls(self) -> tuple[str, ...]:
        """Addresses of Prometheus texts, each of other engines."""


class HttpMeter:
    """Measures any deployment with an OpenAI-compatible completions endpoint; implements ``tuner.trial.seams.Meter``.

    It keeps nothing of what it measures: several threads may use one. A step's watch is told of it about twice a
    second, and at its end the samples of each metric in seconds, completed requests only; both in the measuring thread.
    Prompts are token ids drawn from ``token_ids`` (first, last), which must lie in the model's vocabulary and hold no
    special token; behind a router that deals requests by the text of their prompts they are words, one for each token.
    """

    def __init__(self, token_ids: tuple[int, int] = (10, 1000)) -> None:
        if not 0 <= token_ids[0] < token_ids[1]:
            raise BadInput("token_ids", token_ids, "two rising token ids of at least 0")
        self.token_ids = token_ids

    def measure(self, deployment: RunningDeployment, step: LoadStep, request: TuneRequest, watch: Watch) -> StepResult:
        """Run the step to its end; requests still in flight when the window closes are waited for and count.

        Raises LaunchFailed with the deployment's own reason when requests failed because it died, or CLIENT_ERROR
        when every request failed. Must not be called where an event loop runs. Raises Cancelled soon after the watch's
        handle was; that and KeyboardInterrupt close all connections.
        """
        urls = deployment.metrics_urls if isinstance(deployment, ServesMetrics) else ()
        fields = RequestFields(token_ids=not deployment.launched.reads_prompts)
        endpoint = Endpoint(deployment.url, deployment.model_id, fields=fields)
        compared = Objective.MIN_LATENCY in request.objectives
        runner = WindowRunner(endpoint, urls, lambda seen: watch.progress(seen.words), met_is_enough=not compared)
        window = runner.run(order_of(step, request, self.token_ids), watch.cancel)
        _refuse_the_dead(deployment, window.samples)
        watch.samples(latency_s([sample for sample in window.samples if sample.ok]))
        return step_result(window, step)


def step_result(window: Window, step: LoadStep) -> StepResult:
    """The figures of a window as a study keeps them."""
    found = window.figures
    return StepResult(
        step=step,
        sent=found.sent,
        completed=found.completed,
        failed=found.failed,
        wall_s=found.wall_s,
        latency={
            metric: Quantiles(one.count, one.mean_ms, *(one.at_ms[level] for level in (50, 90, 95, 99)))
            for metric, one in found.latency.items()
        },
        slo_values_ms=found.seen.values_ms,
        attainment=found.attainment,
        goodput_req_per_s=found.goodput_req_per_s,
        output_tok_per_s=found.output_tok_per_s,
        schedule_lag_p99_ms=found.schedule_lag_p99_ms,
        errors=dict(found.errors),
        client_bound=window.client_bound is not None,
        slo_intervals_ms={one.target.key: one.interval_ms for one in found.targets},
        attainment_interval=found.attainment_interval,
        offered_s=found.offered_s,
        ended_early=window.ended_early,
        invalid=window.invalid,
        engine=window.engine.figures,
        cautions=window.cautions,
    )


def _refuse_the_dead(deployment: RunningDeployment, samples: Sequence[Sample]) -> None:
    failed = [sample for sample in samples if not sample.ok and sample.outcome is not Outcome.CUT_OFF]
    if not failed:
        return
    words = failures(samples)
    if (death := deployment.failure()) is not None:
        raise LaunchFailed(death[0], f"{death[1]}; {words}", deployment.log_tail())
    if len(failed) == len(samples):
        raise LaunchFailed(FailureReason.CLIENT_ERROR, words, deployment.log_tail())
