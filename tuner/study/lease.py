"""Who drives a study: an identity that other drivers can check, and the sign of life that keeps its trials its own."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from tuner.errors import StoreError

BEAT_S = 5.0
LEASE_S = 30.0  # a driver that was not seen for so long has lost its trials


def new_driver() -> str:
    """``host/process namespace/pid/start.run``: no other process, before or after, and no other run in it has the same.

    A process may drive several studies, and a study that was cancelled in it once more.
    """
    return f"{_here()}/{os.getpid()}/{_started(os.getpid())}.{uuid4().hex[:8]}"


def is_gone(driver: str, silent_s: float | None) -> bool:
    """True where a driver can no longer be at work: its process on this machine has ended, or its lease has run out.

    ``silent_s``: seconds since its last sign of life; None where it never gave one. One that has left is silent for
    ever.
    """
    if silent_s is None or silent_s > LEASE_S:
        return True
    here, pid, started = driver.rsplit("/", 2)
    return here == _here() and _started(int(pid)) != started.partition(".")[0]


def _here() -> str:
    try:
        namespace = os.readlink("/proc/self/ns/pid").strip("pid:[]")
    except OSError:
        namespace = ""
    return f"{socket.gethostname()}/{namespace}"


def _started(pid: int) -> str:
    """When a process of this machine started, in clock ticks since boot (proc(5), stat, field 22); '' where gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


class Heartbeat:
    """Gives a sign of life every few seconds, in a thread of its own, from ``start`` to ``stop``.

    A sign that the store does not take is made up for by the next.
    """

    def __init__(self, beat: Callable[[], None], every_s: float = BEAT_S) -> None:
        self._beat, self._every_s = beat, every_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begin, with a first sign of life in the calling thread."""
        self._beat()
        self._thread.start()

    def stop(self) -> None:
        """End; waits for a sign that is just being given."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(self._every_s):
            with suppress(StoreError):
                self._beat()
