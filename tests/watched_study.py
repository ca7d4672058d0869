"""A study of which something serves, with looks at it and a proposal that waits for a human, as a watcher leaves it."""

from __future__ import annotations

import time
from typing import Any

from tuner.app.watch.memory import Memory
from tuner.app.watch.standing import standing
from tuner.app.watch.telling import tell
from tuner.ask.layout import ParallelLayout
from tuner.retune.judgement import Action, HeldBy, Judgement, LayoutOutlook, Outlook
from tuner.retune.live import LiveDeployment, LiveState
from tuner.retune.notice import Notice, NoticeKind
from tuner.retune.policy import RetunePolicy
from tuner.retune.seen import Look, Tokens
from tuner.stats.buckets import Within
from tuner.study.lease import new_driver
from tuner.trial.launched import Launched, NoEngine

OTHER = "tp=2,pp=2,dp=1"


def watched(service: Any, study: str) -> None:
    """Have it so, once; ``service`` has a ``store``."""
    store, now = service.store, time.time()
    if store.watched.find(study) is not None:
        return
    store.watched.watch(study, RetunePolicy(), {"kind": "simulated"})
    claim = store.watched.claim(study, new_driver(), lambda *_: True)
    assert claim is not None
    decision, request = store.decision(study), store.study(study).request
    winner = decision.winner
    live = LiveDeployment(
        study, store.live.next_name(study), study, winner.number, winner.deployment,
        winner.launched or Launched("simulated", {}, "m", NoEngine("simulated")), "simulated", LiveState.SERVING,
        now - 900, now - 840, good=True,
    )  # fmt: skip
    store.live.add(live, claim)
    for i in range(40):
        good = 60.0 if i < 25 else 30.0
        within = {target.key: Within(60.0, good, good, good) for target in request.slo}
        look = Look(now - 600 + 15 * i, 15.0, 60.0, 0.0, within, prompt=Tokens(60.0, 512.0))
        store.looks.keep(study, {live.name: look})
    burn = Notice(NoticeKind.SLO_BURN, "ttft p99", "50.00% of 900 requests miss ttft p99 ≤ 150 ms", 1.0, now - 225)
    here = LayoutOutlook(winner.deployment, winner.deployment.devices, False, 8.0, {}, None, True, 3.0)
    best = LayoutOutlook(ParallelLayout.parse(OTHER), 4, True, 12.0, {}, 0.93, False, 7.0)
    judged = Judgement(
        Action.HOLD, "Half of the requests miss the SLO. Held: a human has to agree.", now,
        {HeldBy.CONSENT: f"a human has to agree to {OTHER}"},
        Outlook(here, best, -0.5, -4.0, True, 0.7, 0.4, 4), (burn,),
    )  # fmt: skip
    found = standing(now, (burn,), judged, None, (), None)
    told = tell(store.events, study, found, ())
    store.watched.remember(claim, Memory(standing=found, told=told).model_dump(mode="json"))
