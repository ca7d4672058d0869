"""Which processes are ours, and ending them: what a killed Parlay leaves behind is found and removed by this.

A process is ours where it holds a file open for writing beneath a directory that a launcher made for itself. That
outlives a parent's death and needs no process id to be remembered, so a reused id can never be taken for ours.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tuner.errors import BadInput, ParlayError

PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process that cannot be mistaken for another: its id and its start, in clock ticks since boot."""

    pid: int
    start_ticks: int

    @property
    def alive(self) -> bool:
        """True while that very process runs (a zombie does not)."""
        return identify(self.pid) == self


def identify(pid: int) -> ProcessId | None:
    """The process that has ``pid`` now, or None where there is none, or a zombie without threads (proc(5), ``stat``).

    A killed process whose main thread has ended first is a zombie that still holds its sockets.
    """
    try:
        text = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
        state, *rest = text.rpartition(")")[2].split()
        ended = state in "ZX" and len(os.listdir(PROC / str(pid) / "task")) <= 1
    except OSError:
        return None
    return None if ended else ProcessId(pid, int(rest[18]))


def exit_status(process: ProcessId) -> int | None:
    """How ``process`` ended, while its parent has not asked yet (proc(5), field 52 of ``stat``); None where unknown.

    As ``subprocess`` counts: the exit status, or minus the signal that killed it.
    """
    try:
        text = (PROC / str(process.pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    state, *rest = text.rpartition(")")[2].split()
    if state not in "ZX" or int(rest[18]) != process.start_ticks:
        return None
    return os.waitstatus_to_exitcode(int(rest[48]))


def writers_under(directories: Iterable[Path]) -> tuple[ProcessId, ...]:
    """Processes, other than this one, that hold a file open for writing beneath one of ``directories``."""
    roots = tuple(f"{os.path.realpath(directory)}/" for directory in directories)
    if not roots:
        return ()
    pids = (int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit())
    found = (identify(pid) for pid in pids if pid != os.getpid() and _writes_under(pid, roots))
    return tuple(process for process in found if process is not None)


def _writes_under(pid: int, roots: tuple[str, ...]) -> bool:
    try:
        descriptors = os.listdir(PROC / str(pid) / "fd")
    except OSError:  # gone, or another user's
        return False
    for descriptor in descriptors:
        try:
            target = os.readlink(PROC / str(pid) / "fd" / descriptor)
            if target.startswith(roots) and _open_for_writing(pid, descriptor):
                return True
        except OSError:
            continue
    return False


def _open_for_writing(pid: int, descriptor: str) -> bool:
    info = (PROC / str(pid) / "fdinfo" / descriptor).read_text(encoding="ascii")
    flags = next(line for line in info.splitlines() if line.startswith("flags:"))
    return bool(int(flags.split()[1], 8) & (os.O_WRONLY | os.O_RDWR))


def group_of(leader: ProcessId) -> tuple[ProcessId, ...]:
    """The living members of the process group that ``leader`` leads or led; none where its id is another's by now."""
    members: list[ProcessId] = []
    if identify(leader.pid) not in (leader, None):
        return ()
    for entry in PROC.iterdir():
        if entry.name.isdigit() and (process := identify(int(entry.name))) is not None:
            try:
                if os.getpgid(process.pid) == leader.pid and process.start_ticks >= leader.start_ticks:
                    members.append(process)
            except ProcessLookupError:
                continue
    return tuple(members)


def end(processes: Iterable[ProcessId], *, patience_s: float) -> None:
    """Ask them to end, wait ``patience_s``, then kill what is left and wait until it is gone.

    Raises ParlayError where a process survives even that for 10 s.
    """
    left = _signal(processes, signal.SIGTERM) if patience_s > 0 else tuple(processes)
    left = _wait(left, patience_s)
    left = _wait(_signal(left, signal.SIGKILL), 10.0)
    if left:
        raise ParlayError(f"processes {', '.join(str(p.pid) for p in left)} cannot be killed")


def _signal(processes: Iterable[ProcessId], number: signal.Signals) -> tuple[ProcessId, ...]:
    alive = tuple(process for process in processes if process.alive)
    for process in alive:
        try:
            os.kill(process.pid, number)
        except ProcessLookupError:
            continue
    return alive


def _wait(processes: Iterable[ProcessId], seconds: float) -> tuple[ProcessId, ...]:
    deadline = time.perf_counter() + seconds
    left = tuple(process for process in processes if process.alive)
    while left and time.perf_counter() < deadline:
        time.sleep(0.05)
        left = tuple(process for process in left if process.alive)
    return left


class LauncherRecord:
    """What one launcher holds, in a file, so that the next run can remove it after a ``kill -9`` of this one.

    The file appears with the first entry and goes with the last, or with ``close``. ``directories`` are where only our
    processes write; ``scratch`` those that are removed with them; ``apps`` the deployments that are up.
    """

    def __init__(self, state_dir: Path, kind: str) -> None:
        owner = identify(os.getpid())
        if owner is None:
            raise ParlayError("this system has no /proc: processes of a killed run could not be told from others")
        self._owner = owner
        self._file = state_dir / f"{kind}-{owner.pid}-{owner.start_ticks}-{id(self):x}.json"
        self._entries: dict[str, list[str]] = {"apps": [], "directories": [], "scratch": []}

    def add(self, kind: str, entry: str | Path) -> None:
        """Remember an entry of ``apps``, ``directories`` or ``scratch``, durably, before what it names starts."""
        self._entries[kind].append(str(entry))
        self._write()

    def drop(self, kind: str, entry: str | Path) -> None:
        """Forget an entry that is gone."""
        if str(entry) in self._entries[kind]:
            self._entries[kind].remove(str(entry))
            if any(self._entries.values()):
                self._write()
            else:
                self.close()

    def close(self) -> None:
        """Nothing is held any more."""
        self._file.unlink(missing_ok=True)

    def _write(self) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        draft = self._file.with_suffix(".tmp")
        owner = {"pid": self._owner.pid, "start_ticks": self._owner.start_ticks}
        draft.write_text(json.dumps({"owner": owner} | self._entries), encoding="utf-8")
        os.replace(draft, self._file)


def sweep(state_dir: Path, kind: str) -> set[str]:
    """End what launchers of dead processes left, and return the names of the deployments among it."""
    swept: set[str] = set()
    for file in sorted(state_dir.glob(f"{kind}-*.json")):
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
            owner = ProcessId(int(record["owner"]["pid"]), int(record["owner"]["start_ticks"]))
            directories = [Path(path) for path in record["directories"]]
            scratch, apps = [Path(path) for path in record["scratch"]], [str(app) for app in record["apps"]]
        except (ValueError, KeyError, TypeError) as error:
            raise BadInput(str(file), str(error), "a launcher record as Parlay writes it, or no such file") from None
        if owner.alive:
            continue
        end(writers_under(directories), patience_s=0)
        for directory in scratch:
            shutil.rmtree(directory, ignore_errors=True)
        swept.update(apps)
        file.unlink(missing_ok=True)
    return swept


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def require_free_port(port: int, where: str, host: str = "127.0.0.1") -> None:
    """Raise BadInput where ``port`` is out of range or in use on ``host``."""
    if not 1 <= port <= 65535:
        raise BadInput(where, port, "a port from 1 to 65535")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise BadInput(where, port, f"a free port on {host} ({error.strerror})") from None
