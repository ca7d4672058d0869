"""Of several controllers one works: the one that holds the Lease.

As client-go does it: a holder renews before its time is over; another takes the Lease once it has seen it unchanged
for that long by its own clock. Two that both believe to hold it do no harm, for every write says what it was based on,
and what is queued or applied twice is the same; but one is enough.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from tuner.app.controller.kube import LEASE, Kube, KubeError, Object

LEASE_S, RENEW_S, RETRY_S = 15, 5.0, 2.0


class Leader:
    """``changed`` is told in the thread of the election whenever this one begins or ends to lead."""

    def __init__(
        self,
        kube: Kube,
        namespace: str,
        name: str,
        identity: str,
        changed: Callable[[bool], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kube, self._namespace, self._name, self._identity = kube, namespace, name, identity
        self._changed, self._clock = changed, clock
        self._leading, self._stopped = False, threading.Event()
        self._seen: tuple[Any, float] = (None, 0.0)  # the Lease's spec, and when it was first seen so
        self._until = 0.0
        self._thread = threading.Thread(target=self._run, name="leader election", daemon=True)

    def start(self) -> None:
        """Stand for it."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether its thread is."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """End, and give the Lease back, so that another need not wait for it."""
        self._stopped.set()
        self._thread.join()
        was = self.leading
        self._set(False)
        if was:
            self._release()

    @property
    def leading(self) -> bool:
        """Whether it holds the Lease, and the time of it is not over."""
        return self._leading and self._clock() < self._until

    def _run(self) -> None:
        while not self._stopped.is_set():
            self.try_once()
            self._stopped.wait(RENEW_S if self._leading else RETRY_S)

    def try_once(self) -> None:
        """Take the Lease or renew it, where that may be."""
        began = self._clock()
        try:
            taken = self._take()
        except KubeError:
            taken = self._leading and self._clock() < self._until  # until its time is over, nobody else has it
            self._set(taken)
            return
        if not self.leading:
            self._set(False)  # be it that its time was over meanwhile: whoever is told knows that it begins anew
        if taken:
            self._until = began + LEASE_S
        self._set(taken)

    def _take(self) -> bool:
        found = self._kube.get(LEASE, self._namespace, self._name)
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        mine: Object = {"holderIdentity": self._identity, "leaseDurationSeconds": LEASE_S, "renewTime": now}
        try:
            if found is None:
                spec = mine | {"acquireTime": now, "leaseTransitions": 0}
                self._kube.create(LEASE, self._namespace, self._document({"name": self._name}, spec))
                return True
            spec = found.get("spec") or {}
            if spec.get("holderIdentity") != self._identity:
                if not self._free(spec):
                    return False
                mine |= {"acquireTime": now, "leaseTransitions": spec.get("leaseTransitions", 0) + 1}
            document = self._document(found["metadata"], spec | mine)
            self._kube.replace(LEASE, self._namespace, self._name, document)
        except KubeError as error:
            if error.code == 409:
                return False  # another was faster
            raise
        return True

    def _free(self, spec: Object) -> bool:
        """Whether its holder gave it back, or was seen to renew it no more."""
        if not spec.get("holderIdentity"):
            return True
        if self._seen[0] != spec:
            self._seen = (spec, self._clock())
        return self._clock() - self._seen[1] > float(spec.get("leaseDurationSeconds", LEASE_S))

    def _release(self) -> None:
        try:
            found = self._kube.get(LEASE, self._namespace, self._name)
            if found is not None and found["spec"].get("holderIdentity") == self._identity:
                spec = found["spec"] | {"holderIdentity": "", "leaseDurationSeconds": 1}
                self._kube.replace(LEASE, self._namespace, self._name, self._document(found["metadata"], spec))
        except KubeError:
            return  # another waits until its time is over

    def _document(self, meta: Object, spec: Object) -> Object:
        kept = {key: meta[key] for key in ("name", "resourceVersion") if key in meta}
        named = {"namespace": self._namespace} | kept
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": named, "spec": spec}

    def _set(self, leading: bool) -> None:
        if leading != self._leading:
            self._leading = leading
            self._changed(leading)
