"""An API server that is asked again, where it did not answer or was too busy."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from tuner.app.controller.kube import Kind, Kube, KubeError, Object

AGAIN_S = (0.2, 0.5, 1.5)
_NOT_FOUND = 404
_BUSY = (0, 401, 408, 429)  # and all from 500 on; a token that is over is read anew
Found = TypeVar("Found")


class Retried:
    """Those calls of a ``Kube`` that may be made twice. Raises KubeError like it, the last time."""

    def __init__(self, kube: Kube, wait: Callable[[float], None] = time.sleep) -> None:
        self._kube, self._wait = kube, wait

    def list(self, kind: Kind, namespace: str) -> list[Object]:
        """All of a kind."""
        return self._again(lambda: self._kube.list(kind, namespace)[0])

    def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """One, or None."""
        return self._again(lambda: self._kube.get(kind, namespace, name))

    def apply(self, kind: Kind, document: Object) -> Object:
        """Server-side apply, never by force."""
        meta = document["metadata"]
        return self._again(lambda: self._kube.apply(kind, meta["namespace"], meta["name"], document))

    def remove(self, kind: Kind, found: Object) -> None:
        """Delete that one, if it is still there."""
        meta = found["metadata"]
        try:
            self._again(lambda: self._kube.remove(kind, meta["namespace"], meta["name"], meta["uid"]))
        except KubeError as error:
            if error.code != _NOT_FOUND:
                raise

    def _again(self, call: Callable[[], Found]) -> Found:
        for wait_s in AGAIN_S:
            try:
                return call()
            except KubeError as error:
                if error.code not in _BUSY and error.code < 500:
                    raise
            self._wait(wait_s)
        return call()
