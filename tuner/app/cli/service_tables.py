"""Tables of the service's commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tuner.study.accounts import Token
from tuner.study.audit import AuditEntry
from tuner.study.quotas import EVERYBODY, Quota


def token_table(console: Console, tokens: Sequence[Token]) -> None:
    """All tokens, oldest first."""
    table = Table("id", "name", "scope", "made", "expires", "revoked", "old secret until")
    for token in tokens:
        times = (token.created_at, token.expires_at, token.revoked_at, token.previous_until)
        table.add_row(token.id, escape(token.name), token.scope.value, *map(_day, times))
    console.print(table)


def quota_table(console: Console, quotas: Sequence[Quota], spent: Mapping[str, float]) -> None:
    """What accounts may take, and what they have spent."""
    table = Table("account", "GPU-hours", "spent", "in days", "studies")
    for quota in quotas:
        used = "-" if quota.account == EVERYBODY else f"{spent[quota.account]:.4g}"
        limits = ("-" if limit is None else f"{limit:g}" for limit in (quota.gpu_hours, quota.studies))
        hours, studies = limits
        table.add_row(escape(quota.account), hours, used, f"{quota.window_days:g}", studies)
    console.print(table)


def audit_table(console: Console, entries: Sequence[AuditEntry]) -> None:
    """Who asked what, the newest first."""
    table = Table("at", "who", "asked", "of", "what came of it")
    for entry in entries:
        who = f"{entry.name} ({entry.token})" if entry.name else entry.token or "-"
        table.add_row(_day(entry.at), *map(escape, (who, entry.action, entry.target, entry.outcome)))
    console.print(table)


def _day(at: float | None) -> str:
    return "-" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")
