"""A watcher's eyes: from what deployments tell of themselves, one look after the other.

Between two looks nothing is kept but the last reading: after a kill the first look has nothing to compare with, and the
time between is seen by nobody.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from serve.measure.live_looks import Reading, look_between
from serve.measure.live_reader import Fetch, fetch_text, readings
from tuner.app.watch.place import Place
from tuner.ask.request import SloTarget
from tuner.errors import ParlayError
from tuner.retune.seen import Blindness, Fingerprint, Look


class Eyes:
    """Looks at one place. Not for several threads at once."""

    def __init__(self, place: Place, fetch: Fetch = fetch_text, clock: Callable[[], float] = time.time) -> None:
        self._place, self._fetch, self._clock = place, fetch, clock
        self._before: Mapping[str, Reading] = {}
        self._looked_s: float | None = None

    def look(self, names: Collection[str], slo: Collection[SloTarget]) -> dict[str, Look]:
        """A look at each deployment of these names that was seen the time before; none at all the first time.

        Where the place cannot be asked, each look is blind for that reason.
        """
        at_s, before_s = self._clock(), self._looked_s
        self._looked_s = at_s
        try:
            places = self._place.told_at(names)
        except ParlayError:
            self._before = {}
            seconds = 0.0 if before_s is None else at_s - before_s
            blind = frozenset({Blindness.UNREACHABLE, Blindness.NO_CLUSTER})
            return {name: Look(at_s, seconds, blind=blind) for name in names if seconds > 0}
        now = readings(places, at_s, self._fetch)
        before, self._before = self._before, now
        seen = self.fingerprint()
        found = {}
        for name in names:
            reading = now.get(name, Reading(at_s))
            if before_s is None or at_s <= before_s:
                continue
            look = look_between(before.get(name, Reading(before_s)), reading, tuple(slo))
            found[name] = _with(look, seen)
        return found

    def fingerprint(self) -> Fingerprint | None:
        """What the cluster is now; None where it cannot be asked."""
        try:
            return self._place.fingerprint()
        except ParlayError:
            return None


def _with(look: Look, seen: Fingerprint | None) -> Look:
    blind = look.blind | ({Blindness.NO_CLUSTER} if seen is None or seen.nodes is None else frozenset())
    return replace(look, fingerprint=seen, blind=blind)
