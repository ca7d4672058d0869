"""The watcher beside a worker: it looks after what serves on the worker's Ray cluster, behind this machine's front."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tuner.app.answers.watch import StandingAnswer
from tuner.app.service.options import WorkerOptions
from tuner.errors import Cause
from tuner.study.store import Store
from tuner.trial.cancel import CancelHandle


@contextmanager
def watching(store: Store, options: WorkerOptions, stop: CancelHandle, tell: Callable[[str], None]) -> Iterator[None]:
    """On a thread of its own to the end of the block, or until ``stop``. Rounds are queued, and run by any worker."""
    if not options.watch_every or options.until_idle or "ray" not in options.runs_on:
        yield
        return
    from tuner.app.watch.loop import WatchLoop
    from tuner.app.watch.rounds import QueuedRounds
    from tuner.app.watch.sites import is_here, place_of
    from tuner.app.watch.watcher import Watcher
    from tuner.study.watched import Claim, Watched

    told: dict[str, str] = {}

    def make(watched: Watched, claim: Claim) -> Watcher:
        place = place_of(watched.site, store, watched.study, options.out)
        return Watcher(store, watched.study, place, QueuedRounds(store, "ray"), claim)

    def say(study: str, standing: StandingAnswer) -> None:
        if told.get(study) != standing.state:
            tell(f"parlay: {study} is {standing.state}: {standing.text}")
        told[study] = standing.state

    loop = WatchLoop(
        store, make, say, every_s=options.watch_every, mine=lambda one: is_here(one.site, options.ray_address)
    )
    end = CancelHandle()
    thread = threading.Thread(target=loop.run, args=(end,), name="watch", daemon=True)
    with stop.listening(end.cancel):
        thread.start()
        try:
            yield
        finally:
            end.cancel(Cause.SHUTDOWN, "the worker ends")
            thread.join()
