"""The studies of LayoutRequests, as the controller sees them in the store, and what it does with them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

import yaml

from deploy.controller.asking import Order
from deploy.controller.observed import OPEN, Document, Refused, StudySeen, Verdict, WatchedSeen
from deploy.specs.rayservice import Platform
from tuner.app.controller.allowance import Allowance
from tuner.app.controller.kuberay_place import KubeSite
from tuner.app.controller.together import Together
from tuner.app.controller.watched_studies import let, watched_of
from tuner.app.wiring import shipment
from tuner.decide.decision import Decision
from tuner.errors import BadInput, ParlayError, StoreError
from tuner.rehearse.conditions import simulated_seed
from tuner.retune.policy import RetunePolicy
from tuner.study.lease import is_gone
from tuner.study.lifecycle import StudyState
from tuner.study.listing import OrderedStudy
from tuner.study.orders import Wish
from tuner.study.records import StudyRecord
from tuner.study.store import Store
from tuner.trial.results import TrialResult

_REHEARSED = "Rehearsed on a simulated cluster: no engine ever ran this"
RECENT_S = 60.0  # a study may begin and end between two looks
_KEPT = 1000  # verdicts in memory


class Studies:
    """Reads and steers them; any thread may."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._verdicts: dict[tuple[str, int, str], Verdict] = {}
        self._submit = Together(store.orders.submit_all)
        self._allowance = Allowance(store)

    def of(self, prefix: str, owner: str, order: Order | None) -> tuple[StudySeen | None, tuple[StudySeen, ...]]:
        """The study of an order, and all others of the prefix that are open or pinned."""
        found = {one.name: one for one in self._store.listing.ordered(owner, prefix)}
        mine = found.pop(order.asked.study, None) if order is not None else None
        others = tuple(_plain(one) for one in found.values() if one.state in OPEN or one.pinned)
        return None if mine is None or order is None else self._whole(mine, order), others

    def submit(self, order: Order) -> StudySeen | Refused:
        """Queue it; Refused where the store will not have it, or a quota."""
        return self._allowance.within(order.terms.owner, order.asked.study, lambda: self._queue(order))

    def _queue(self, order: Order) -> StudySeen | Refused:
        study = order.asked.study
        if (problem := self._submit((study, order.request, order.terms))) is not None:
            return Refused("NotQueued", str(problem))
        return StudySeen(study, StudyState.QUEUED, cluster=order.terms.cluster)

    def resume(self, study: StudySeen, owner: str) -> StudySeen | Refused:
        """Queue it again; Refused where it is not in a state for that, or a quota of the owner's will not have it."""

        def begin() -> StudySeen | Refused:
            try:
                return replace(study, state=self._store.orders.resume(study.name), wish=None)
            except BadInput as error:
                return Refused("NotResumed", str(error))

        return self._allowance.within(owner, study.name, begin)

    def cancel(self, study: StudySeen) -> StudySeen:
        """Ask for its end; one that has ended since is left as it is."""
        try:
            state = self._store.orders.ask(study.name, Wish.CANCEL)
        except BadInput:
            state = self._store.listing.state(study.name) or StudyState.CANCELLED
        return replace(study, state=state, wish=Wish.CANCEL)

    def keep(self, study: StudySeen) -> StudySeen:
        """Pin it; one that is gone since is seen so at the next look."""
        with suppress(BadInput):
            self._store.archive.pin(study.name)
        return replace(study, pinned=True)

    def end_orphan(self, study: StudySeen) -> StudySeen | Refused:
        """End one whose worker went with its cluster; Refused until its lease is over."""
        if not self._store.orders.end_orphan(study.name, is_gone):
            return Refused("NotGone", "its worker may live")
        return replace(study, state=self._store.listing.state(study.name) or StudyState.CANCELLED, wish=None)

    def let(self, study: StudySeen) -> StudySeen:
        """Unpin it."""
        self._store.archive.unpin(study.name)
        return replace(study, pinned=False)

    def watched(self, prefix: str) -> tuple[WatchedSeen, ...]:
        """Those of the prefix that are watched."""
        return watched_of(self._store, prefix)

    def watch(self, study: StudySeen, policy: RetunePolicy, site: dict[str, Any]) -> tuple[WatchedSeen, ...] | Refused:
        """Have one watched; all of its LayoutRequest that are. Refused where it is watched in another place."""
        try:
            self._store.watched.watch(study.name, policy, KubeSite.model_validate(site).kept())
        except BadInput as error:
            return Refused("NotWatched", str(error))
        return self.watched(study.name.rpartition(".")[0] + ".")

    def unwatch(self, name: str) -> None:
        """Watch it no more; what serves is left to who took it over, or to whoever removes it."""
        let(self._store, name)

    def _whole(self, seen: OrderedStudy, order: Order) -> StudySeen:
        last = self._store.events.last(seen.name, "best_so_far")
        told: dict[str, Any] = {} if last is None else json.loads(last.data)
        decided = seen.state is StudyState.DECIDED
        verdict = self._verdict(seen, order.platform) if decided else None
        spent: Document | None = None if (used := told.get("spent")) is None else _spent(used)
        best = told.get("layout")
        if verdict is not None:
            best, spent = verdict.layout or best, verdict.spent
        return replace(_plain(seen), best=best, spent=spent, verdict=verdict, frees_s=self._frees_s(seen, order))

    def _frees_s(self, seen: OrderedStudy, order: Order) -> float | None:
        """Of a study that a quota holds, when that is free again. Nobody else leaves a paused one with a problem."""
        if seen.state is not StudyState.PAUSED or seen.problem is None:
            return None
        frees_at = self._store.quotas.standing(order.terms.owner).frees_at
        return 0.0 if frees_at is None else max(0.0, frees_at - time.time())

    def _verdict(self, seen: OrderedStudy, platform: Platform) -> Verdict | None:
        kept = (seen.name, seen.last_event, repr(platform))
        with self._lock:
            if (known := self._verdicts.get(kept)) is not None:
                return known
        record = self._store.study(seen.name)
        decision = self._store.decision(seen.name)
        if decision is None:
            return None
        found = verdict_of(record, decision, platform)
        with self._lock:
            if len(self._verdicts) >= _KEPT:
                self._verdicts.clear()
            self._verdicts[kept] = found
        return found


class StudyWatch:
    """Looks at the store every ``every_s``, and tells ``changed`` the names of studies to which something happened."""

    def __init__(self, store: Store, owners: str, changed: Callable[[set[str]], None], every_s: float = 1.0) -> None:
        self._store, self._owners, self._changed, self._every_s = store, owners, changed, every_s
        self._stopped = threading.Event()
        self._known: dict[str, OrderedStudy] = {}
        self._thread = threading.Thread(target=self._run, name="studies", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether its thread is."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """End."""
        self._stopped.set()
        self._thread.join()

    def look(self) -> None:
        """Once."""
        now = {one.name: one for one in self._store.listing.ordered(self._owners, since_s=RECENT_S)}
        before, self._known = self._known, now
        changed = {name for name in now.keys() | before.keys() if now.get(name) != before.get(name)}
        # Whoever queued a study has told of it: of many at once, all would be looked at again for nothing.
        changed -= {name for name in changed - before.keys() if now[name].last_event <= 1}
        if changed:
            self._changed(changed)

    def _run(self) -> None:
        while not self._stopped.wait(self._every_s):
            try:
                self.look()
            except StoreError:
                continue  # the next look makes up for it


def verdict_of(record: StudyRecord, decision: Decision, platform: Platform) -> Verdict:
    """A decision as the controller needs it, with the winner's manifest."""
    spent = _spent(asdict(decision.spent))
    if decision.winner is None:
        return Verdict(None, None, None, decision.why, decision.remedy, None, spent)
    winner = decision.winner
    price = decision.standings[0].usd_per_hour if decision.standings else None
    try:
        manifest: dict[str, Any] | Refused = manifest_of(record, winner, platform)
    except ParlayError as error:
        manifest = Refused("NoManifest", str(error))
    layout, gpus = str(winner.deployment), winner.deployment.devices
    return Verdict(layout, gpus, price, decision.why, decision.remedy, manifest, spent)


def manifest_of(record: StudyRecord, winner: TrialResult, platform: Platform) -> dict[str, Any]:
    """The winner's RayService. Of a simulated cluster it is what would be launched, and says so."""
    from deploy.specs.writing import emit

    if simulated_seed(record.facts) is None:
        found: dict[str, Any] = yaml.safe_load(emit("rayservice", shipment(record, winner), platform))
        return found
    found = yaml.safe_load(emit("rayservice", shipment(record, replace(winner, launched=None)), platform))
    found["metadata"]["annotations"]["parlay/origin"] = _REHEARSED
    return found


def _plain(seen: OrderedStudy) -> StudySeen:
    return StudySeen(seen.name, seen.state, seen.wish, seen.problem, pinned=seen.pinned, cluster=seen.cluster)


def _spent(told: dict[str, Any]) -> dict[str, Any]:
    named = {"launches": "launches", "minutes": "minutes", "gpuHours": "gpu_hours", "usd": "usd"}
    return {key: round(value, 3) for key, name in named.items() if (value := told.get(name)) is not None}
