"""Where commands print: answers to stdout, all else to stderr."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from tuner.app.answers.base import Answer

PIPED_WIDTH = 180  # columns of a table that nobody's terminal wraps

stdout = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH)
stderr = Console(stderr=True, width=None if sys.stderr.isatty() else PIPED_WIDTH)


def print_json(answer: Answer) -> None:
    """An answer for machines."""
    sys.stdout.write(answer.to_json())
