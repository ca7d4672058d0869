"""vLLM's own processes below one deployment, and which of them has died, told from /proc rather than from a log.

An engine whose worker is killed while it starts does not end by itself (vLLM 0.29: its core waits for the worker for
ever, and the server for its core). So a process that was there and is gone is a death of its own.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass

from serve.launch.processes import PROC, ProcessId, exit_status, group_of

LAST_WORDS_S = 5.0  # what the processes above a dead one get to fail of it, and to say so in their logs
_TITLE = "VLLM::"  # how vLLM begins the titles of its processes: VLLM::EngineCore, VLLM::Worker_TP0


@dataclass(frozen=True, slots=True)
class Lost:
    """A process of the engine that ended; ``status`` as ``subprocess`` counts it (negative: the signal), if seen."""

    title: str
    pid: int
    status: int | None

    def __str__(self) -> str:
        """For people: ``VLLM::Worker_TP0 was killed by SIGILL``."""
        return f"{self.title} {ended_with(self.status)}"


class EngineProcesses:
    """Those that were seen, so that one that is gone is missed."""

    def __init__(self) -> None:
        self._alive: dict[ProcessId, str] = {}
        self._lost: dict[ProcessId, Lost] = {}
        self._first_lost_at: float | None = None

    def look(self, leaders: Iterable[ProcessId]) -> tuple[Lost, ...]:
        """All that died so far, in the order seen; ``leaders`` lead the process groups in which engines live."""
        for process, title in list(self._alive.items()):
            if not process.alive:
                del self._alive[process]
                self._lost[process] = Lost(title, process.pid, exit_status(process))
                self._first_lost_at = self._first_lost_at or time.perf_counter()
        for leader in leaders:
            for process in group_of(leader):
                if (title := _title(process)).startswith(_TITLE):  # workers learn their rank, and add it, in time
                    self._alive[process] = title
        return tuple(self._lost.values())

    @property
    def lost_for_long(self) -> bool:
        """True where one has been gone for so long that the processes above it will say nothing more."""
        return self._first_lost_at is not None and time.perf_counter() - self._first_lost_at >= LAST_WORDS_S


def ended_with(status: int | None) -> str:
    """An exit status in words, for a sentence whose subject is the process."""
    if status is None:
        return "ended"
    return f"was killed by {signal_name(-status)}" if status < 0 else f"ended with exit status {status}"


def signal_name(number: int) -> str:
    """``SIGILL`` for 4; ``signal 40`` where the system has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _title(process: ProcessId) -> str:
    try:
        text = (PROC / str(process.pid) / "cmdline").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return text.partition("\0")[0].strip()
