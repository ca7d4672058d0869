"""How the simulator's inner functions are compiled.

Nothing in them allocates, so arrays need no reference counts: counting them from call to call would take five times as
long as the work itself. Compiled code is kept beside the sources, or in NUMBA_CACHE_DIR, until one of them changes: by
itself, Numba looks at the file of a function alone and goes on calling what its callees were.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

from numba import config, njit
from numba.core.caching import IndexDataCacheFile

_Function = TypeVar("_Function", bound=Callable[..., object])
SOURCES = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))).hexdigest()
# What unpickling raises for names of modules and classes that have moved since, and for files that broke off.
UNREADABLE = (pickle.UnpicklingError, ImportError, AttributeError, EOFError, LookupError, TypeError, ValueError)


class _KeptCode(IndexDataCacheFile):  # type: ignore[misc]  # Numba has no types
    """The files of one function's compiled code. What cannot be read is stale: it is compiled anew and overwritten."""

    def _load_index(self) -> dict[object, str]:
        try:
            return cast(dict[object, str], super()._load_index())
        except UNREADABLE:
            return {}

    def load(self, key: object) -> object:
        """The code for ``key``, a signature and a processor; None where there is none that can be read."""
        try:
            return super().load(key)
        except UNREADABLE:
            return None


def compiled(function: _Function) -> _Function:
    """Compile at the first call, for the types of its arguments; the code is found again by later processes."""
    made = njit(function, cache=True, error_model="numpy", _nrt=False)
    if not config.DISABLE_JIT:
        cache = made._cache
        cache._cache_file = _KeptCode(cache._cache_path, cache._impl.filename_base, SOURCES)
    return cast(_Function, made)
