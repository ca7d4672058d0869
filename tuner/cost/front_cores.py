"""How much longer the loops of a path take where they share a node's cores with each other, and with engines."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def erlang_c(cores: float, busy: ArrayLike) -> Floats:
    """Probability that a job finds all ``cores`` busy, where ``busy`` of them are on average: 1 from ``cores`` on
    (Erlang 1917; Kleinrock, Queueing Systems I, 1975, section 3.5). Cores are rounded down, to at least one."""
    servers = max(int(cores), 1)
    load = np.clip(np.asarray(busy, dtype=float), 0.0, servers)
    blocked = np.ones_like(load)  # Erlang B, by its recursion over the servers
    for server in range(1, servers + 1):
        blocked = load * blocked / (server + load * blocked)
    share = load / servers
    return np.asarray(blocked / (1 - share * (1 - blocked)))


def stretch(cores: float | None, busy: ArrayLike, loops: ArrayLike, engine_cores: ArrayLike = 0.0) -> Floats:
    """By which factor work takes longer on ``cores`` (None: enough for all) that a path keeps ``busy`` with so many
    ``loops``.

    1 + C(cores, busy) / (cores - busy) is the mean of a queue whose jobs share processors (Kleinrock, Queueing Systems
    II, 1976, chapter 4). There are no more jobs than loops, though, so none gets less than its share among all of them.
    ``engine_cores`` that compute without end are jobs that never leave.
    """
    used, engines = np.asarray(busy, dtype=float), np.asarray(engine_cores, dtype=float)
    if cores is None:
        return np.ones_like(used)
    left = np.maximum(cores - used, 1e-12)
    waiting = (1 + erlang_c(cores, used) / left) * np.maximum((1 + engines) / cores, 1.0)
    return np.asarray(np.minimum(waiting, np.maximum((np.asarray(loops, dtype=float) + engines) / cores, 1.0)))
