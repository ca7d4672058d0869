"""Releases of vLLM: rules, prices and argument names are looked up by the one that the engines of a cluster run."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tuner.errors import BadInput


@dataclass(frozen=True, slots=True, order=True)
class EngineVersion:
    """A release of vLLM without its patch level; they compare by age: ``version >= EngineVersion(0, 29)``."""

    major: int
    minor: int

    @classmethod
    def parse(cls, text: str, where: str = "engine.version") -> EngineVersion:
        """``0.29``, ``0.29.0``, ``v0.29.1rc1`` or ``0.29.0+cpu``; raises BadInput for what names no release."""
        found = re.fullmatch(r"v?(\d+)\.(\d+)([.+a-z].*)?", text)
        if found is None:
            raise BadInput(where, text, f"a release of vLLM, such as {NEWEST}")
        return cls(int(found[1]), int(found[2]))

    @property
    def known(self) -> EngineVersion:
        """The release whose rules and names hold for it: itself, or the nearest of ``RELEASES``."""
        return min(max(self, RELEASES[0]), RELEASES[-1])

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


# Those whose sources were read. Ray Serve LLM 2.60, the newest, pins the last.
RELEASES = tuple(EngineVersion(0, minor) for minor in (26, 27, 28, 29))
NEWEST = RELEASES[-1]
