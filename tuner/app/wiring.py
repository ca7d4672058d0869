"""Puts tuner, serve and deploy together: from a request to its plan, and from a study to its files."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tuner.ask.cluster import Cluster, Fleet, requested_cluster, usd_per_gpu_hour
from tuner.ask.layout import AXES, ParallelLayout
from tuner.ask.model import ModelShape
from tuner.ask.request import TuneRequest
from tuner.ask.requested_model import requested_model
from tuner.ask.space import load_space
from tuner.cost.breakdown import Breakdown, RequestSteps, breakdown
from tuner.cost.latency import StepCosts
from tuner.cost.memory import MemoryEstimate, estimate_memory
from tuner.cost.switches import EngineSwitches
from tuner.decide.decision import Decision, decide
from tuner.errors import BadInput, NoFeasibleLayout
from tuner.plan.prune import Plan, plan
from tuner.rehearse.conditions import simulated_seed
from tuner.trial.launched import ENGINES, Launched, RayApplication, VllmServer, installed, model_source
from tuner.trial.ledger import spent

if TYPE_CHECKING:
    from deploy.report.study_data import ReportData
    from deploy.specs.rayservice import Platform
    from deploy.specs.shipment import Shipment
    from tuner.app.answers.plan import PlanAnswer
    from tuner.plan.front_advice import FrontAdvice
    from tuner.plan.infeasible import Infeasible
    from tuner.plan.what_if import WhatIf
    from tuner.study.records import StudyRecord
    from tuner.study.store import Store
    from tuner.trial.results import TrialResult

BROKEN_DOWN = 10  # of a plan's ranking, beside the first of each shape
_LIMITS = ("max_num_batched_tokens", "max_num_seqs")
_structure = attrgetter(*(name for name in AXES if name not in _LIMITS))  # what layouts of one memory share
REPORT = "report.html"
DECISION = "decision.json"


def plan_request(request: TuneRequest, simulate: int = 0) -> tuple[Plan, dict[ParallelLayout, Breakdown]]:
    """Price a request's space without launching anything; the first layouts are broken down.

    With ``simulate`` the ranking is simulated until so many layouts have held the SLO.
    """
    model, cluster = requested_model(request), requested_cluster(request)
    found = plan(request, model, cluster, load_space(request.space))
    if simulate:
        from tuner.plan.refine import refine

        found = refine(request, model, cluster, found, simulate)
    first_of_shape = {c.layout.shape: c.layout for c in reversed(found.ranked)}.values()
    explained = dict.fromkeys([*(c.layout for c in found.ranked[:BROKEN_DOWN]), *first_of_shape])
    return found, breakdowns(request, model, cluster, list(explained))


def planned_answer(request: TuneRequest, simulate: int = 0) -> PlanAnswer:
    """The plan as an answer, with what it holds in memory, and with the reasons where no layout meets the SLO."""
    from tuner.app.answers.plan import plan_answer

    found, splits = plan_request(request, simulate)
    meeting = any(candidate.prediction.meets_slo for candidate in found.ranked)
    held = memories(request, (candidate.layout for candidate in found.ranked))
    reasons = None if meeting else why_infeasible(request)
    return plan_answer(found, request, splits, held, None, reasons, front_of(request, found))


def front_of(request: TuneRequest, found: Plan) -> FrontAdvice | None:
    """What the path does to the best layout of a plan; None where none was kept."""
    from tuner.plan.front_advice import front_advice

    if not found.ranked:
        return None
    return front_advice(request, requested_model(request), requested_cluster(request), found.ranked[0].layout)


def suppose(request: TuneRequest, techniques: Sequence[str]) -> WhatIf:
    """What the plan would be if the engine had some techniques, given as ``name`` or ``name=value``."""
    from tuner.cost.techniques import parse_techniques
    from tuner.plan.what_if import what_if

    model, cluster = requested_model(request), requested_cluster(request)
    if not isinstance(cluster, Cluster):
        raise BadInput("--what-if", "a cluster of several GPUs", "one node group; ask for each by itself")
    return what_if(request, model, cluster, load_space(request.space), parse_techniques(techniques))


def breakdowns(
    request: TuneRequest, model: ModelShape, cluster: Cluster | Fleet, layouts: list[ParallelLayout]
) -> dict[ParallelLayout, Breakdown]:
    """Where the milliseconds of each layout go."""
    switches = EngineSwitches.asked(request.engine)
    costs = {group: StepCosts(model, group, switches=switches) for group in cluster.groups}
    steps = RequestSteps(request)
    return {layout: breakdown(costs[cluster.group(layout)], layout, request, steps) for layout in layouts}


def memories(request: TuneRequest, layouts: Iterable[ParallelLayout]) -> dict[ParallelLayout, MemoryEstimate]:
    """What the fullest device of each layout holds."""
    model, cluster = requested_model(request), requested_cluster(request)
    alike: dict[object, list[ParallelLayout]] = {}
    for layout in layouts:
        alike.setdefault(_structure(layout), []).append(layout)
    found: dict[ParallelLayout, MemoryEstimate] = {}
    for members in alike.values():
        tokens, seqs = (np.array([float(getattr(one, name)) for one in members]) for name in _LIMITS)
        whole = estimate_memory(model, members[0], cluster.group(members[0]), request.engine, tokens, seqs)
        for i, one in enumerate(members):
            activations, kv = whole.activation_bytes[i : i + 1], whole.kv_tokens[i : i + 1]
            found[one] = replace(whole, activation_bytes=activations, kv_tokens=kv)
    return found


def why_infeasible(request: TuneRequest) -> Infeasible:
    """Why no layout meets the SLO by the model, and what would do."""
    from tuner.plan.infeasible import infeasible

    return infeasible(request, requested_model(request), load_space(request.space))


def facts() -> dict[str, str]:
    """Machine and our versions, for the reader of a result."""
    machine = f"{platform.machine()}, {os.cpu_count()} CPUs, {platform.system()} {platform.release()}"
    return {"machine": machine, **installed("optuna")}


def decision_of(store: Store, record: StudyRecord) -> tuple[Decision, bool]:
    """(the decision that the study ended in, True); of one that has not ended, or has gone on since, (what its trials
    would decide as they stand, False)."""
    found, decided = store.snapshot(record.name), store.decision(record.name)
    if decided is not None and decided.trials == found.finished and not found.open:
        return decided, True
    used = spent(found.entries, found.pulse.study_s, partial(usd_per_gpu_hour, record.request))
    return decide(record.name, record.request, found.trials, record.ranked or (), record.dropped or (), used), False


def measured_trial(decision: Decision, layout: str | None) -> TrialResult:
    """The trial of the layout that was asked for, or the winner; raises BadInput or NoFeasibleLayout without one."""
    measured = {str(trial.layout): trial for trial in decision.trials if trial.steps}
    if layout is not None:
        wanted = str(ParallelLayout.parse(layout))
        if wanted not in measured:
            raise BadInput("--layout", layout, "a measured layout: " + (", ".join(measured) or "none yet"))
        return measured[wanted]
    if decision.winner is None:
        raise NoFeasibleLayout(f"study {decision.study} has no winner to emit: {decision.why}")
    return decision.winner


def shipment(record: StudyRecord, trial: TrialResult) -> Shipment:
    """What leaves of a measured trial: its launch as it was recorded.

    A study of a Parlay that kept no such record gets what this one would launch, and the shipment says so.
    """
    from deploy.specs.shipment import Shipment
    from tuner.study.study import service_name

    request, layout = record.request, trial.layout
    launched = trial.launched or _recomputed(record, layout)
    return Shipment(service_name(request), layout, request, launched, recomputed=trial.launched is None)


def _recomputed(record: StudyRecord, layout: ParallelLayout) -> Launched:
    """What would be launched now; what Ray Serve refuses was measured by a local process."""
    from serve.launch.engine import environment, refused, serve_app, vllm_args

    request, source = record.request, model_source(record.request.model)
    names = ("python", "parlay", *ENGINES)
    versions = {name: record.facts[name] for name in names if name in record.facts}
    if refused(layout, request) is None:
        app = serve_app(record.name, layout, request, model_source=source)
        return Launched("ray-serve", versions, source, RayApplication(app))
    words = vllm_args(layout, request, model_source=source, host="127.0.0.1", port=8000)
    server = VllmServer(tuple(words), environment(layout, request, model_source=source))
    return Launched("local-process", versions, source, server)


def shown(
    store: Store, record: StudyRecord, decision: Decision, files: Mapping[str, str], *, ended: bool = True
) -> ReportData:
    """What a page shows of a study, with what its search believed last."""
    from tuner.app.answers.beliefs import BeliefsAnswer
    from tuner.app.tune.report_data import report_data
    from tuner.study.events import BELIEVED

    told, starts_s = store.events.last(record.name, BELIEVED), store.trial_starts(record.name)
    believed = BeliefsAnswer.model_validate_json(told.data) if told else None
    return report_data(record, decision, starts_s, files, ended=ended, believed=believed)


def write_results(
    directory: Path, store: Store, record: StudyRecord, decision: Decision, platform: Platform | None = None
) -> Decision:
    """Write the winner's specs, the report and the decision; the decision that names them, as it is stored from now on.

    No spec comes of a study without a winner, nor of one whose cluster was simulated.
    """
    from deploy.report.study_page import render_report
    from deploy.specs.writing import write_all, write_whole
    from tuner.app.answers.decision import decision_answer

    files: dict[str, Path] = {}
    if decision.winner is not None and simulated_seed(record.facts) is None:
        files |= write_all(directory, shipment(record, decision.winner), platform)
    names: Mapping[str, str] = {kind: path.name for kind, path in files.items()}
    page = render_report(shown(store, record, decision, names))
    files["report"] = write_whole(directory / REPORT, page)
    files["decision"] = directory / DECISION
    decision = replace(decision, files={kind: str(path) for kind, path in files.items()})
    write_whole(files["decision"], decision_answer(decision, record.request, record.facts).to_json())
    store.save_decision(record.name, decision)
    return decision
