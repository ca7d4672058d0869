"""Text of other programs without the secrets in it: an engine's logs may tell its environment and its arguments."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from tuner.ask.engine_environment import holds_secret

HIDDEN = "…"
_SHORTEST = 6  # characters: a shorter value of a variable may stand in any text
# Each begins where a word begins, and is bounded: no text makes them slow.
_NAMED = re.compile(r"""(?<![\w-])([A-Za-z][\w-]{0,100})(["']?\s{0,4}[=:]\s{0,4}["']?)([^\s"',;&)}\]]+)""")
_OPTION = re.compile(r"""((?<![\w-])--([A-Za-z][\w-]{0,100})[\s'",]{1,8})([^\s"',]+)""")
_SHAPES = (
    (re.compile(r"(?i)\b(bearer|basic)\s{1,4}[\w.~+/=-]{8,}"), rf"\1 {HIDDEN}"),
    (re.compile(r"(://[^/\s:@]{0,100}:)[^/\s@]{1,200}@"), rf"\1{HIDDEN}@"),
    (re.compile(r"\b(hf_|sk-|ghp_|glpat-|AKIA)[\w-]{12,}"), rf"\1{HIDDEN}"),
    (re.compile(r"\bparlay_[0-9a-f]{12}_[\w-]{43}"), HIDDEN),
)


def scrubbed(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """The text with each secret in it replaced: values of this process's secret variables, whatever follows a name that
    stands for one, and what is known by its shape."""
    values = {value for name, value in environment.items() if holds_secret(name) and len(value) >= _SHORTEST}
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, HIDDEN)
    for shape, instead in _SHAPES:
        text = shape.sub(instead, text)
    return _OPTION.sub(_without, _NAMED.sub(_unnamed, text))


def _unnamed(found: re.Match[str]) -> str:
    name, between, value = found.groups()
    return f"{name}{between}{HIDDEN if holds_secret(name) and not _told(value) else value}"


def _without(found: re.Match[str]) -> str:
    before, name, value = found.groups()
    return f"{before}{HIDDEN if holds_secret(name) else value}"


def _told(value: str) -> bool:
    """Words that are no secret, such as of a setting that is not set, or of what was hidden already."""
    return value.strip("[(") in ("None", "null", "True", "False", "true", "false", HIDDEN, "")
