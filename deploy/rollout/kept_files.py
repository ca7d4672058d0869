"""Small files that outlive whoever wrote them: replaced in one step, so that a kill leaves the one before or the new
one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def put(file: Path, text: str) -> None:
    """Replace the file, or make it."""
    draft = file.with_name(f"{file.name}.tmp")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, file)


def kept_object(file: Path) -> dict[str, Any]:
    """The JSON object in it; nothing where it is not there, or half of one, as after a loss of power it may be."""
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return found
