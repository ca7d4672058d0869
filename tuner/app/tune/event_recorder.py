"""A study's happenings, kept as events for those who watch it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tuner.app.answers.beliefs import beliefs_answer
from tuner.app.answers.layout_summary import spent_answer
from tuner.app.answers.plan import dropped_answer
from tuner.app.answers.trial import step_answer, trial_answer
from tuner.ask.request import TuneRequest
from tuner.plan.prune import Plan
from tuner.search.beliefs import Beliefs
from tuner.search.proposal import Proposal
from tuner.study.device_leases import Blocked
from tuner.study.events import BELIEVED, Events
from tuner.study.observer import Observer
from tuner.trial.ledger import Spent
from tuner.trial.results import LoadStep, StepResult, TrialResult
from tuner.trial.seams import RunningDeployment


class EventRecorder(Observer):
    """Keeps what a study tells; the keys of an event's data are those of the answers."""

    def __init__(self, events: Events, study: str, request: TuneRequest) -> None:
        self._events, self._study, self._request = events, study, request

    def planned(self, plan: Plan) -> None:
        dropped = [dropped_answer(group).model_dump(mode="json") for group in plan.dropped]
        best = [str(candidate.deployment) for candidate in plan.ranked[:10]]
        told = {"candidates": plan.candidates, "kept": len(plan.ranked), "dropped": dropped, "best": best}
        self._tell("planned", told | {"seconds": plan.seconds})

    def remembered(self, studies: Sequence[str]) -> None:
        self._tell("remembered", {"studies": list(studies)})

    def trial_started(self, number: int, launches: int, proposal: Proposal) -> None:
        told = {"trial": number, "launches": launches, "layout": str(proposal.deployment)}
        more = {"purpose": proposal.purpose.value, "repeat": proposal.repeat, "why": proposal.why}
        more |= {} if proposal.engine_of is None else {"engine_of": proposal.engine_of}
        self._tell("trial_started", told | more)

    def waiting(self, proposal: Proposal, blocked: Blocked) -> None:
        told = {"layout": str(proposal.deployment), "devices": blocked.devices, "text": blocked.words}
        self._tell("waiting", told | {"held_by": list(blocked.hold), "after": list(blocked.before)})

    def launching(self, number: int, text: str) -> None:
        self._tell("launching", {"trial": number, "text": text})

    def ready(self, number: int, deployment: RunningDeployment) -> None:
        self._tell("ready", {"trial": number, "ready_after_s": deployment.ready_after_s})

    def step_started(self, number: int, step: LoadStep, steps: int) -> None:
        told = {"trial": number, "step": step.index, "steps": steps, "warmup": step.warmup}
        self._tell("step_started", told | {"rate_req_per_s": step.rate_req_per_s, "seconds": step.duration_s})

    def step_measured(self, number: int, result: StepResult) -> None:
        shown = step_answer(result, self._request).model_dump(mode="json")
        told = {"trial": number, "step": result.step.index, "warmup": result.step.warmup}
        self._tell("step_measured", told | {"measured": shown})

    def trial_finished(self, result: TrialResult) -> None:
        shown = trial_answer(result, self._request, None).model_dump(mode="json")
        self._tell("trial_finished", {"trial": result.number, "result": shown})

    def best_so_far(self, best: TrialResult | None, spent: Spent) -> None:
        layout = None if best is None else str(best.deployment)
        self._tell("best_so_far", {"layout": layout, "spent": spent_answer(spent).model_dump(mode="json")})

    def believed(self, found: Beliefs) -> None:
        self._tell(BELIEVED, beliefs_answer(found).model_dump(mode="json"))

    def resumed(self, finished: Sequence[TrialResult], orphans: Sequence[str]) -> None:
        self._tell("resumed", {"finished": len(finished), "orphans": list(orphans)})

    def ended(self, why: str) -> None:
        self._tell("ended", {"why": why})

    def _tell(self, kind: str, data: Mapping[str, Any]) -> None:
        self._events.tell(self._study, kind, data)
