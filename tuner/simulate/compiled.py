"""How the simulator's inner functions are compiled.

Nothing in them allocates, so arrays need no reference counts: counting them from call to call would take five times as
long as the work itself. Compiled code is kept beside the sources, or in NUMBA_CACHE_DIR.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

from numba import njit

_Function = TypeVar("_Function", bound=Callable[..., object])


def compiled(function: _Function) -> _Function:
    """Compile at the first call, for the types of its arguments; the code is found again by later processes."""
    return cast(_Function, njit(function, cache=True, error_model="numpy", _nrt=False))
