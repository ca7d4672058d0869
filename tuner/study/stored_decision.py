"""How a decision is kept: whole, as JSON, with each trial once and named by its number wherever it stands again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from pydantic import TypeAdapter

from tuner.ask.cluster import usd_per_gpu_hour
from tuner.ask.layout import ParallelLayout
from tuner.ask.rules import DropReason
from tuner.decide.decision import Decision, decide
from tuner.plan.bounds import Bound
from tuner.plan.infeasible import Change, Infeasible
from tuner.plan.prune import DroppedGroup
from tuner.study.records import Snapshot, StudyRecord
from tuner.trial.ledger import spent

Kept = dict[str, Any]  # JSON whose inside only this module reads

_SHAPE = 2  # 1, which had no such key, was the answer that `parlay tune` printed
_DECISION = TypeAdapter(Decision)


def kept_decision(decision: Decision) -> Kept:
    """The decision as JSON that any database takes: no infinity or NaN is in it but as text."""
    kept: Kept = _finite(_DECISION.dump_python(decision, mode="json"))
    for place in ("winner", "runner_up"):
        kept[place] = _number(kept[place])
    kept["pareto"] = [_number(trial) for trial in kept["pareto"]]
    for standing in kept["standings"]:
        standing["trials"] = [_number(trial) for trial in standing["trials"]]
    return {"shape": _SHAPE, **kept}


def read_decision(kept: Kept, record: StudyRecord, found: Snapshot) -> Decision:
    """The decision that was kept of a study, with its trials as they are ``found``.

    Of a study that was decided before decisions were kept whole, one is made of them, with what was kept of it.
    """
    if kept.get("shape") != _SHAPE:
        return _of_answer(kept, record, found)
    told = {name: value for name, value in kept.items() if name != "shape"}
    by_number = {trial["number"]: trial for trial in told["trials"]}
    for place in ("winner", "runner_up"):
        told[place] = by_number.get(told[place])
    told["pareto"] = [by_number[number] for number in told["pareto"]]
    told["standings"] = [
        {**standing, "trials": [by_number[number] for number in standing["trials"]]} for standing in told["standings"]
    ]
    return _DECISION.validate_python(told)


def _finite(value: Any) -> Any:
    """JSON in which infinity and NaN are text, from which a float is read back."""
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _number(trial: Mapping[str, Any] | None) -> int | None:
    return None if trial is None else int(trial["number"])


def _of_answer(kept: Kept, record: StudyRecord, found: Snapshot) -> Decision:
    dropped = [
        DroppedGroup(DropReason(one["reason"]), one["count"], ParallelLayout.parse(one["example"]), one["figure"])
        for one in kept["dropped"]
    ]
    used = spent(found.entries, found.pulse.study_s, partial(usd_per_gpu_hour, record.request))
    decision = decide(kept["study"], record.request, found.finished, record.ranked or (), dropped, used)
    return replace(decision, infeasible=_reasons(kept.get("infeasible")), files=kept["files"])


def _reasons(kept: Kept | None) -> Infeasible | None:
    if kept is None:
        return None
    return Infeasible(
        tuple(Bound(**bound) for bound in kept["bounds"]),
        tuple(Change(**change) for change in kept["would_take"]),
        kept["measured_times_slower_than_the_model"],
        kept["expected_to_meet"],
    )
