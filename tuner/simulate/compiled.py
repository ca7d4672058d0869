"""How the simulator's inner functions are compiled.

Nothing in them allocates, so arrays need no reference counts: counting them from call to call would take five times as
long as the work itself. Compiled code is kept beside the sources, or in NUMBA_CACHE_DIR, until one of them changes: by
itself, Numba looks at the file of a function alone and goes on calling what its callees were.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

from numba import config, njit

_Function = TypeVar("_Function", bound=Callable[..., object])
SOURCES = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))).hexdigest()


def compiled(function: _Function) -> _Function:
    """Compile at the first call, for the types of its arguments; the code is found again by later processes."""
    made = njit(function, cache=True, error_model="numpy", _nrt=False)
    if not config.DISABLE_JIT:
        made._cache._cache_file._source_stamp = SOURCES
    return cast(_Function, made)
