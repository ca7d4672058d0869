"""How a worker's study hears what is wished of it, and how the queue hears that its worker lives."""

from __future__ import annotations

import threading
from contextlib import suppress
from types import TracebackType

from tuner.errors import Cause, StoreError
from tuner.plan.prune import Plan
from tuner.study.lease import Heartbeat
from tuner.study.observer import Observer
from tuner.study.orders import Orders, Wish
from tuner.trial.cancel import CancelHandle
from tuner.trial.results import TrialResult

LOOK_S = 0.5
_CAUSES = {Wish.PAUSE: Cause.PAUSE, Wish.CANCEL: Cause.OPERATOR}


class Obedience(Observer):
    """Sets a study's handle where somebody wishes its end, the worker is told to end, or another worker has it.

    The last is so where this one was taken for dead: it was stopped, or could not reach the store, for longer than its
    lease. Nothing is set before the study was planned, for by then, what a killed driver left of it is gone. Signs of
    life are given from the beginning of the block to its end.
    """

    def __init__(self, orders: Orders, study: str, worker: str, stop: CancelHandle, cancel: CancelHandle) -> None:
        self._orders, self._study, self._worker = orders, study, worker
        self._stop, self._cancel = stop, cancel
        self._over, self._planned = threading.Event(), threading.Event()
        self._alive = Heartbeat(self.keep)
        self._watching = threading.Thread(target=self._watch, name=f"wishes of {study}", daemon=True)

    def __enter__(self) -> Obedience:
        self._alive.start()
        self._watching.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._watching.join()
        self._alive.stop()

    def keep(self) -> None:
        """A sign of life."""
        self._orders.keep(self._study, self._worker)

    def planned(self, plan: Plan) -> None:
        """Look before the first launch: a worker that died may have left a wish undone."""
        self._look()
        self._planned.set()

    def trial_finished(self, result: TrialResult) -> None:
        """Those who died before are forgiven."""
        with suppress(StoreError):  # the next trial makes up for it
            self._orders.progressed(self._study, self._worker)

    def _watch(self) -> None:
        while not self._over.wait(LOOK_S) and self._cancel.cause is None:
            if self._planned.is_set():
                self._look()

    def _look(self) -> None:
        if self._stop.cause is not None:
            self._cancel.cancel(Cause.HANDOVER, "the worker ends, another goes on")
            return
        try:
            order = self._orders.find(self._study)
        except StoreError:
            return  # the next look makes up for it
        if order is None or order.worker != self._worker:
            self._cancel.cancel(Cause.HANDOVER, "another worker has taken it over")
        elif order.wish is not None:
            self._cancel.cancel(_CAUSES[order.wish], "asked for over the service")
