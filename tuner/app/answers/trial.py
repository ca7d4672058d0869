"""One real launch and its measurement: part of the answers of ``tune`` and ``show``."""

from __future__ import annotations

from pydantic import Field

from tuner.app.answers.base import Answer, Interval, where_it_applies
from tuner.app.answers.plan import PredictionAnswer, prediction_answer
from tuner.ask.request import Metric, TuneRequest
from tuner.plan.prune import Prediction
from tuner.stats.intervals import Quantiles
from tuner.trial.launched import Launched
from tuner.trial.results import StepResult, TrialResult
from tuner.trial.start_up import StartUp


class QuantilesAnswer(Answer):
    """One latency over the completed requests of a step, ms."""

    mean: float = Field(description="Mean, ms.")
    p50: float = Field(description="Median, ms.")
    p90: float = Field(description="90th percentile, ms.")
    p95: float = Field(description="95th percentile, ms.")
    p99: float = Field(description="99th percentile, ms.")
    count: int = Field(description="Values.")


class StepTargetAnswer(Answer):
    """One target of the SLO in a step."""

    target: str = Field(description="The target in words.")
    ms: float | None = Field(description="The value at its percentile, ms; null where nothing completed.")
    interval_ms: Interval | None = Field(description="Its 95 % interval, ms; null where none could be given.")


class StepAnswer(Answer):
    """One measured load step. A latency that no request had has no key."""

    rate_req_per_s: float = Field(description="Rate offered, requests/s.")
    sent: int = Field(description="Requests sent.")
    completed: int = Field(description="Requests answered whole.")
    failed: int = Field(description="Requests that failed.")
    attainment: float | None = Field(description="Share of the sent requests that met every target, 0 to 1.")
    goodput_req_per_s: float | None = Field(description="Requests/s that met every target.")
    output_tok_per_s: float | None = Field(description="Output tokens/s.")
    schedule_lag_p99_ms: float | None = Field(description="How late requests were sent, 99th percentile, ms.")
    meets_slo: bool | None = Field(description="Whether the step met the SLO; null where it shows nothing of it.")
    slo: list[StepTargetAnswer] = Field(description="Target by target.")
    attainment_interval: Interval | None = Field(description="95 % interval of the attainment.")
    invalid_reason: str | None = Field(description="Why the window shows nothing; null where it does.")
    ended_early: str | None = Field(description="met or missed, where that was certain before the end; else null.")
    offered_s: float | None = Field(description="Time in which requests were offered, s; null: all of the step's.")
    engine: dict[str, float] = Field(description="The engine's own figures, those that it exposes, by name.")
    errors: dict[str, int] = Field(description="Failures by kind.")
    cautions: list[str] | None = where_it_applies(
        "Where the server counts tokens, or answers, otherwise than asked, or was not warm yet."
    )
    warm_up_s: float | None = where_it_applies("Seconds of load before it that did not count, to warm the engine up.")
    ttft_ms: QuantilesAnswer | None = where_it_applies("Time to first token, ms.")
    tpot_ms: QuantilesAnswer | None = where_it_applies("Time per output token after the first, ms.")
    itl_ms: QuantilesAnswer | None = where_it_applies("Time between two tokens, ms.")
    e2e_ms: QuantilesAnswer | None = where_it_applies("Time to the last token, ms.")


class LaunchedAnswer(Answer):
    """What was launched; the application itself is what ``parlay emit`` writes."""

    launcher: str = Field(description="The launcher that brought it up.")
    versions: dict[str, str] = Field(description="Versions of Parlay, Python, Ray and the engine, by name.")
    model_source: str = Field(description="What the engine loaded: a directory or a Hugging Face id.")


class StartUpAnswer(Answer):
    """A start by phase."""

    seconds: float = Field(description="From the order to the first answers, s.")
    phases_s: dict[str, float] = Field(
        description="Seconds by phase, in order: session (Ray starts, before the first trial), scheduling (to a "
        "process), imports, download, weights, compile, profile (of its memory), capture (of graphs), warm_up, front "
        "(what stands before the engine), first_answer, other; a phase that took no time has no key."
    )
    compiled_anew: bool | None = Field(
        description="Whether anything had to be compiled (false: all came from a cache); null where nothing tells."
    )


class TrialAnswer(Answer):
    """One trial."""

    number: int = Field(description="Its number in the study, from 0.")
    purpose: str = Field(description="explore, or confirm: a layout measured again under other arrivals.")
    repeat: int = Field(description="Earlier trials of the same layout.")
    device_s: float | None = Field(description="Seconds summed over its devices; null while it runs.")
    layout: str = Field(description="The layout.")
    gpus: int = Field(description="Its devices.")
    state: str = Field(description="running, measured, stopped (it had already lost) or failed.")
    failure: str | None = Field(description="Why it failed; null where it did not.")
    detail: str | None = Field(description="The same, or why it was stopped, in words.")
    log_tail: list[str] = Field(description="Last lines of the engine's log, of a failed trial.")
    launched: LaunchedAnswer | None = Field(description="What was launched; null where nothing is recorded of it.")
    ready_after_s: float | None = Field(description="From the order to the first answer, s; null: never ready.")
    engine_of: int | None = where_it_applies("The trial on whose engine it was measured, behind another path or again.")
    start_up: StartUpAnswer | None = Field(description="The same by phase; null where nobody took the time.")
    seconds: float | None = Field(description="From the order to the end of the teardown, s; null while it runs.")
    measured: StepAnswer | None = Field(
        description="The step at the highest rate that met the SLO, else the first; null of none."
    )
    predicted: PredictionAnswer | None = Field(description="What the model said; null where it said nothing.")
    steps: list[StepAnswer] = Field(description="Every step, in order.")


def step_answer(step: StepResult, request: TuneRequest) -> StepAnswer:
    """One measured load step."""
    latency = {metric: _quantiles(found) for metric, found in step.latency.items()}
    return StepAnswer(
        rate_req_per_s=step.step.rate_req_per_s,
        sent=step.sent,
        completed=step.completed,
        failed=step.failed,
        attainment=step.attainment,
        goodput_req_per_s=step.goodput_req_per_s,
        output_tok_per_s=step.output_tok_per_s,
        schedule_lag_p99_ms=step.schedule_lag_p99_ms,
        meets_slo=step.verdict(request).holds,
        slo=[
            StepTargetAnswer(
                target=str(target),
                ms=step.slo_values_ms.get(target.key),
                interval_ms=step.slo_intervals_ms.get(target.key),
            )
            for target in request.slo
        ],
        attainment_interval=step.attainment_interval,
        invalid_reason=step.invalid,
        ended_early=step.ended_early.value if step.ended_early else None,
        offered_s=step.offered_s,
        engine=step.engine,
        errors=step.errors,
        cautions=list(step.cautions) or None,
        warm_up_s=step.warm_up_s,
        ttft_ms=latency.get(Metric.TTFT),
        tpot_ms=latency.get(Metric.TPOT),
        itl_ms=latency.get(Metric.ITL),
        e2e_ms=latency.get(Metric.E2E),
    )


def _quantiles(found: Quantiles) -> QuantilesAnswer:
    return QuantilesAnswer(
        mean=found.mean_ms, p50=found.p50_ms, p90=found.p90_ms, p95=found.p95_ms, p99=found.p99_ms, count=found.count
    )  # fmt: skip


def _launched(launched: Launched) -> LaunchedAnswer:
    return LaunchedAnswer(
        launcher=launched.launcher, versions=dict(launched.versions), model_source=launched.model_source
    )


def _start_up(up: StartUp) -> StartUpAnswer:
    phases_s = {phase.value: seconds for phase, seconds in up.in_order()}
    return StartUpAnswer(seconds=up.seconds, phases_s=phases_s, compiled_anew=up.compiled_anew)


def trial_answer(trial: TrialResult, request: TuneRequest, predicted: Prediction | None) -> TrialAnswer:
    """One trial: ``measured`` at the highest rate that met the SLO (the first step where none did)."""
    shown = trial.shown_step(request)
    return TrialAnswer(
        number=trial.number,
        purpose=trial.purpose.value,
        repeat=trial.repeat,
        device_s=trial.device_s,
        layout=str(trial.deployment),
        gpus=trial.deployment.devices,
        state=trial.state.value,
        failure=trial.failure.value if trial.failure else None,
        detail=trial.detail,
        log_tail=list(trial.log_tail),
        launched=_launched(trial.launched) if trial.launched else None,
        ready_after_s=trial.ready_after_s,
        engine_of=trial.engine_of,
        start_up=_start_up(trial.start_up) if trial.start_up else None,
        seconds=trial.seconds,
        measured=step_answer(shown, request) if shown else None,
        predicted=prediction_answer(predicted) if predicted else None,
        steps=[step_answer(step, request) for step in trial.steps],
    )
