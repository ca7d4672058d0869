"""What is sent as JSON or YAML, read so that no short text takes a minute, and none is what JSON cannot say."""

from __future__ import annotations

import json
from typing import Any

import yaml

from tuner.errors import BadInput

MOST_DEEP = 32  # a request has six levels; the scanner's time grows with the square of them


def read_yaml(text: str) -> dict[str, Any]:
    """The mapping that a YAML text is, with keys as JSON has them; raises BadInput for any other.

    Refused are aliases, which can be a bomb, tags, which make what JSON does not know, and what is nested too deep.
    """
    try:
        _require_plain(text)
        found = json.loads(json.dumps(yaml.safe_load(text), allow_nan=False))
    except (yaml.YAMLError, RecursionError) as error:
        raise BadInput("text", " ".join(str(error).split())[:300], "well-formed YAML") from None
    except (TypeError, ValueError):
        raise BadInput("text", "a date, a set or no number", "YAML of what JSON knows") from None
    if not isinstance(found, dict):
        raise BadInput("text", repr(found)[:200], "a mapping")
    return plain_json(found)


def plain_json(document: dict[str, Any]) -> dict[str, Any]:
    """The document; raises ValueError where it holds NaN, infinity or half a character, which Python's JSON lets by."""
    try:
        json.dumps(document, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, RecursionError):  # a UnicodeEncodeError is a ValueError
        raise ValueError("finite numbers and whole characters") from None
    return document


def _require_plain(text: str) -> None:
    deep = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise BadInput("text", "an alias (*)", "YAML without anchors and aliases")
        if getattr(event, "tag", None) is not None:
            raise BadInput("text", "a tag (!)", "YAML without tags")
        deep += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if deep > MOST_DEEP:
            raise BadInput("text", "deeper nesting", f"at most {MOST_DEEP} levels")
