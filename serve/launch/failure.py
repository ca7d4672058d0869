"""Why an engine died: the root exception of its log, and the reason for which that stands. One rule for every launcher.

vLLM 0.29 is a tree of processes: a server (or Ray Serve's replica), an engine core below it, workers below that. One
fails, and each above it fails because of that, in words of its own. So the cause is what the topmost process failed of
at last, unless that only passes on what happened below (``_ECHOES``); then it is looked for one floor below. What
somebody caught and logged on the way is not the last of its process. A signal that killed one of them needs no search.
"""

from __future__ import annotations

import ast
import re
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from serve.launch.engine_processes import Lost, ended_with
from serve.launch.logs import SHOWN_LINES
from tuner.errors import FailureReason, LaunchFailed

LINES_AFTER = 2  # an exception's message can go on for a few lines
LONGEST_TEXT = 400  # characters

_TAG = re.compile(r"\((\w+) pid=\d+[^)]*\) ?")
_LOGGED = re.compile(r"(?:ERROR|CRITICAL) \d\d-\d\d \d\d:\d\d:\d\d \[[^\]]*\] ?")
_HEADER = "Traceback (most recent call last):"
_RAISED = re.compile(r"([A-Za-z_][\w.]*)(?:: (.*))?")
_BECAUSE = "The above exception was the direct cause of the following exception:"
_MEANWHILE = "During handling of the above exception, another exception occurred:"
_QUESTIONS = {"AttributeError", "IndexError", "KeyError", "StopIteration"}  # how Python code asks, and then answers

_WORKER_DIED = re.compile(r"Worker proc (\S+) died unexpectedly \(exit code: (-?\d+|None)\)")
_CORES_DIED = re.compile(r"Failed core proc\(s\): (\{[^}]*\})")
_SIGNAL_CAUGHT = re.compile(r"\*\*\* (SIG[A-Z]+) received at time=")  # Ray's handler, in processes that Ray started
# Python's faulthandler, which engines run with.
_FATAL = re.compile(r"Fatal Python error: (Illegal instruction|Segmentation fault|Aborted|Bus error|Floating point .*)")
_FATAL_SIGNALS = {
    "I": "SIGILL",
    "S": "SIGSEGV",
    "A": "SIGABRT",
    "B": "SIGBUS",
    "F": "SIGFPE",
}  # by faulthandler's words

_ASKED_TO_END = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # which others send them, because they end

_SERVER, _CORE, _WORKER = range(3)  # floors, from the top

# What processes raise because another one failed: the exception's type, and how its message begins.
_ECHOES = (
    ("RuntimeError", "Engine core initialization failed."),
    ("RuntimeError", "Executor failed."),
    ("RuntimeError", "Worker failed with error"),
    ("RuntimeError", "cancelled"),
    ("Exception", "WorkerProc initialization failed due to an exception in a background process."),
    ("EngineDeadError", ""),
    ("BrokenPipeError", ""),
    ("ConnectionResetError", ""),
    ("EOFError", ""),
)
# vLLM reports most lacks of memory as plain exceptions, which only their messages tell from others.
_NO_MEMORY = (
    ("OutOfMemoryError", ""),  # torch's
    ("ValueError", "No available memory for the cache blocks"),
    ("ValueError", "larger than the available KV cache memory"),
    ("ValueError", "on kv cache allocation is less than requested memory for kv"),
    ("ValueError", "is less than desired GPU memory utilization"),
    ("ValueError", "is less than desired CPU memory utilization"),
    ("RuntimeError", "DefaultCPUAllocator: can't allocate memory"),
)


@dataclass(frozen=True, slots=True)
class Failure:
    """What one process failed of, as a log tells it; ``line`` counts from 0, the topmost process has no name.

    ``type`` is that of the exception, None for a process that another one saw end: by a signal, where ``killed``.
    """

    process: str
    floor: int
    type: str | None
    message: str
    line: int
    killed: bool = False

    @property
    def text(self) -> str:
        """For people: the exception as Python prints it, or which process was killed by which signal."""
        text = self.message if self.type is None else f"{self.type}: {self.message}".removesuffix(": ")
        return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]} …"

    @property
    def reason(self) -> FailureReason:
        """The reason for which an exception of this type and message stands."""
        no_memory = any(self._is(kind) and sign in self.message for kind, sign in _NO_MEMORY)
        return FailureReason.DOES_NOT_FIT if no_memory else FailureReason.ENGINE_CRASHED

    @property
    def is_echo(self) -> bool:
        """True where it says no more than that another process failed."""
        return (self.type is None and not self.killed) or any(
            self._is(kind) and self.message.startswith(start) for kind, start in _ECHOES
        )

    def _is(self, kind: str) -> bool:
        return self.type is not None and self.type.rpartition(".")[2] == kind


def crash(lines: Sequence[str], fallback: str, *, status: int | None = None, lost: Sequence[Lost] = ()) -> LaunchFailed:
    """Why an engine died before it was ready, and the log lines that lead to it.

    ``status`` is that of the topmost process where it has ended, ``lost`` are the processes below it that died: a
    signal that they show is certain, so it goes before the log, and the log's root exception before ``fallback``.
    """
    crashed, end = FailureReason.ENGINE_CRASHED, tuple(lines[-SHOWN_LINES:])
    if status is not None and status < 0:
        return LaunchFailed(crashed, f"the server {ended_with(status)}", end)
    cause = root_cause(lines)
    shown = end if cause is None else tuple(lines[: cause.line + 1 + LINES_AFTER][-SHOWN_LINES:])
    if killed := next((process for process in lost if _killed(process, cause)), None):
        return LaunchFailed(crashed, str(killed), shown)
    if cause is not None and not cause.is_echo:
        return LaunchFailed(cause.reason, cause.text, shown)
    gone = next((str(process) for process in lost), None)
    return LaunchFailed(crashed, gone or (fallback if cause is None else cause.text), shown)


def _killed(lost: Lost, cause: Failure | None) -> bool:
    """Whether a signal ended a process that was not asked to end. A server whose engine broke kills what is left of it:
    SIGKILL says nothing where the log knows of another signal."""
    number = -(lost.status or 0)
    known = cause is not None and cause.killed and number == signal.SIGKILL
    return number > 0 and number not in _ASKED_TO_END and not known


def replica_died(what: str, lines: Sequence[str]) -> tuple[FailureReason, str]:
    """A deployment that was ready and is not any more: ``what`` was seen of that, and the cause that its log tells."""
    cause = root_cause(lines)
    nothing_new = cause is None or cause.is_echo or (cause.killed and "was killed by" in what)
    return FailureReason.REPLICA_DIED, what if cause is None or nothing_new else f"{what}; {cause.text}"


def root_cause(lines: Sequence[str]) -> Failure | None:
    """The failure from which all others in the log follow; an echo where the log holds nothing better, or None."""
    failures = tuple(_failures(lines))
    if killed := next((failure for failure in failures if failure.killed), None):
        return killed  # what breaks above it then has many names
    for floor in (_SERVER, _CORE, _WORKER):
        last = {failure.process: failure for failure in failures if failure.floor == floor}
        if told := [failure for failure in last.values() if not failure.is_echo]:
            return min(told, key=lambda failure: failure.line)
    deaths = (failure for failure in failures if failure.type is None)
    top = min((failure.floor for failure in failures), default=_SERVER)
    return next(deaths, None) or next((failure for failure in reversed(failures) if failure.floor == top), None)


def _failures(lines: Sequence[str]) -> Iterator[Failure]:
    """Tracebacks and deaths, in the order of the lines where each ends."""
    open_blocks: dict[str, _Traceback] = {}
    for index, line in enumerate(lines):
        process, text = _split(line)
        yield from _deaths(text, index)
        block = open_blocks.setdefault(process, _Traceback(process))
        if (failure := block.read(text, index)) is not None:
            yield _whole(failure, lines)


def _whole(failure: Failure, lines: Sequence[str]) -> Failure:
    """With the second line of a message of pydantic's, whose first only counts the errors."""
    if not (failure.type or "").endswith("ValidationError") or failure.line + 1 >= len(lines):
        return failure
    return replace(failure, message=f"{failure.message}: {_split(lines[failure.line + 1])[1].strip()}")


class _Traceback:
    """Follows the tracebacks of one process, each from its header to the exception at its end."""

    def __init__(self, process: str) -> None:
        self._process, self._floor = process, _floor(process)
        self._inside = self._because = self._meanwhile = False
        self._last: Failure | None = None

    def read(self, text: str, index: int) -> Failure | None:
        """The root exception of the chain so far, when a line ends a traceback."""
        if text.strip() == _HEADER:
            self._inside = True
        elif text.strip() in (_BECAUSE, _MEANWHILE):
            self._because, self._meanwhile = text.strip() == _BECAUSE, text.strip() == _MEANWHILE
        elif self._inside and text and not text[0].isspace() and (found := _RAISED.fullmatch(text)):
            self._inside = False
            self._last = self._root(Failure(self._process, self._floor, found[1], found[2] or "", index))
            self._because = self._meanwhile = False
            return self._last
        return None

    def _root(self, raised: Failure) -> Failure:
        """Of two exceptions in a chain, the first, unless it was but a question that the second answers."""
        if self._last is None or not (self._because or self._meanwhile):
            return raised
        asked = self._meanwhile and self._last.type in _QUESTIONS
        return raised if asked else replace(self._last, line=raised.line)


def _deaths(text: str, index: int) -> Iterator[Failure]:
    """Processes that a line says have died."""
    if found := _WORKER_DIED.search(text):
        yield _death(_WORKER, found[1], None if found[2] == "None" else int(found[2]), index)
    if found := _CORES_DIED.search(text):
        for name, status in ast.literal_eval(found[1]).items():
            yield _death(_CORE, str(name), status, index)
    if (found := _SIGNAL_CAUGHT.match(text)) and found[1] not in {number.name for number in _ASKED_TO_END}:
        yield _caught(found[1], index)
    if found := _FATAL.match(text):
        yield _caught(_FATAL_SIGNALS[found[1][0]], index)


def _caught(name: str, index: int) -> Failure:
    return Failure("", _WORKER, None, f"a process of the engine was killed by {name}", index, killed=True)


def _death(floor: int, name: str, status: int | None, index: int) -> Failure:
    killed = status is not None and status < 0 and -status not in _ASKED_TO_END
    return Failure(name, floor, None, f"{name} {ended_with(status)}", index, killed)


def _split(line: str) -> tuple[str, str]:
    """The process that wrote a line, by the tags before it, and the text without what its logger put before it."""
    process = ""
    while found := _TAG.match(line):
        process, line = found[1], line[found.end() :]
    if found := _LOGGED.match(line):
        line = line[found.end() :]
    return "" if _floor(process) == _SERVER else process, line


def _floor(process: str) -> int:
    if process.startswith(("Worker", "RayWorker")):
        return _WORKER
    return _CORE if process.startswith("EngineCore") else _SERVER
