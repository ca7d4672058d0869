"""Arguments of vLLM, as each known release has them: what they are called, and which values they take.

The data files beside this module (``engine_args/``) were read from vLLM's own sources (``tests/fit/vllm_arguments.py``,
which explains their words); nothing of vLLM is imported.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from tuner.ask.engine_version import EngineVersion

_DATA = Path(__file__).with_name("engine_args")
LONGEST_TEXT = 100_000  # characters of a value: a chat template fits


class Group(StrEnum):
    """Whose argument it is."""

    ENGINE = "engine"  # EngineArgs
    FRONT = "front"  # of what answers requests: templates and parsers
    SERVER = "server"  # of vLLM's own HTTP server, in whose place Ray Serve has another


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument; ``kinds`` are the types it takes, as the data files write them."""

    name: str
    group: Group
    kinds: tuple[str, ...]

    @property
    def allowed(self) -> str:
        """The values, in words."""
        return " or ".join(_in_words(kind) for kind in self.kinds)

    def takes(self, value: object) -> bool:
        """True for a value of its types. Where vLLM lists words only those are taken: another needs a plugin."""
        return any(_is(kind, value) for kind in self.kinds)

    @property
    def keys(self) -> tuple[str, ...] | None:
        """Of a mapping whose keys are known."""
        return next((tuple(kind.split()[1:]) for kind in self.kinds if kind.startswith("map ")), None)


@dataclass(frozen=True, slots=True)
class Release:
    """What one release knows. ``model_types`` are those whose config class vLLM brings itself."""

    arguments: Mapping[str, Argument]
    environment: frozenset[str]
    model_types: frozenset[str]


@lru_cache
def release(version: EngineVersion) -> Release:
    """The arguments of a release, or of the known one that is nearest to it."""
    text = (_DATA / f"vllm_{version.known}.yaml").read_text(encoding="utf-8")
    document: dict[str, Any] = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    found = {
        name: Argument(name, group, _kinds(words)) for group in Group for name, words in document[group.value].items()
    }
    return Release(found, frozenset(document["environment"]), frozenset(document["model_types"]))


def _kinds(words: str) -> tuple[str, ...]:
    kinds = tuple(words.split(" | "))
    listed = any(kind.startswith("choice ") for kind in kinds)
    return tuple(kind for kind in kinds if not (listed and kind == "str"))


def _is(kind: str, value: object) -> bool:
    word, _, rest = kind.partition(" ")
    if word == "bool":
        return isinstance(value, bool)
    if word == "int":
        return isinstance(value, int) and not isinstance(value, bool)
    if word == "float":
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if word == "str":
        return isinstance(value, str) and value != "" and "\0" not in value and len(value) <= LONGEST_TEXT
    if word == "choice":
        return isinstance(value, str) and value in rest.split()
    if word == "list":
        return isinstance(value, list | tuple) and value != [] and all(_is(rest, one) for one in value)
    keys = rest.split()
    return isinstance(value, Mapping) and all(isinstance(key, str) and (not keys or key in keys) for key in value)


def _in_words(kind: str) -> str:
    word, _, rest = kind.partition(" ")
    if word == "choice":
        return "one of " + ", ".join(rest.split())
    if word == "list":
        return f"a list of which each is {_in_words(rest)}"
    if word == "map":
        return "a mapping" + (f" with the keys {', '.join(rest.split())}" if rest else "")
    return {"bool": "true or false", "int": "a whole number", "float": "a number", "str": "a text"}[word]


def plain_name(name: str) -> str:
    """A name as vLLM's sources spell it, of one from a command line (``--api-key``), of capitals or in camel case."""
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return parted.replace("-", "_").strip("_").lower()


def near(name: str, names: Iterable[str], kind: str, version: str) -> str:
    """What may stand in the place of an unknown ``name``, with the nearest of ``names``."""
    lower = {one.lower(): one for one in sorted(names)}
    close = get_close_matches(plain_name(name), lower, n=3, cutoff=0.6)
    hint = f", such as {' or '.join(lower[one] for one in close)}" if close else ""
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind} of vLLM {version}{hint}"
