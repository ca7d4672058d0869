"""Points in time as they are written on a command line."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

from tuner.errors import BadInput

_AGO = re.compile(r"(\d{1,6})([mhd])")
_UNIT_S = {"m": 60.0, "h": 3600.0, "d": 86_400.0}


def seconds_of(where: str, text: str) -> float:
    """Seconds since 1970 of a date or time (UTC, where it names no zone), or of so many minutes, hours or days ago;
    raises BadInput for any other text."""
    if (ago := _AGO.fullmatch(text)) is not None:
        return time.time() - int(ago[1]) * _UNIT_S[ago[2]]
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise BadInput(where, text, "a time such as 2026-01-31 or 2026-01-31T12:00, or 90m, 24h or 7d ago") from None
