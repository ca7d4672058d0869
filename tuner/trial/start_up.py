"""How long a deployment took to start, phase by phase."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class StartPhase(StrEnum):
    """What an engine that starts is busy with, in the order in which that comes."""

    SESSION = "session"  # Ray and Serve start, or are joined: before the first trial alone
    SCHEDULING = "scheduling"  # from the order to a process: devices are found, and a worker is made
    IMPORTS = "imports"  # Python and the engine are loaded, the configuration is read, the ranks find each other
    DOWNLOAD = "download"
    WEIGHTS = "weights"
    COMPILE = "compile"
    PROFILE = "profile"  # a run as large as any, which tells what is left for the KV cache
    CAPTURE = "capture"  # of CUDA graphs
    WARM_UP = "warm_up"  # kernels are tuned and first run
    FRONT = "front"  # the engine is ready; what stands before it is not
    FIRST_ANSWER = "first_answer"
    OTHER = "other"  # what nothing tells apart

    @property
    def words(self) -> str:
        """What goes on in it, for people."""
        return _WORDS[self]


_WORDS = {
    StartPhase.SESSION: "starting Ray",
    StartPhase.SCHEDULING: "waiting for a process",
    StartPhase.IMPORTS: "loading the engine's code",
    StartPhase.DOWNLOAD: "downloading weights",
    StartPhase.WEIGHTS: "loading weights",
    StartPhase.COMPILE: "compiling",
    StartPhase.PROFILE: "measuring its memory",
    StartPhase.CAPTURE: "capturing graphs",
    StartPhase.WARM_UP: "warming up",
    StartPhase.FRONT: "starting its server",
    StartPhase.FIRST_ANSWER: "waiting for the first answers",
    StartPhase.OTHER: "waiting for the engine",
}


@dataclass(frozen=True, slots=True)
class StartUp:
    """Seconds of each phase that was seen, from the order to the first answers; ``other`` is what is left of all.

    ``compiled_anew`` says whether anything had to be compiled (False: all came from a cache); None where nothing tells.
    """

    phases_s: Mapping[StartPhase, float] = field(default_factory=dict)
    compiled_anew: bool | None = None

    @property
    def seconds(self) -> float:
        """All of it."""
        return sum(self.phases_s.values())

    def in_order(self) -> tuple[tuple[StartPhase, float], ...]:
        """The phases that took any time, as they follow each other."""
        return tuple((phase, self.phases_s[phase]) for phase in StartPhase if self.phases_s.get(phase))
