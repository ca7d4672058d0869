"""What the lines of a starting engine tell of its phases: pure, from lines to seconds.

The wording is that of vLLM 0.29 (``vllm/v1/engine/core.py``, ``v1/worker/gpu_worker.py``, ``gpu_model_runner.py`` and
``gpu/model_runner.py``, ``cpu_model_runner.py``, ``compilation/monitor.py``, ``backends.py`` and ``decorators.py``,
``model_executor/model_loader/``), and of earlier releases where it was another ("takes", "seconds"). Several ranks
write into one log: they work at the same time, so the longest of them counts.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from tuner.trial.start_up import StartPhase


class _Kind(Enum):
    """What a line marks."""

    SPOKE = auto()
    LOADING = auto()
    DOWNLOADED = auto()
    READ = auto()
    LOADED = auto()
    COMPILING = auto()
    ANEW = auto()
    CACHED = auto()
    COMPILED = auto()
    PROFILED = auto()
    CACHE_SIZED = auto()
    WARMING = auto()
    CAPTURING = auto()
    CAPTURED = auto()
    READY = auto()


_S = r"([\d.]+) ?s"
_LINES = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        (_Kind.LOADING, r"Starting to load model|Loading model from scratch"),
        (_Kind.DOWNLOADED, rf"Time spent downloading weights for .*: {_S}"),
        (_Kind.READ, rf"Loading weights took {_S}"),
        (_Kind.LOADED, rf"Model loading took .*GiB.* and {_S}"),
        (_Kind.ANEW, r"Compiling a graph for|Cache the graph|Compiling model again"),
        (_Kind.CACHED, r"Directly load (?:AOT compilation|the compiled graph)"),
        (_Kind.COMPILED, rf"torch\.compile (?:and initial profiling/warmup run together )?(?:took|takes) {_S}"),
        (_Kind.COMPILING, r"Using cache directory: .* for vLLM's torch\.compile|Dynamo bytecode transform time"),
        (_Kind.PROFILED, rf"Initial profiling/warmup run took {_S}"),
        (_Kind.CACHE_SIZED, r"Available KV cache memory"),
        (_Kind.WARMING, r"Warming up model for the compilation"),
        (_Kind.CAPTURING, r"Capturing (?:CUDA|cuda) ?graph"),
        (_Kind.CAPTURED, rf"Graph capturing finished in {_S}"),
        (_Kind.READY, rf"init engine \(profile, create kv cache, warmup model\) took {_S}"),
        (_Kind.SPOKE, r"(?:INFO|WARNING) \d"),
    )
)
_COMPILATION = re.compile(rf"\(compilation: {_S}")
_PROCESS = re.compile(r"pid=(\d+)")
_NEXT = {
    _Kind.SPOKE: StartPhase.IMPORTS,
    _Kind.LOADING: StartPhase.WEIGHTS,
    _Kind.DOWNLOADED: StartPhase.WEIGHTS,
    _Kind.READ: StartPhase.WEIGHTS,
    _Kind.LOADED: StartPhase.PROFILE,
    _Kind.COMPILING: StartPhase.COMPILE,
    _Kind.ANEW: StartPhase.COMPILE,
    _Kind.CACHED: StartPhase.COMPILE,
    _Kind.COMPILED: StartPhase.PROFILE,
    _Kind.PROFILED: StartPhase.PROFILE,
    _Kind.CACHE_SIZED: StartPhase.WARM_UP,
    _Kind.WARMING: StartPhase.WARM_UP,
    _Kind.CAPTURING: StartPhase.CAPTURE,
    _Kind.CAPTURED: StartPhase.WARM_UP,
    _Kind.READY: StartPhase.FRONT,
}


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line, and when it was there: seconds since the order."""

    at_s: float
    text: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A line that tells where a start stands; ``seconds`` is what it says that something took."""

    kind: _Kind
    at_s: float
    process: str
    seconds: float | None = None
    compiling_s: float | None = None


@dataclass(frozen=True, slots=True)
class EngineStart:
    """What an engine's log tells: seconds of its own phases, and when it began to load and was ready (since the order);
    None and absent where it does not tell."""

    phases_s: dict[StartPhase, float] = field(default_factory=dict)
    loads_at_s: float | None = None
    ready_at_s: float | None = None
    compiled_anew: bool | None = None


def marks(lines: Iterable[LogLine]) -> list[Mark]:
    """The lines that tell something."""
    return [mark for line in lines if (mark := _mark(line)) is not None]


def _mark(line: LogLine) -> Mark | None:
    for kind, pattern in _LINES:
        if (found := pattern.search(line.text)) is not None:
            process = _PROCESS.search(line.text)
            compiling = _COMPILATION.search(line.text)
            return Mark(
                kind,
                line.at_s,
                process.group(1) if process else "",
                float(found.group(1)) if found.lastindex else None,
                float(compiling.group(1)) if compiling else None,
            )
    return None


def stage(seen: Sequence[Mark]) -> tuple[StartPhase, float] | None:
    """What the engine is busy with, and since when (seconds since the order); None before its first line."""
    found: tuple[StartPhase, float] | None = None
    sized = loads = False
    for mark in seen:
        if mark.kind is _Kind.SPOKE and loads:
            continue  # whatever else is said does not take it back to its imports
        sized, loads = sized or mark.kind is _Kind.CACHE_SIZED, loads or mark.kind is _Kind.LOADING
        phase = StartPhase.PROFILE if mark.kind is _Kind.CAPTURING and not sized else _NEXT[mark.kind]
        if found is None or found[0] is not phase:
            found = phase, mark.at_s
    return found


def engine_start(seen: Sequence[Mark]) -> EngineStart:
    """The phases of an engine from its log.

    What the engine says took so many seconds, did. What it does not say is the time between two of its lines: loading
    without a figure, and the run that sizes the KV cache where less is said of it. The warm-up is what its whole
    initialisation took beyond that.
    """
    loads_at_s = min(_at_s(seen, _Kind.LOADING), default=None)
    ready_at_s = max(_at_s(seen, _Kind.READY), default=None)
    download_s = _longest_s(seen, _Kind.DOWNLOADED)
    phases = {StartPhase.DOWNLOAD: download_s, StartPhase.WEIGHTS: _loading_s(seen, loads_at_s, download_s or 0.0)}
    phases |= _initialised(seen, ready_at_s)
    kinds = {mark.kind for mark in seen}
    anew = True if _Kind.ANEW in kinds else False if _Kind.CACHED in kinds else None
    return EngineStart({phase: s for phase, s in phases.items() if s is not None}, loads_at_s, ready_at_s, anew)


def _loading_s(seen: Sequence[Mark], loads_at_s: float | None, download_s: float) -> float | None:
    whole_s = _longest_s(seen, _Kind.LOADED)
    if whole_s is None:
        ends_s = _at_s(seen, _Kind.READ)
        between_s = ends_s[-1] - loads_at_s if ends_s and loads_at_s is not None else None
        known = [s for s in (_longest_s(seen, _Kind.READ), between_s) if s is not None]
        whole_s = max(known, default=None)
    return None if whole_s is None else max(0.0, whole_s - download_s)


def _initialised(seen: Sequence[Mark], ready_at_s: float | None) -> dict[StartPhase, float | None]:
    """The parts of an engine's initialisation, which together take what it says of the whole."""
    whole_s = _longest_s(seen, _Kind.READY)
    compile_s = max((mark.compiling_s for mark in seen if mark.compiling_s is not None), default=None)
    compile_s = _longest_s(seen, _Kind.COMPILED) if compile_s is None else compile_s
    if compile_s is None and whole_s is not None and ready_at_s is not None and (cached_s := _at_s(seen, _Kind.CACHED)):
        compile_s = max(0.0, cached_s[-1] - (ready_at_s - whole_s))
    profile_s, capture_s = _longest_s(seen, _Kind.PROFILED), _longest_s(seen, _Kind.CAPTURED)
    found = {StartPhase.COMPILE: compile_s, StartPhase.PROFILE: profile_s, StartPhase.CAPTURE: capture_s}
    if whole_s is None or ready_at_s is None:
        return found
    sized_s = max(_at_s(seen, _Kind.CACHE_SIZED), default=None)
    if sized_s is not None:
        until_s = sized_s - (ready_at_s - whole_s) - (compile_s or 0.0)
        found[StartPhase.PROFILE] = max(profile_s or 0.0, until_s)
    left_s = whole_s
    for phase in (StartPhase.COMPILE, StartPhase.CAPTURE, StartPhase.PROFILE):
        if (said_s := found[phase]) is not None:
            found[phase] = min(said_s, left_s)
            left_s -= min(said_s, left_s)
    return found | {StartPhase.WARM_UP: left_s}


def _at_s(seen: Sequence[Mark], kind: _Kind) -> list[float]:
    return [mark.at_s for mark in seen if mark.kind is kind]


def _longest_s(seen: Sequence[Mark], kind: _Kind) -> float | None:
    """What one process says that it took, in all, of the one that took longest; None where none says."""
    took: dict[str, float] = defaultdict(float)
    for mark in seen:
        if mark.kind is kind and mark.seconds is not None:
            took[mark.process] += mark.seconds
    return max(took.values(), default=None)
