"""Follows a start by the launcher's own clock: what the engine is busy with now, and how long each phase took.

Times are seconds since the order. An engine whose log cannot be read from here (on another node) is timed as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from serve.launch.start_log import LogLine, Mark, engine_start, marks, stage
from tuner.trial.start_up import StartPhase, StartUp


class StartClock:
    """One start, told of what happens when it happens; whatever it is not told stays unknown, and part of the rest."""

    def __init__(self) -> None:
        self.session_s: float | None = None  # when Ray and Serve were there
        self._process_s: float | None = None
        self._engine_s: float | None = None
        self._listed_s: float | None = None
        self._read: dict[Path, int] = {}
        self._marks: list[Mark] = []

    def process_seen(self, at_s: float) -> None:
        """The engine has a process; the first time counts."""
        self._process_s = at_s if self._process_s is None else self._process_s

    def engine_seen(self, at_s: float) -> None:
        """All engines are said to be up; the first time counts, and only where their logs do not tell."""
        self._engine_s = at_s if self._engine_s is None else self._engine_s

    def listed(self, at_s: float) -> None:
        """The endpoint names its model; the first time counts."""
        self._listed_s = at_s if self._listed_s is None else self._listed_s

    def read(self, files: Iterable[Path], at_s: float) -> None:
        """Take in what has been written to logs since the last time."""
        for file in files:
            text, self._read[file] = _written_since(file, self._read.get(file, 0))
            self._marks += marks(LogLine(at_s, line) for line in text.splitlines())

    @property
    def doing(self) -> tuple[StartPhase, float]:
        """What the engine is busy with, and since when."""
        if (found := stage(self._marks)) is not None:
            return found
        if self._process_s is None:
            return StartPhase.SCHEDULING, self.session_s or 0.0
        return StartPhase.IMPORTS, self._process_s

    def start_up(self, ready_s: float) -> StartUp:
        """All phases, of a start whose answers came ``ready_s`` after the order."""
        engine = engine_start(self._marks)
        engine_s = self._engine_s if engine.ready_at_s is None else engine.ready_at_s
        between = (
            (StartPhase.SESSION, 0.0, self.session_s),
            (StartPhase.SCHEDULING, self.session_s or 0.0, self._process_s),
            (StartPhase.IMPORTS, self._process_s, engine.loads_at_s),
            (StartPhase.FRONT, engine_s, self._listed_s),
            (StartPhase.FIRST_ANSWER, self._listed_s, ready_s),
        )
        found = {phase: max(0.0, end - start) for phase, start, end in between if start is not None and end is not None}
        found |= engine.phases_s
        rest_s = ready_s - sum(found.values())
        return StartUp(found | {StartPhase.OTHER: max(0.0, rest_s)}, engine.compiled_anew)


def _written_since(file: Path, offset: int) -> tuple[str, int]:
    """The whole lines of a file from ``offset`` on, and where they end."""
    try:
        with file.open("rb") as stream:
            stream.seek(offset)
            written = stream.read()
    except OSError:
        return "", offset
    whole = max(written.rfind(b"\n"), written.rfind(b"\r")) + 1
    return written[:whole].decode("utf-8", errors="replace"), offset + whole
