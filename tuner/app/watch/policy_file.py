"""What an operator allows, as a document."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tuner.app.service.reading import read_yaml
from tuner.errors import BadInput
from tuner.retune.policy import RetunePolicy


def read_policy(path: Path) -> RetunePolicy:
    """The policy of a file; raises BadInput, with the place in it, for what is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput("--policy", str(path), f"a file that can be read ({error})") from None
    return policy_of(read_yaml(text) if text.strip() else {}, str(path))


def policy_of(document: Mapping[str, Any], where: str = "policy") -> RetunePolicy:
    """The policy of a document; raises BadInput as ``read_policy`` does."""
    try:
        return RetunePolicy.model_validate(dict(document))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join((where, *(str(part) for part in first["loc"])))
        raise BadInput(place, first.get("input"), first["msg"]) from None
