"""Which processes led the replicas of each application, in a file: whoever takes over a watched study while one of them
ends knows what to look for once it is gone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from deploy.rollout.kept_files import kept_object, put
from serve.launch.processes import ProcessId

Known = dict[str, tuple[ProcessId, ...]]
_FILE = "leaders.json"


class Leaders:
    """Those of one watched study, in ``folder``; only processes of this machine."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / _FILE
        self.known = self._read()

    def keep(self, seen: Mapping[str, tuple[ProcessId, ...]]) -> None:
        """Add those of applications that are there; written where there are others than before."""
        known = dict(self.known)
        for name, found in seen.items():
            if added := {*known.get(name, ()), *found}:
                known[name] = tuple(sorted(added, key=lambda one: (one.start_ticks, one.pid)))
        if known != self.known:
            self._write(known)

    def forget(self, name: str) -> None:
        """Its processes have ended."""
        if name in self.known:
            self._write({one: found for one, found in self.known.items() if one != name})

    def _write(self, known: Known) -> None:
        document = {name: [[one.pid, one.start_ticks] for one in found] for name, found in known.items()}
        put(self._file, json.dumps(document))
        self.known = known

    def _read(self) -> Known:
        found = kept_object(self._file)
        return {name: tuple(ProcessId(*one) for one in processes) for name, processes in found.items()}
