"""What an account may take of the clusters: GPU-hours within a rolling window, and studies at a time.

An account is a token's id, or a subject of an identity provider. A launch counts from its beginning until the window
has passed over that; what it took is said by the ledger (``tuner.study.spending``), deleted studies included.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa

from tuner.errors import BadInput
from tuner.study.database import Database
from tuner.study.schema import QUOTAS
from tuner.study.spending import Spending

EVERYBODY = "*"  # the account whose quota is that of all who have none of their own
DEFAULT_DAYS = 30.0
_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Quota:
    """What an account may take. ``gpu_hours`` within ``window_days``, ``studies`` that wait or run; None: no limit."""

    account: str
    gpu_hours: float | None
    window_days: float
    studies: int | None


@dataclass(frozen=True, slots=True)
class Standing:
    """How an account stands at a moment: its quota, the GPU-hours that it has spent in the window, and when enough of
    them have left it for another launch, in s since 1970; None where it may launch now."""

    quota: Quota
    gpu_hours: float
    frees_at: float | None

    @property
    def words(self) -> str:
        """What was spent, what is allowed, and when it frees up, in one line."""
        allowed = "any number" if self.quota.gpu_hours is None else f"{self.quota.gpu_hours:g}"
        text = f"{self.gpu_hours:.4g} of {allowed} GPU-hours in {self.quota.window_days:g} days are spent"
        if self.frees_at is None:
            return text
        if math.isinf(self.frees_at):
            return f"{text}; it may launch nothing"
        return f"{text}; it may launch again from {datetime.fromtimestamp(self.frees_at, UTC):%Y-%m-%d %H:%M} UTC"


class Quotas:
    """Quotas of accounts, in the store's database."""

    def __init__(self, db: Database, spending: Spending) -> None:
        self._db, self._spending = db, spending

    def set(self, quota: Quota) -> Quota:
        """Keep it, in place of the account's earlier one; one without any limit has the account fall back on that of
        everybody, if there is one. Raises BadInput for what is no quota."""
        require_quota(quota)
        with self._db.writing() as db:
            db.execute(sa.delete(QUOTAS).where(QUOTAS.c.account == quota.account))
            if (quota.gpu_hours, quota.studies) != (None, None):
                values = {"gpu_hours": quota.gpu_hours, "window_days": quota.window_days, "studies": quota.studies}
                db.execute(sa.insert(QUOTAS).values(account=quota.account, **values))
        return quota

    def all(self) -> tuple[Quota, ...]:
        """Every quota that was set, by account."""
        with self._db.reading() as db:
            rows = db.execute(sa.select(QUOTAS).order_by(QUOTAS.c.account)).mappings().all()
        return tuple(Quota(**row) for row in rows)

    def of(self, account: str) -> Quota:
        """The account's quota, or that of everybody, or one without limits. Who shows no token has none."""
        none = Quota(account, None, DEFAULT_DAYS, None)
        if not account:
            return none
        with self._db.reading() as db:
            rows = db.execute(sa.select(QUOTAS).where(QUOTAS.c.account.in_([account, EVERYBODY]))).mappings().all()
        found = {row["account"]: row for row in rows}
        row = found.get(account) or found.get(EVERYBODY)
        return none if row is None else Quota(account, row["gpu_hours"], row["window_days"], row["studies"])

    def standing(self, account: str) -> Standing:
        """How the account stands now."""
        quota = self.of(account)
        window_s = quota.window_days * _DAY_S
        launches = self._spending.launches_of(account, window_s) if account else ()
        spent = sum(hours for _, hours in launches)
        if quota.gpu_hours is None or spent < quota.gpu_hours:
            return Standing(quota, spent, None)
        left = spent
        for began_at, hours in launches:
            left -= hours
            if left < quota.gpu_hours - 1e-9:
                return Standing(quota, spent, began_at + window_s)
        return Standing(quota, spent, math.inf)  # it may have none at all


def require_quota(quota: Quota) -> None:
    """Raise BadInput for what is no quota."""
    if not 0 < len(quota.account) <= 60 or not quota.account.isprintable():
        raise BadInput("ACCOUNT", quota.account, f"a token's id, oidc:SUBJECT, or {EVERYBODY} for all others")
    if quota.gpu_hours is not None and not 0 <= quota.gpu_hours < math.inf:
        raise BadInput("--gpu-hours", quota.gpu_hours, "a number of hours, 0 or above")
    if not 0 < quota.window_days <= 3_650:
        raise BadInput("--window-days", quota.window_days, "a number of days above 0, up to ten years")
    if quota.studies is not None and quota.studies < 0:
        raise BadInput("--studies", quota.studies, "a number of studies, 0 or above")
