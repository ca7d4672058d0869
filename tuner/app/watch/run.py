"""``parlay deploy`` and ``parlay watch``: from their options to a loop that ends by a signal."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from rich.console import Console

from deploy.rollout.machine import RolloutMachine
from tuner.app.answers.watch import StandingAnswer, WatchAnswer
from tuner.app.cli.signals import cancelled_by_signals
from tuner.app.watch.canaries import Canaries
from tuner.app.watch.first import deployable, first_deployment, let_go
from tuner.app.watch.loop import WatchLoop
from tuner.app.watch.options import DeployOptions, WatchOptions
from tuner.app.watch.policy_file import read_policy
from tuner.app.watch.rounds import OwnRounds, QueuedRounds, Rounds
from tuner.app.watch.screen import standing_line
from tuner.app.watch.showing import watch_answer
from tuner.app.watch.sites import RAY, place_of, ray_site
from tuner.app.watch.telling import gist
from tuner.app.watch.watcher import Watcher
from tuner.errors import BadInput, Cancelled, ParlayError
from tuner.retune.policy import RetunePolicy
from tuner.retune.rollout import ENDS, Rollout, Step
from tuner.study.lease import Heartbeat, is_gone, new_driver
from tuner.study.patience import WORKING_S
from tuner.study.store import Store
from tuner.study.watched import Claim, Watched
from tuner.trial.cancel import CancelHandle

POLL_S = 2.0
_GLIMPSE_S = 10.0  # between the two looks of a dry run where nobody watches


def run_watch(options: WatchOptions, console: Console) -> WatchAnswer | StandingAnswer | None:
    """Watch until told to end; with ``--once`` or ``--dry-run`` how it stands. Raises BadInput for a study of which
    nothing was deployed."""
    stop, store = CancelHandle(), Store(options.store_url, patience_s=WORKING_S)
    with ExitStack() as stack:
        stack.callback(store.close)
        study = store.rounds.base_of(options.study)
        watched = store.watched.watched(study)
        if options.policy is not None and not options.dry_run:
            watched = store.watched.watch(study, read_policy(options.policy), watched.site)
        if options.dry_run:
            return _dry(store, watched, options)
        make = partial(watcher_of, store, options)
        last: list[StandingAnswer] = []

        def tell(name: str, standing: StandingAnswer) -> None:
            new = not last or gist(last[-1]) != gist(standing)
            last[:] = [standing]
            if new and not options.as_json:
                console.print(standing_line(name, standing), highlight=False, markup=False, soft_wrap=True)

        loop = WatchLoop(store, make, tell, every_s=options.every, mine=lambda one: one.study == study)
        stack.enter_context(cancelled_by_signals(stop, lambda text: console.print(text, highlight=False)))
        if not options.once:
            console.print(f"parlay: watching {study}; Ctrl-C stops that, and what serves goes on", highlight=False)
            loop.run(stop)
            return None
        loop.once()
        loop.close()
        if not last:
            raise ParlayError(f"{study} is watched by {watched.watcher} already; it stands in `parlay watch --dry-run`")
        if last[-1].problem is not None:
            raise ParlayError(last[-1].problem)
        return watch_answer(store, study)


def watcher_of(store: Store, options: WatchOptions, watched: Watched, claim: Claim | None) -> Watcher:
    """The watcher of a study, on its place; its rounds run in this process, where no service's worker does."""
    place = place_of(watched.site, store, watched.study, options.out)
    rounds: Rounds = OwnRounds(store, options.out, str(watched.site.get("address") or "auto"))
    if watched.site.get("kind") != RAY:
        rounds = QueuedRounds(store, "ray")
    return Watcher(store, watched.study, place, rounds, claim, options.windows_shortened)


def _dry(store: Store, watched: Watched, options: WatchOptions) -> StandingAnswer:
    """What it would do now, with nothing changed anywhere; where nobody watches, two looks are taken for it."""
    policy = None if options.policy is None else read_policy(options.policy)
    watcher = replace(watcher_of(store, options, watched, None), policy=policy)
    try:
        found = watcher.iterate()
        if not watched.watcher:
            time.sleep(min(options.every, _GLIMPSE_S))
            found = watcher.iterate()
        return found
    finally:
        watcher.close()


def run_deploy(options: DeployOptions, console: Console) -> WatchAnswer:
    """Have the winner serve, and be watched from now on; returns once it serves. Raises ParlayError where it does not
    come up, BadInput as ``first_deployment`` does."""
    stop, store = CancelHandle(), Store(options.store_url, patience_s=WORKING_S)
    with ExitStack() as stack:
        stack.callback(store.close)
        study = store.rounds.base_of(options.study)
        deployable(store, options.study, options.layout)  # before anything is changed
        known = store.watched.find(study)
        policy = RetunePolicy() if known is None else known.policy
        policy = policy if options.policy is None else read_policy(options.policy)
        watched = store.watched.watch(study, policy, ray_site(options.ray_address, options.port))
        claim = store.watched.claim(study, new_driver(), is_gone)
        if claim is None:
            raise BadInput("STUDY", study, f"one that nobody watches; {watched.watcher} does")
        stack.callback(store.watched.leave, claim)
        alive = Heartbeat(lambda: store.watched.beat(claim))
        alive.start()
        stack.callback(alive.stop)
        place = place_of(watched.site, store, study, options.out)
        stack.callback(place.close)
        stack.enter_context(cancelled_by_signals(stop, lambda text: console.print(text, highlight=False)))
        if known is None:
            try:
                let_go(store, place, claim)
            except BadInput:
                store.watched.unwatch(study)
                raise
        first_deployment(store, place, claim, options.study, options.layout, time.time())
        _drive(RolloutMachine(store, place.site, claim), store, study, stop, console)
        console.print(f"parlay: {study} serves at {place.site.url}/v1", highlight=False)
        return watch_answer(store, study)


def _drive(machine: RolloutMachine, store: Store, study: str, stop: CancelHandle, console: Console) -> Rollout:
    """Move the first rollout on to its end."""
    told = ""
    while True:
        found = machine.advance(Canaries(store))
        if found.rollout is not None and found.rollout.step in ENDS:
            if found.rollout.step is not Step.DONE:
                raise ParlayError(f"{found.rollout.new} does not serve: {found.rollout.outcome}")
            return found.rollout
        if found.waits is not None and found.waits.why != told:
            told = found.waits.why
            console.print(f"  {told}", highlight=False, markup=False)
        try:
            stop.wait(POLL_S)
        except Cancelled:
            raise ParlayError(f"stopped; `parlay watch {study}` goes on with the deployment") from None
