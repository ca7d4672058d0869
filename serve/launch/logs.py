"""The log files of one trial: kept beside its results, and read back for their last lines."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

TAIL_BYTES = 256 * 1024
SHOWN_LINES = 20
SEARCHED_LINES = 2000


def tail(files: Iterable[Path], lines: int) -> tuple[str, ...]:
    """The last ``lines`` lines over ``files``, each file's in its order, the file written last at the end."""
    written = sorted((file for file in files if _size(file)), key=lambda file: file.stat().st_mtime)
    text = [line for file in written for line in _last_lines(file)]
    return tuple(text[-lines:]) if lines > 0 else ()


_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def show(files: Iterable[Path], directory: Path) -> None:
    """Have ``directory`` show ``files`` while they are written elsewhere, by links, until they are kept."""
    for file in files:
        with suppress(OSError):  # it is there already, or cannot be: no launch ends for its logs
            directory.mkdir(parents=True, exist_ok=True)
            (directory / file.name).symlink_to(file)


def keep(files: Iterable[Path], directory: Path) -> None:
    """Copy ``files`` into ``directory``, in place of links to them; those that are empty or gone are left out."""
    if directory.is_dir():
        for link in (path for path in directory.iterdir() if path.is_symlink()):
            link.unlink()
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
