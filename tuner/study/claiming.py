"""One driver's claims: trials of its study, on devices that trials of other studies may hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from tuner.ask.request import Isolation, TuneRequest
from tuner.errors import reason
from tuner.study.device_leases import Blocked, DeviceLease, Sharing
from tuner.study.lease import is_gone
from tuner.study.records import OpenTrial, TrialClaim
from tuner.study.store import Store
from tuner.trial.devices import Node, Placement, Reservation
from tuner.trial.seams import Launcher
from tuner.trial.shared import node_names

Place = Callable[[Sequence[OpenTrial], Sequence[Reservation]], Placement | None]


class Claims:
    """Claims for one driver of a study; what dead drivers of others hold is cleared on the way."""

    def __init__(
        self, store: Store, launcher: Launcher, study: str, request: TuneRequest, nodes: tuple[Node, ...], driver: str
    ) -> None:
        self._store, self._launcher, self._study, self._request = store, launcher, study, request
        self._nodes, self._driver = nodes, driver
        self._sharing: Callable[[Place], Sharing] | None = None
        self._in_line = False
        self._seized: list[tuple[DeviceLease, int]] = []  # what gone drivers left, and could not be removed yet
        self._asked = False  # the launcher, for its cluster: that may have to connect first

    def claim(self, claim: TrialClaim, place: Place) -> OpenTrial | Blocked | None:
        """As ``Store.claim_trial``; Blocked where it has to wait for other studies, or for what they left.

        What cannot be removed now keeps its devices, and is tried again by the next claim; the trial may lie beside it.
        """
        store, launches = self._store, self._request.budget.launches
        if not self._asked:
            self._sharing, self._asked = self._shared(), True
        sharing = None if self._sharing is None else self._sharing(place)
        stuck = self._clear()
        while True:
            found = store.claim_trial(self._study, claim, lambda held: place(held, ()), launches, sharing)
            if not (isinstance(found, Blocked) and found.dead):
                self._in_line = isinstance(found, Blocked) or (found is None and self._in_line)
                return replace(found, stuck=stuck) if stuck and isinstance(found, Blocked) else found
            for lease in found.dead:
                token = store.devices.seize(lease, self._study, self._driver)
                if token is not None:
                    self._seized.append((lease, token))
            stuck = self._clear()

    def leave_line(self) -> None:
        """Wait for nothing more; nothing where it does not."""
        if self._in_line:
            self._store.devices.leave_line(self._driver)
            self._in_line = False

    def require(self, trial: OpenTrial) -> None:
        """Raise LeaseLost where the trial's devices were given to others."""
        if trial.lease is not None:
            self._store.devices.require(trial.app, trial.driver, trial.lease)

    def _shared(self) -> Callable[[Place], Sharing] | None:
        cluster = self._launcher.cluster
        if cluster is None:
            return None
        self._store.devices.register(cluster.id)
        order = self._store.orders.find(self._study)
        return partial(
            Sharing,
            cluster,
            self._nodes,
            node_names(self._request.groups, cluster),
            0 if order is None else order.terms.priority,
            self._request.isolation is Isolation.NODE or not cluster.deals,
            is_gone,
        )

    def _clear(self) -> tuple[str, ...]:
        """Remove what was seized, and give its devices back; why that could not be, of each that stays."""
        stuck = []
        for lease, token in tuple(self._seized):
            try:
                self._launcher.remove_orphan(lease.app)
            except Exception as error:  # whatever a cluster says: another study's remains must not end this one
                stuck.append(f"{lease.app}, which study {lease.study} left, cannot be removed: {reason(error)}")
                continue
            self._store.devices.free(lease, token)
            self._seized.remove((lease, token))
        return tuple(stuck)
