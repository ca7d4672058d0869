"""Tables of the service's commands."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table

from tuner.study.accounts import Token


def token_table(console: Console, tokens: Sequence[Token]) -> None:
    """All tokens, oldest first."""
    table = Table("id", "name", "scope", "made", "expires", "revoked")
    for token in tokens:
        times = (token.created_at, token.expires_at, token.revoked_at)
        table.add_row(token.id, token.name, token.scope.value, *map(_day, times))
    console.print(table)


def _day(at: float | None) -> str:
    return "-" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")
