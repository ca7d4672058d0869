"""What a front has counted of the requests of each application: pure, from HAProxy's statistics as CSV.

A failure is an answer of status 500 and more, HAProxy's own among them where the proxy behind it cannot be reached, or
an answer that broke off after it had begun (``srv_abrt``), which has a good status. What the front refuses because
nothing serves reaches no backend: it is an account of its own, of whoever had the traffic last.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from serve.measure.live_ingress import Answered, haproxy_answers, haproxy_refused


@dataclass(frozen=True, slots=True)
class Refused:
    """Requests that the front itself refused: those of accounts that are closed, by application, and ``until`` which
    count of the running HAProxy they are. ``whose`` has the open one; empty: nobody's, nothing ever served."""

    whose: str = ""
    until: float = 0.0
    closed: Mapping[str, float] = field(default_factory=dict)

    @property
    def anew(self) -> Refused:
        """As a new HAProxy is started, which counts from nothing."""
        return Refused(self.whose)

    def now(self, counted: float) -> dict[str, float]:
        """By application, with what HAProxy has counted by now."""
        since = max(0.0, counted - self.until)
        found = dict(self.closed)
        if self.whose and since:
            found[self.whose] = found.get(self.whose, 0.0) + since
        return found

    def dealt(self, shares: Mapping[str, float], counted: float) -> Refused:
        """As these shares are ordered: from now on it is on whoever gets most, or stays where nobody gets anything."""
        whose = max(sorted(shares), key=lambda name: shares[name]) if any(shares.values()) else self.whose
        return Refused(whose, counted, self.now(counted))

    def only(self, names: Collection[str]) -> Refused:
        """Of these applications; the others are gone."""
        closed = {name: count for name, count in self.closed.items() if name in names}
        return Refused(self.whose if self.whose in names else "", self.until, closed)


def counted(statistics: str, slots: Mapping[str, str], refused: Refused) -> dict[str, Answered]:
    """By application, from ``show stat`` of the front and its slots. What waits is not told: HAProxy holds nothing.

    Raises ValueError for a text that is not of that form.
    """
    answers, own = haproxy_answers(statistics), refused.now(haproxy_refused(statistics))
    found = {}
    for name, slot in slots.items():
        one = answers.get((slot, "BACKEND"), Answered(0.0, 0.0))
        found[name] = Answered(one.requests + own.get(name, 0.0), one.failed + own.get(name, 0.0))
    return found
