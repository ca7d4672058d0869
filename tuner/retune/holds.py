"""What keeps something from being done that should be: each hold with a figure, in words for an operator."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from tuner.ask.deployment import Deployment
from tuner.retune.judgement import HeldBy, LayoutOutlook, Outlook
from tuner.retune.policy import Consent, RetunePolicy
from tuner.retune.situation import Situation
from tuner.retune.windows import is_open, next_opening

Hold = tuple[HeldBy, str]


def standing(situation: Situation) -> Iterator[Hold]:
    """What holds whatever is to be done, an emergency too."""
    if situation.rollout is not None:
        yield HeldBy.ROLLOUT, situation.rollout
    if situation.foreign is not None:
        yield HeldBy.FOREIGN, f"somebody changed what is deployed: {situation.foreign}"
    if situation.paused:
        yield HeldBy.PAUSED, "a human has paused re-tuning"


def blind(situation: Situation) -> Iterator[Hold]:
    """What is not seen is never taken to be well, and never acted upon."""
    if situation.blind:
        yield HeldBy.BLIND, "; ".join(notice.evidence for notice in situation.blind)


def vetoed(situation: Situation, best: LayoutOutlook) -> Iterator[Hold]:
    """A layout that was refused or rolled back is not tried again."""
    if best.deployment in situation.vetoed:
        yield HeldBy.VETOED, f"{best.deployment} was refused or rolled back on this cluster"


def waits(situation: Situation, policy: RetunePolicy, urgent: bool) -> Iterator[Hold]:
    """Hysteresis, cool-down and maintenance windows; what regains an SLO (``urgent``) waits for less."""
    least_s = 60 * (policy.regains_minutes if urgent else policy.persists_minutes)
    if situation.lasted_s < least_s:
        lasted = f"it has lasted {_minutes(situation.lasted_s)} of the {_minutes(least_s)} that it must"
        yield HeldBy.NOT_FOR_LONG, lasted
    moved_s = situation.moved_s
    rests_s = max(least_s, situation.settles_s) if urgent else policy.cool_down_hours * 3600
    if moved_s is not None and situation.at_s - moved_s < rests_s:
        yield (
            HeldBy.COOL_DOWN,
            f"the layout changed {clock(moved_s)}; the next change may come {clock(moved_s + rests_s)}",
        )
    if not is_open(policy.windows, situation.at_s):
        opens_s = next_opening(policy.windows, situation.at_s)
        yield HeldBy.WINDOW, f"no maintenance window is open; the next one opens {clock(opens_s)}"


def means(situation: Situation, policy: RetunePolicy, outlook: Outlook, for_slo: bool, tunes: bool) -> Iterator[Hold]:
    """Room for the new layout beside the present one, unless that may end first: for an SLO that is missed, or will be
    (``for_slo``), and in a maintenance window to save, never else; and room and GPU-hours for trials, where the
    study ``tunes`` first."""
    best, spare = outlook.best, outlook.spare_gpus
    if best is None:
        return
    beside = spare is not None and spare >= best.gpus
    needs = f"{best.deployment} needs {best.gpus} GPUs beside the present layout, {_spare(spare)}"
    if tunes and policy.trials == "never":
        yield HeldBy.CONSENT, "the policy allows no trials"
    elif not beside and not policy.in_place:
        yield HeldBy.NO_ROOM, f"{needs}, and the policy does not let the present one end first"
    elif not beside and not for_slo and not policy.windows:
        yield HeldBy.NO_ROOM, f"{needs}, and without a maintenance window nothing stops serving to save"
    elif not beside and tunes and policy.trials == "spare":
        yield HeldBy.NO_ROOM, f"trials of {best.gpus} GPUs need spare ones, {_spare(spare)}"
    if not tunes:
        return
    limit, wanted = policy.gpu_hours_per_day, situation.gpu_hours_today + outlook.tuning_gpu_hours
    if limit is not None and wanted > limit:
        spent = f"{situation.gpu_hours_today:.1f} GPU-hours were spent on trials today and about"
        yield HeldBy.BUDGET, f"{spent} {outlook.tuning_gpu_hours:.1f} more are needed; {limit:g} are allowed a day"


def consent(situation: Situation, asked: Consent, best: Deployment) -> Iterator[Hold]:
    """Whether a human has to agree, and did."""
    if asked is Consent.ADVISE:
        yield HeldBy.CONSENT, "the policy is to advise alone"
    elif asked is Consent.APPROVE and best not in situation.approved:
        yield HeldBy.CONSENT, f"a human has to agree to {best}"


def _spare(spare: int | None) -> str:
    return "and nobody knows how many are free" if spare is None else f"and {spare} are free"


def _minutes(seconds: float) -> str:
    return f"{max(seconds, 0.0) / 60:.0f} min"


def clock(at_s: float) -> str:
    """A point in time (s since 1970), for people."""
    return f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%d %H:%M} UTC"
