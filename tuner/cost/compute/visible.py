"""How many keys the queries of a prompt see, summed in closed form."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from tuner.cost.compute.kinds import Array


def visible_keys(past: Array, new: Array, limit: ArrayLike, per: float = 1.0, more: float = 0.0) -> Array:
    """Sum over the ``new`` queries after ``past`` tokens of min((position + 1) / ``per`` + ``more``, ``limit``).

    One sequence. ``per``: one key stands for so many tokens; ``more``: keys that come on top, such as the rest of a
    block. The step from one query to the next is taken as even, as it is on average.
    """
    most = np.asarray(limit, dtype=float)
    crossing = np.clip((most - more) * per, past, past + new)
    growing = (crossing - past) * (((crossing + past + 1) / 2) / per + more)
    rest = np.where(np.isinf(most), 0.0, most)
    return np.asarray(growing + (past + new - crossing) * rest)
