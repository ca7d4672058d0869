"""What a canary says, from looks at both sides that were taken at the same moments; they are kept with the rollout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tuner.retune.canary import LOOK, canary_look, judge
from tuner.retune.moves import CanaryAnswer
from tuner.retune.rollout import Rollout, Step
from tuner.retune.seen import Look
from tuner.study.store import Store
from tuner.study.watched import Claim


@dataclass(frozen=True, slots=True)
class Canaries:
    """Those of one watched study."""

    store: Store

    def keep(self, rollout: Rollout | None, looks: Mapping[str, Look], claim: Claim) -> None:
        """Keep what was seen of both sides since one has a share of the traffic; raises LeaseLost."""
        if rollout is None or rollout.step is not Step.CANARY or rollout.new not in looks:
            return
        new = looks[rollout.new]
        if new.at_s - new.seconds < rollout.step_since_s:  # it has first requests in it, of before the canary
            return
        both = canary_look(new, looks.get(rollout.old or ""))
        self.store.rollouts.add_look(rollout, LOOK.dump_python(both, mode="json"), claim)

    def __call__(self, rollout: Rollout) -> CanaryAnswer:
        """As far as it is known."""
        policy = self.store.watched.watched(rollout.watched).policy.canary
        new = self.store.live.find(rollout.new)
        slo = self.store.study(rollout.watched if new is None else new.study).request.slo
        looks = [LOOK.validate_python(one) for one in self.store.rollouts.looks(rollout)]
        return judge(looks, slo, policy)
