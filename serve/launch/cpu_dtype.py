"""Which processors have instructions for what an engine computes in."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
_ABLE = {"avx512bw", "avx_ne_convert"}
WORDS = "this processor multiplies half precision some 40 times slower than float32 (engine.dtype): it has no AVX-512"


@cache
def multiplies_bfloat16(cpuinfo: Path = CPUINFO) -> bool:
    """False on an x86 processor that has neither AVX-512 nor AVX-NE-CONVERT: oneDNN, with which torch multiplies on
    CPUs, has kernels for bfloat16 with these alone ("Data Types" of its manual), and torch falls back on a loop.

    True as well where nothing is known: on other architectures, and where Linux tells no flags.
    """
    try:
        found = re.search(r"^flags\s*:(.*)$", cpuinfo.read_text(), re.MULTILINE)
    except OSError:
        return True
    return found is None or not _ABLE.isdisjoint(found[1].split())
