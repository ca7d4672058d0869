"""Models that are known by name, so that planning needs no network: one small file of ``known_models/`` for each.

A file ``ORG--NAME.json`` holds the fields of the published ``config.json`` that cost bytes or time, and ``source``,
where they are from. ``python -m tests.fit.known_model`` writes one. Names are listed; a file is read when its model is
asked for.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from tuner.errors import BadInput

FOLDER = Path(__file__).with_name("known_models")
SOURCE = "source"  # the only key of a file that is no field of config.json
_BETWEEN = "--"  # the organisation and the name, in a file's name
_ENDING = ".json"
_SHOWN = 3  # names that are near
_TELLING = 6  # letters of a name that begins another, to mean it


@lru_cache(maxsize=1)
def known_models() -> tuple[str, ...]:
    """Names in the registry, in alphabetical order."""
    files = (name for name in os.listdir(FOLDER) if name.endswith(_ENDING))
    return tuple(sorted(name.removesuffix(_ENDING).replace(_BETWEEN, "/", 1) for name in files))


@lru_cache(maxsize=16)
def known_config(name: str) -> Mapping[str, Any] | None:
    """The kept fields of a known model's ``config.json``; None for a name that is not known."""
    if name not in known_models():
        return None
    document: dict[str, Any] = json.loads(file_of(name).read_text(encoding="utf-8"))
    return {key: value for key, value in document.items() if key != SOURCE}


def file_of(name: str) -> Path:
    """Where a known model's fields are kept."""
    return FOLDER / f"{name.replace('/', _BETWEEN, 1)}{_ENDING}"


def unknown_model(name: str) -> BadInput:
    """The refusal of a name that is neither a directory nor known."""
    return BadInput("model", name, f"a directory with a config.json, or {model_choices(name)}")


def model_choices(name: str) -> str:
    """What may stand in place of an unknown name, in words: those that are near."""
    near = near_models(name)
    meant = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"one of the {len(known_models())} known models that docs/reference.md lists{meant}"


def near_models(name: str) -> tuple[str, ...]:
    """Known names that may be meant, the likeliest first: written in another case, without its organisation or with
    another, and else those of which one is the other's beginning, and that are spelt most alike. A name is never taken
    for another: engines fetch by it."""
    known = {one.lower(): one for one in known_models()}
    given = name.lower().strip("/ ")
    if given in known:
        return (known[given],)
    short = _short(given)
    same = tuple(one for low, one in known.items() if _short(low) == short)
    if same:
        return same
    names = sorted({_short(low) for low in known})
    begun = [one for one in names if len(short) >= _TELLING and (one.startswith(short) or short.startswith(one))]
    alike = sorted(begun, key=lambda one: abs(len(one) - len(short)))[:1]
    alike += [one for one in difflib.get_close_matches(short, names, n=_SHOWN, cutoff=0.75) if one not in alike]
    return tuple(one for text in alike for low, one in known.items() if _short(low) == text)[:_SHOWN]


def _short(name: str) -> str:
    return name.rsplit("/", 1)[-1]
