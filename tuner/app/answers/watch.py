"""What is deployed of a study, what was noticed of it, and what its watcher does about that."""

from __future__ import annotations

from pydantic import Field

from tuner.app.answers.base import Answer
from tuner.retune.judgement import Judgement, LayoutOutlook, Outlook
from tuner.retune.live import LiveDeployment
from tuner.retune.notice import Notice
from tuner.retune.rollout import Rollout


class NoticeAnswer(Answer):
    """Something that was noticed."""

    kind: str = Field(description="What: slo_burn, workload_shift, node_lost and so on; blind: it cannot be seen.")
    of: str = Field(description="Of what: a target, a node, a link, a part of the load.")
    evidence: str = Field(description="One sentence with figures.")
    confidence: float = Field(description="From 0 to 1, that it is no accident.")
    since: float = Field(description="When it began, s since 1970.")
    figures: dict[str, float] = Field(description="The same for machines.")
    blindness: str | None = Field(description="Why it cannot be seen; null of what is seen.")


class LayoutOutlookAnswer(Answer):
    """What is expected of one layout under the load and on the cluster of now."""

    layout: str = Field(description="The layout.")
    gpus: int = Field(description="GPUs that it takes.")
    meets_slo: bool | None = Field(description="Whether it meets the SLO; null: nobody can tell.")
    chance: float | None = Field(description="The model's probability of that; null: it was seen.")
    measured: bool = Field(description="Whether a trial, or serving, showed it under such a load.")
    usd_per_hour: float | None = Field(description="What it costs; null: a GPU has no price.")
    goodput_req_per_s: float | None = Field(description="Requests/s within the SLO that it carries; null: unknown.")
    ms: dict[str, float] = Field(description="Expected latency by target, such as ttft:99.0.")


class OutlookAnswer(Answer):
    """What a change could bring, and what it would take."""

    present: LayoutOutlookAnswer | None = Field(description="What serves; null: it does not fit the cluster any more.")
    best: LayoutOutlookAnswer | None = Field(description="The best other layout; null: there is none.")
    gain: float = Field(description="Share of what the present layout takes that the best saves; below 0: it adds.")
    gain_per_hour: float = Field(description="The same an hour, in US dollars where GPUs have a price, else in GPUs.")
    regains_slo: bool = Field(description="Whether the best meets the SLO, which the present layout misses.")
    tuning_gpu_hours: float = Field(description="What trials would take.")
    moving_gpu_hours: float = Field(description="What the new deployment takes beside the old one.")
    spare_gpus: int | None = Field(description="GPUs that the present layout leaves; null: unknown.")
    assumed: list[str] = Field(description="What of the load nobody could see.")


class JudgementAnswer(Answer):
    """What is to be done, and why; or what keeps it from being done."""

    action: str = Field(description="nothing, hold, retune, move or emergency.")
    why: str = Field(description="In words.")
    at: float = Field(description="When it was judged, s since 1970.")
    held_by: dict[str, str] = Field(description="What forbids it, each with words.")
    outlook: OutlookAnswer | None = Field(description="What a change could bring; null: nobody had to ask.")


class StandingAnswer(Answer):
    """How the last look stood."""

    at: float = Field(description="When, s since 1970.")
    state: str = Field(
        description="well, blind, noticed (something is, and no other layout helps), held, acting or failed."
    )
    text: str = Field(description="In one sentence.")
    notices: list[NoticeAnswer] = Field(description="What was noticed.")
    judgement: JudgementAnswer | None = Field(description="What is to be done; null: nothing could be judged.")
    problem: str | None = Field(description="Why the last iteration failed; null: it did not.")
    acted: list[str] = Field(description="What was done in it, or with --dry-run would be.")


class LiveAnswer(Answer):
    """One deployment that serves, served, or was to serve."""

    name: str = Field(description="Its name, which no other ever has.")
    study: str = Field(description="The round that decided it.")
    trial: int | None = Field(description="The trial that measured it; null: an emergency's, which nobody measured.")
    layout: str = Field(description="Its layout.")
    state: str = Field(description="wanted, serving, last_good, ended or failed.")
    good: bool = Field(description="Whether it ever served well.")
    site: str = Field(description="Where: ray-serve or kuberay.")
    created_at: float = Field(description="s since 1970.")
    serving_since: float | None = Field(description="s since 1970; null: it never served.")
    ended_at: float | None = Field(description="s since 1970; null: it has not ended.")


class RolloutAnswer(Answer):
    """One deployment taking another's place."""

    number: int = Field(description="Counts the rollouts of a study.")
    way: str = Field(description="beside, in_place or replace.")
    step: str = Field(description="What is being done; done, rolled_back and failed are ends.")
    old: str | None = Field(description="What it replaces; null: the first deployment.")
    new: str = Field(description="What comes in.")
    why: str = Field(description="What for.")
    share: float = Field(description="Share of the traffic that goes to the new one.")
    approved: bool = Field(description="Whether a human, or the policy, agreed.")
    paused: bool = Field(description="Whether a human wants it to go no further.")
    wish: str | None = Field(description="veto or force, where a human asked for that.")
    began_at: float = Field(description="s since 1970.")
    step_since: float = Field(description="s since 1970.")
    outcome: str = Field(description="How it came to its end, or goes back; else empty.")


class SeenAnswer(Answer):
    """What came in some time, of one deployment."""

    at: float = Field(description="The end of that time, s since 1970.")
    seconds: float = Field(description="How long it was.")
    deployment: str = Field(description="Of which deployment.")
    arrived: float | None = Field(description="Requests that came; null: nobody counts them.")
    failed: float | None = Field(description="Of these, those that failed; null: nobody counts them.")
    within: dict[str, float | None] = Field(description="By target the likely share within it; null: none came.")
    prompt_tokens: float | None = Field(description="Mean of the prompts; null: not seen.")


class RoundAnswer(Answer):
    """A study that decides anew."""

    study: str = Field(description="Its name.")
    state: str = Field(description="As a study's.")


class HappeningAnswer(Answer):
    """One thing that happened."""

    at: float = Field(description="s since 1970.")
    kind: str = Field(description="noticed, judged, rollout, round, said or problem.")
    text: str = Field(description="In words.")


class WatchAnswer(Answer):
    """A watched study: what serves, how it stands, what is being done."""

    study: str = Field(description="The first round's name.")
    watched: bool = Field(description="Whether it is to be watched.")
    paused: bool = Field(description="Whether a human has paused it.")
    watcher: str | None = Field(description="Who watches it; null: nobody now.")
    policy: dict[str, object] = Field(description="What is allowed.")
    site: dict[str, object] = Field(description="Where it serves.")
    windows_shortened: float = Field(
        description="How many times shorter than they should be the detectors' windows are."
    )
    standing: StandingAnswer | None = Field(description="How the last look stood; null: there was none.")
    deployments: list[LiveAnswer] = Field(description="The newest first.")
    rollouts: list[RolloutAnswer] = Field(description="The newest first.")
    rounds: list[RoundAnswer] = Field(description="Studies that decided, the first one first.")
    seen: list[SeenAnswer] = Field(description="What came, the oldest first.")
    happened: list[HappeningAnswer] = Field(description="The newest first.")


def notice_answer(notice: Notice) -> NoticeAnswer:
    """One notice."""
    return NoticeAnswer(
        kind=notice.kind.value,
        of=notice.of,
        evidence=notice.evidence,
        confidence=notice.confidence,
        since=notice.since_s,
        figures=dict(notice.figures),
        blindness=None if notice.blindness is None else notice.blindness.value,
    )


def judgement_answer(judgement: Judgement) -> JudgementAnswer:
    """What is to be done."""
    return JudgementAnswer(
        action=judgement.action.value,
        why=judgement.why,
        at=judgement.at_s,
        held_by={held.value: words for held, words in judgement.held_by.items()},
        outlook=None if judgement.outlook is None else outlook_answer(judgement.outlook),
    )


def outlook_answer(outlook: Outlook) -> OutlookAnswer:
    """What a change could bring."""
    return OutlookAnswer(
        present=_layout(outlook.present),
        best=_layout(outlook.best),
        gain=outlook.gain,
        gain_per_hour=outlook.gain_per_hour,
        regains_slo=outlook.regains_slo,
        tuning_gpu_hours=outlook.tuning_gpu_hours,
        moving_gpu_hours=outlook.moving_gpu_hours,
        spare_gpus=outlook.spare_gpus,
        assumed=list(outlook.assumed),
    )


def _layout(one: LayoutOutlook | None) -> LayoutOutlookAnswer | None:
    if one is None:
        return None
    return LayoutOutlookAnswer(
        layout=str(one.deployment),
        gpus=one.gpus,
        meets_slo=one.meets,
        chance=one.chance,
        measured=one.measured,
        usd_per_hour=one.usd_per_hour,
        goodput_req_per_s=one.goodput_req_per_s,
        ms={f"{metric.value}:{percentile!r}": ms for (metric, percentile), ms in one.ms.items()},
    )


def live_answer(live: LiveDeployment) -> LiveAnswer:
    """One deployment."""
    return LiveAnswer(
        name=live.name,
        study=live.study,
        trial=live.trial,
        layout=str(live.deployment),
        state=live.state.value,
        good=live.good,
        site=live.site,
        created_at=live.created_s,
        serving_since=live.serving_since_s,
        ended_at=live.ended_s,
    )


def rollout_answer(rollout: Rollout) -> RolloutAnswer:
    """One rollout."""
    return RolloutAnswer(
        number=rollout.number,
        way=rollout.way.value,
        step=rollout.step.value,
        old=rollout.old,
        new=rollout.new,
        why=rollout.why,
        share=rollout.share,
        approved=rollout.approved,
        paused=rollout.paused,
        wish=None if rollout.wish is None else rollout.wish.value,
        began_at=rollout.began_s,
        step_since=rollout.step_since_s,
        outcome=rollout.outcome,
    )
