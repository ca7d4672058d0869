"""The log files of one trial: kept beside its results, and read back for their last lines."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from tuner.errors import FailureReason, LaunchFailed

TAIL_BYTES = 256 * 1024
SHOWN_LINES = 20
LINES_AFTER = 2  # an exception's message can go on for a few lines
SEARCHED_LINES = 2000


def tail(files: Iterable[Path], lines: int) -> tuple[str, ...]:
    """The last ``lines`` lines over ``files``, each file's in its order, the file written last at the end."""
    written = sorted((file for file in files if _size(file)), key=lambda file: file.stat().st_mtime)
    text = [line for file in written for line in _last_lines(file)]
    return tuple(text[-lines:]) if lines > 0 else ()


_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# The line that ends a Python traceback, after what vLLM writes before each line: its process, and its log prefix.
_EXCEPTION = re.compile(r"(?:\([^)]*\) )*(?:ERROR \S+ \S+ \[[^\]]*\] )?([A-Za-z_][\w.]*(?:Error|Exception)(?:: .*)?)$")


def root_cause(lines: Sequence[str]) -> tuple[str, int] | None:
    """The exception that the log shows first, and its index; those after it are its echoes in other processes."""
    for index, line in enumerate(lines):
        if found := _EXCEPTION.match(line):
            return found[1], index
    return None


def keep(files: Iterable[Path], directory: Path) -> None:
    """Copy ``files`` into ``directory``; those that are empty or gone are left out."""
    for file in files:
        if _size(file):
            directory.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, directory / file.name)


def _last_lines(file: Path) -> list[str]:
    with file.open("rb") as stream:
        stream.seek(max(0, _size(file) - TAIL_BYTES))
        text = _COLOUR.sub("", stream.read().decode("utf-8", errors="replace"))
    return [line.rstrip() for line in text.splitlines() if line.strip() and not line.startswith(":")]


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


# vLLM reports a lack of memory as plain exceptions whose only trace beyond the engine's process is its log.
_OUT_OF_MEMORY = (
    "torch.OutOfMemoryError",
    "torch.cuda.OutOfMemoryError",
    "No available memory for the cache blocks",
    "larger than the available KV cache memory",
    "on kv cache allocation is less than requested memory for kv",
    "is less than desired GPU memory utilization",
    "is less than desired CPU memory utilization",
)


def crash(lines: Sequence[str], fallback: str) -> LaunchFailed:
    """Why an engine died before it was ready, from its log: the first exception, and the lines that lead to it."""
    reason = FailureReason.DOES_NOT_FIT if tells_of_no_memory(lines) else FailureReason.ENGINE_CRASHED
    cause = root_cause(lines)
    if cause is None:
        return LaunchFailed(reason, fallback, tuple(lines[-SHOWN_LINES:]))
    text, index = cause
    return LaunchFailed(reason, text, tuple(lines[: index + 1 + LINES_AFTER][-SHOWN_LINES:]))


def tells_of_no_memory(lines: Iterable[str]) -> bool:
    """True where the engine's log (vLLM 0.29) says that weights or KV cache did not fit."""
    return any(sign in line for line in lines for sign in _OUT_OF_MEMORY)
