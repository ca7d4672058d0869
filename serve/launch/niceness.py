"""Who comes first on a machine that the load generator shares with engines: said with a study's facts.

Ray runs its workers, and so engines, at niceness 15 by default (``worker_niceness``, set by RAY_worker_niceness where a
node is started); the load generator runs at this process's, mostly 0. On a shared machine the client would then be
served before the engine that it measures, so a Ray of our own runs its workers as nice as this process. On somebody
else's nodes that cannot be changed, only told.
"""

from __future__ import annotations

import os
from pathlib import Path

from serve.launch.processes import PROC

VARIABLE = "RAY_worker_niceness"
FACT = "niceness"
RAY_DEFAULT = 15


def own_ray() -> dict[str, str]:
    """The environment in which a Ray of our own is started: its workers add nothing to this process's niceness."""
    return {VARIABLE: "0"}


def told(launcher: str, ray_address: str | None, proc: Path = PROC) -> str:
    """The fact for one run: this process's niceness, and the engines' where they share its machine.

    ``launcher`` and ``ray_address`` are those of the command line.
    """
    own = os.getpriority(os.PRIO_PROCESS, 0)
    if launcher != "ray" or ray_address is None:
        return f"{own}, engines as the load generator"
    found = _of_nodes_here(proc)
    if not found:
        return f"{own}, engines on other machines"
    engines = ", ".join(str(niceness) for niceness in sorted(found))
    first = "; the load generator comes first" if max(found) > own else ""
    return f"{own}, engines of the Ray node on this machine {engines}{first}"


def _of_nodes_here(proc: Path) -> set[int]:
    """What the Ray nodes of this machine give their workers, told from the raylets' environments."""
    found = set()
    for entry in proc.iterdir():
        if entry.name.isdigit() and _read(entry / "comm").strip() == "raylet":
            variables = dict(pair.partition("=")[::2] for pair in _read(entry / "environ").split("\0"))
            found.add(int(variables.get(VARIABLE, RAY_DEFAULT)))
    return found


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:  # gone, or another user's
        return ""
