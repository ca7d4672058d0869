"""What a bench tells the engine behind a path while it runs, and hears of it: two files, named by the environment.

Step time and streaming interval are read from the file ``CONTROL`` at each request, so that points which differ in
them need no new deployment. ``LOG`` gets a line for each request: when its first token was made (seconds of the epoch),
and milliseconds from its arrival at the engine until then. Ray reads its flags where it is imported: this file does
not import it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

CONTROL = "PARLAY_FRONT_CONTROL"
LOG = "PARLAY_FRONT_LOG"


class Control:
    """What the points of a series differ in, as the file says it now."""

    def __init__(self) -> None:
        self._file = Path(os.environ[CONTROL])
        self._read_ns = 0
        self.values: dict[str, float] = {}

    def read(self) -> dict[str, float]:
        """The values; the file is parsed where it changed."""
        changed_ns = self._file.stat().st_mtime_ns
        if changed_ns != self._read_ns:
            self.values, self._read_ns = json.loads(self._file.read_text(encoding="utf-8")), changed_ns
        return self.values
