"""The logs of trials: the end of their files as one text, and an observer that keeps it in the store."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from tuner.ask.scrub import scrubbed
from tuner.errors import StoreError
from tuner.search.proposal import Proposal
from tuner.study.logs import MOST_BYTES, Logs
from tuner.study.observer import Observer
from tuner.trial.results import TrialResult

KEEP_S = 10.0  # how often the log of a trial that runs is kept
_READ_BYTES = 2_000_000  # of one file: a log may be longer than memory
_LINES = 400
_SUFFIXES = (".log", ".out", ".err")  # of files that launchers leave: a server's own, and those of Ray's workers


def folder_of(logs: Path, trial: int) -> Path:
    """Where a trial's logs are, beneath its study's."""
    return logs / f"trial-{trial:03d}"


def log_text(folder: Path, lines: int, most_bytes: int = _READ_BYTES) -> str | None:
    """The last lines of each of a trial's log files, without secrets; None where it has none here.

    Each has its part of ``most_bytes``.
    """
    found = folder.rglob("*") if folder.is_dir() else ()
    files = sorted(path for path in found if path.suffix in _SUFFIXES and path.is_file())  # no link to what has gone
    if not files:
        return None
    part = max(most_bytes // len(files), 1)
    return "\n".join(f"==> {path.relative_to(folder)} <==\n{scrubbed(_end(path, lines, part))}" for path in files)


class LogKeeper(Observer):
    """Keeps the end of each trial's logs in the store, while it runs and when it has ended; used as a context."""

    def __init__(self, store_logs: Logs, study: str, folder: Path) -> None:
        """``folder`` is that of the study's logs."""
        self._logs, self._study, self._folder = store_logs, study, folder
        self._open: set[int] = set()
        self._kept: dict[int, str] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"logs of {study}", daemon=True)

    def __enter__(self) -> LogKeeper:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()

    def trial_started(self, number: int, launches: int, proposal: Proposal) -> None:
        """Its log is looked at from here on."""
        self._kept.pop(number, None)
        self._open.add(number)

    def trial_finished(self, result: TrialResult) -> None:
        """For the last time."""
        self._open.discard(result.number)
        self._keep(result.number)

    def _run(self) -> None:
        while not self._over.wait(KEEP_S):
            running: Sequence[int] = sorted(self._open)
            for number in running:
                self._keep(number)

    def _keep(self, number: int) -> None:
        with suppress(StoreError, OSError):  # the next time makes up for it; the files are there
            text = log_text(folder_of(self._folder, number), _LINES, MOST_BYTES)
            if text is not None and text != self._kept.get(number):
                self._logs.keep(self._study, number, text)
                self._kept[number] = text


def _end(path: Path, lines: int, most_bytes: int) -> str:
    """The last lines of a file, of its last bytes; whole ones, as half a secret is not known as one."""
    with path.open("rb") as file:
        before = max(0, path.stat().st_size - most_bytes)
        file.seek(before)
        last = file.read(most_bytes).decode("utf-8", errors="replace")
    last = (last.partition("\n")[2] or last) if before else last
    return "".join(last.splitlines(keepends=True)[-lines:])
