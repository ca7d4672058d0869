"""Whether an account may have another study of a LayoutRequest queued. What it may spend is looked after by workers:
they pause its studies."""

from __future__ import annotations

import threading
from collections.abc import Callable

from deploy.controller.observed import QUOTA, Refused, StudySeen
from tuner.study.lifecycle import StudyState
from tuner.study.store import Store

_COUNTED = (StudyState.QUEUED, StudyState.RUNNING)


class Allowance:
    """Of a controller: its threads take what is left one after the other. Others that queue studies for the same
    account at the same moment may pass it, as in the service."""

    def __init__(self, store: Store) -> None:
        self._store, self._turn = store, threading.Lock()

    def within(self, owner: str, study: str, begin: Callable[[], StudySeen | Refused]) -> StudySeen | Refused:
        """What ``begin`` says, which queues the study; Refused where the account ``owner`` has as many as it may.

        Other studies of the same LayoutRequest, which end once this one is there, do not count.
        """
        most = self._store.quotas.of(owner).studies
        if most is None:
            return begin()
        with self._turn:
            prefix = study.rpartition(".")[0] + "."
            kin = sum(one.state in _COUNTED for one in self._store.listing.ordered(owner, prefix))
            if self._store.orders.running(owner) - kin >= most:
                return Refused(QUOTA, f"{owner} may have {most} studies that wait or run, and has as many")
            return begin()
