"""Who asked what, and how an account stands."""

from __future__ import annotations

import math

from pydantic import Field

from tuner.app.answers.base import Answer
from tuner.study.audit import AuditEntry
from tuner.study.quotas import Standing


class AuditEntryAnswer(Answer):
    """One line of the audit."""

    number: int = Field(description="Grows from line to line.")
    at: float = Field(description="When, s since 1970.")
    account: str = Field(
        description="Who: the token's id, the identity provider's subject, command line, or retention (the rule for "
        "old studies); empty: nobody had to say."
    )
    name: str | None = Field(description="The token's name; null of any other account.")
    action: str = Field(description="What was asked.")
    target: str = Field(description="Of which study or token.")
    outcome: str = Field(description="What came of it.")


class AuditAnswer(Answer):
    """A page of the audit, the newest first."""

    entries: list[AuditEntryAnswer] = Field(description="The lines.")
    next: str | None = Field(description="The cursor of the next page; null: there is none.")


class AccountAnswer(Answer):
    """What an account may take, and has taken."""

    account: str = Field(description="The token's id, or the identity provider's subject; empty: nobody had to say.")
    scope: str = Field(description="read, tune or admin.")
    studies: int = Field(description="That wait or run.")
    allowed_studies: int = Field(description="How many may.")
    gpu_hours: float = Field(description="Spent by launches that began in the window, those that run up to now.")
    allowed_gpu_hours: float | None = Field(description="How many may be; null: any number.")
    window_days: float = Field(description="The window.")
    frees_at: float | None = Field(description="When it may launch again, s since 1970; null: now, or never.")


def audit_entry_answer(entry: AuditEntry) -> AuditEntryAnswer:
    """One line."""
    return AuditEntryAnswer(
        number=entry.number,
        at=entry.at,
        account=entry.token,
        name=entry.name,
        action=entry.action,
        target=entry.target,
        outcome=entry.outcome,
    )


def account_answer(standing: Standing, scope: str, studies: int, allowed_studies: int) -> AccountAnswer:
    """How an account stands; ``allowed_studies`` where its quota does not say."""
    quota, frees_at = standing.quota, standing.frees_at
    return AccountAnswer(
        account=quota.account,
        scope=scope,
        studies=studies,
        allowed_studies=allowed_studies if quota.studies is None else quota.studies,
        gpu_hours=standing.gpu_hours,
        allowed_gpu_hours=quota.gpu_hours,
        window_days=quota.window_days,
        frees_at=None if frees_at is None or math.isinf(frees_at) else frees_at,
    )
