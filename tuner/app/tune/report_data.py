"""From a study's record to the page: fills ``deploy.report.study_data`` with what the store knows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from deploy.report.study_data import Fate, ReportData, ShownFile, ShownLayout, ShownMetric, ShownStep, ShownTrial, Stage
from tuner.app.answers.beliefs import BeliefsAnswer
from tuner.app.cli.tables import outcome, short_names
from tuner.app.tune.report_beliefs import beliefs_shown
from tuner.app.tune.report_layouts import axis_titles, budgets_shown, summaries_shown
from tuner.app.tune.report_ranks import ranks_shown
from tuner.ask.deployment import Deployment
from tuner.ask.recorded import notes
from tuner.ask.request import TuneRequest
from tuner.cost.stands_on import measured_of_all
from tuner.decide.decision import Decision
from tuner.plan.prune import Candidate, DroppedGroup
from tuner.rehearse.conditions import simulated_seed
from tuner.study.records import StudyRecord
from tuner.study.resuming import LAUNCHER_FACT, MODEL_FACT
from tuner.trial.results import StepResult, TrialResult, TrialState

_FATES = {
    TrialState.RUNNING: Fate.RUNNING, TrialState.FAILED: Fate.FAILED, TrialState.STOPPED: Fate.STOPPED,
    TrialState.MEASURED: Fate.MEASURED,
}  # fmt: skip
USES = {
    "ray-serve": ("Ray Serve config", "serve run {}"),
    "rayservice": ("KubeRay RayService", "kubectl apply -f {}"),
    "kustomize": ("Kustomization", "kubectl apply -k $(dirname {})"),
    "helm-values": ("Helm values", "helm upgrade --install parlay helm/parlay --reuse-values --values {}"),
    "vllm": ("vLLM command line", "sh {}"),
}


def report_data(
    record: StudyRecord,
    decision: Decision,
    starts_s: Mapping[int, float],
    files: Mapping[str, str],
    *,
    ended: bool = True,
    believed: BeliefsAnswer | None = None,
) -> ReportData:
    """Everything on the page. ``starts_s`` has the start of each trial, counted from the start of the study; ``ended``
    is False where the decision only says how the study stands; ``believed`` is what the search told last."""
    request = record.request
    metrics = _metrics(request)
    candidates = [c.deployment for c in record.ranked or ()]
    names, common = short_names(
        [*candidates, *(g.example for g in decision.dropped), *(t.deployment for t in decision.trials)]
    )
    return ReportData(
        study=record.name,
        model=request.model,
        headline=_headline(decision, names, ended),
        ranks=ranks_shown(request, decision.winner.deployment) if decision.winner else None,
        why=tuple(text for text in (decision.why, decision.remedy, decision.stopped_in_words) if text),
        metrics=metrics,
        request=(*_request_facts(request), *((("in every layout", common),) if common else ())),
        funnel=_funnel(record, decision, ended),
        layouts=_layouts(record, decision, metrics, starts_s, names, ended),
        files=tuple(ShownFile(name, USES[kind][0], USES[kind][1].format(name)) for kind, name in files.items()),
        facts=tuple((record.facts | _launch_facts(decision.winner)).items()),
        simulated=simulated_seed(record.facts) is not None,
        cautions=measured_of_all(request).notes,
        standings=summaries_shown(decision, request, names),
        axes=axis_titles(decision, request),
        budget=budgets_shown(decision, request),
        beliefs=beliefs_shown(believed, request, names),
        ended=ended,
    )


def _launch_facts(winner: TrialResult | None) -> dict[str, str]:
    """What the winner was measured on, by its own record."""
    if winner is None or winner.launched is None:
        return {}
    launched = winner.launched
    return launched.versions | {LAUNCHER_FACT: launched.launcher, MODEL_FACT: launched.model_source}


def _headline(decision: Decision, names: Mapping[Deployment, str], ended: bool) -> str:
    if decision.winner is None:
        return f"No measured layout meets the SLO{'' if ended else ' yet'}"
    layout = decision.winner.deployment
    how = "wins" if ended else "is the best so far"
    return f"{names[layout]} {how}, on {layout.devices} device{'s' if layout.devices > 1 else ''}"


def _metrics(request: TuneRequest) -> tuple[ShownMetric, ...]:
    targets = {target.key: target.ms for target in request.slo}
    return tuple(ShownMetric(m.value, p, targets.get((m, p))) for m, p in request.shown_metrics)


def _request_facts(request: TuneRequest) -> tuple[tuple[str, str], ...]:
    work = request.workload
    devices = ", ".join(f"{group.nodes} × {group.gpus_per_node} {group.gpu}" for group in request.groups)
    return (
        ("cluster", devices or "discovered from Ray"),
        ("prompt tokens", f"{round(work.prompt_tokens.mean, 1)} (mean)"),
        ("output tokens", f"{round(work.output_tokens.mean, 1)} (mean)"),
        ("arrivals", f"{work.arrival.process}, {work.arrival.requests_per_s:g} requests/s"),
        *(("trace", note) for note in (*([work.arrival.trace] if work.arrival.trace else []), *notes(work))),
        ("load steps", ", ".join(f"{rate:g}" for rate in request.rates_req_per_s) + " requests/s"),
        ("SLO", "; ".join(str(target) for target in request.slo)),
        ("objective", " and ".join(request.objectives)),
    )


def _funnel(record: StudyRecord, decision: Decision, ended: bool) -> tuple[Stage, ...]:
    """Layouts, not trials; what measurements made needless was not dropped by the model."""
    planned, total = record.dropped or (), record.candidates_total or 0
    left = total - sum(group.count for group in planned)
    launched = {trial.deployment for trial in decision.trials}
    needless = [group for group in decision.dropped if group not in planned]
    beside = left - len(launched) - sum(group.count for group in needless)
    failures = Counter(t.failure.value for t in decision.trials if t.failure is not None)
    meeting = sum(summary.meets for summary in decision.standings)
    missing = len(decision.standings) - meeting
    rest = "left when the search ended" if ended else "not launched yet"
    skipped = (
        ("could not win by then", sum(g.count for g in needless)),
        (rest, beside),
    )
    return (
        Stage("candidates", total),
        Stage("left by the model", left, tuple(_by_reason(planned).items())),
        Stage("launched", len(launched), tuple((reason, count) for reason, count in skipped if count > 0)),
        Stage("measured", len(decision.standings), tuple(failures.items())),
        Stage("meet the SLO", meeting, (("misses the SLO", missing),) if missing else ()),
        Stage("winner", 1 if decision.winner else 0),
    )


def _by_reason(groups: Sequence[DroppedGroup]) -> Counter[str]:
    found = Counter[str]()
    for group in groups:
        found[group.reason.value] += group.count
    return found


def _layouts(
    record: StudyRecord,
    decision: Decision,
    metrics: Sequence[ShownMetric],
    starts_s: Mapping[int, float],
    names: Mapping[Deployment, str],
    ended: bool,
) -> tuple[ShownLayout, ...]:
    launched = [
        replace(
            _launched(t, record.request, decision, metrics, starts_s), layout=names[t.deployment] + _run(t, decision)
        )
        for t in decision.trials
    ]
    tried = {trial.deployment for trial in decision.trials}
    outranked = {group.example for group in decision.dropped}
    waiting = [c for c in record.ranked or () if c.deployment not in tried and c.deployment not in outranked]
    rows = [replace(_not_launched(c, record.request, metrics, ended), layout=names[c.deployment]) for c in waiting]
    dropped = [
        ShownLayout(
            names[group.example], group.example.devices, Fate.DROPPED,
            f"{group.reason.value}: {group.figure}" + (f" ({group.count:,} alike)" if group.count > 1 else ""),
        )
        for group in decision.dropped
    ]  # fmt: skip
    return (*launched, *rows, *dropped)


def _run(trial: TrialResult, decision: Decision) -> str:
    """Which run of its layout a trial was, where that has several; the winner's name stays plain."""
    won = decision.winner is not None and trial.number == decision.winner.number
    alone = sum(other.deployment == trial.deployment for other in decision.trials) == 1
    return "" if won or alone else f" (run {trial.repeat + 1})"


def _launched(
    trial: TrialResult,
    request: TuneRequest,
    decision: Decision,
    metrics: Sequence[ShownMetric],
    starts_s: Mapping[int, float],
) -> ShownLayout:
    fate = _FATES[trial.state]
    if decision.winner is not None and trial.number == decision.winner.number:
        fate = Fate.WINNER
    best = trial.best_step(request)
    step = trial.shown_step(request)
    predicted = decision.predictions.get(str(trial.deployment))
    engine = () if trial.engine_of is None else (f"on the engine of trial {trial.engine_of + 1}",)
    reason = "; ".join((trial.detail or outcome(trial, request), *engine, *(step.cautions if step else ())))
    phases = tuple((phase.words, s) for phase, s in trial.start_up.in_order()) if trial.start_up else ()
    began_s = starts_s.get(trial.number, 0.0)
    timing = ShownTrial(trial.number + 1, began_s, trial.ready_after_s, trial.seconds, phases)
    return ShownLayout(
        layout=str(trial.deployment),
        devices=trial.deployment.devices,
        fate=fate,
        reason=reason,
        rate_req_per_s=step.step.rate_req_per_s if step else None,
        predicted_ms=_named(metrics, decision.predicted_ms(request, trial)),
        measured_ms=_named(metrics, step.shown_ms(request)) if step else {},
        predicted_goodput_req_per_s=predicted.goodput_req_per_s if predicted else None,
        measured_goodput_req_per_s=best.goodput_req_per_s if best else None,
        attainment=step.attainment if step else None,
        meets_slo=trial.verdict(request).holds,
        steps=tuple(_step(s, request, metrics) for s in trial.steps),
        trial=timing,
    )


def _not_launched(
    candidate: Candidate, request: TuneRequest, metrics: Sequence[ShownMetric], ended: bool
) -> ShownLayout:
    asked = min(
        range(len(request.rates_req_per_s)),
        key=lambda i: abs(request.rates_req_per_s[i] - request.workload.arrival.requests_per_s),
    )
    return ShownLayout(
        layout=str(candidate.deployment),
        devices=candidate.deployment.devices,
        fate=Fate.NOT_LAUNCHED,
        reason="the budget went to candidates that come before it" if ended else None,
        rate_req_per_s=request.rates_req_per_s[asked],
        predicted_ms=_named(metrics, candidate.prediction.steps[asked]),
        predicted_goodput_req_per_s=candidate.prediction.goodput_req_per_s,
    )


def _named(metrics: Sequence[ShownMetric], values: Sequence[float | None]) -> dict[str, float | None]:
    return {metric.key: value for metric, value in zip(metrics, values, strict=True)}


def _step(step: StepResult, request: TuneRequest, metrics: Sequence[ShownMetric]) -> ShownStep:
    return ShownStep(
        step.step.rate_req_per_s, _named(metrics, step.shown_ms(request)), step.goodput_req_per_s, step.attainment,
        step.sent, step.failed, step.verdict(request).holds,
    )  # fmt: skip
