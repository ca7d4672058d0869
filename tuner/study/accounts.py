"""Who may ask the service, and what was asked: tokens, of which only digests are kept, and the audit."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from enum import StrEnum

import sqlalchemy as sa

from tuner.errors import BadInput
from tuner.study.database import Database, now_s
from tuner.study.schema import AUDIT, TOKENS

_SHAPE = re.compile(r"parlay_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")


class Scope(StrEnum):
    """What a token allows; each allows what those before it do."""

    READ = "read"
    TUNE = "tune"
    ADMIN = "admin"

    def allows(self, needed: Scope) -> bool:
        """True where it is at least ``needed``."""
        order = list(Scope)
        return order.index(self) >= order.index(needed)


@dataclass(frozen=True, slots=True)
class Token:
    """A token without its secret. Times in s since 1970; ``expires_at`` None: never."""

    id: str
    name: str
    scope: Scope
    created_at: float
    expires_at: float | None
    revoked_at: float | None


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Who asked what, of what, when, and what came of it."""

    at: float
    token: str
    action: str
    target: str
    outcome: str


class Accounts:
    """Tokens and the audit, in the store's database."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def create(self, name: str, scope: Scope, days: float | None = None) -> tuple[Token, str]:
        """A new token, and its secret text: that is shown once and kept nowhere.

        The text holds 256 random bits, so that a plain SHA-256 of it is as hard to invert as any slower digest.
        """
        if not name.strip() or not name.isprintable() or len(name) > 200:
            raise BadInput("--name", name, "a printable name of 1 to 200 characters, for the audit")
        if days is not None and not 0 < days < 36_500:
            raise BadInput("--days", days, "a number of days above 0, up to a hundred years")
        identity, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
        with self._db.writing() as db:
            now = now_s(db)
            token = Token(identity, name, scope, now, None if days is None else now + 86_400 * days, None)
            row = {"id": identity, "name": name, "digest": _digest(secret), "scope": scope.value}
            db.execute(sa.insert(TOKENS).values(row | {"created_at": now, "expires_at": token.expires_at}))
        return token, f"parlay_{identity}_{secret}"

    def check(self, text: str) -> Token | None:
        """The token that the text is, or None where it is none, has expired or was revoked."""
        found = _SHAPE.fullmatch(text)
        if found is None:
            return None
        with self._db.reading() as db:
            row = db.execute(sa.select(TOKENS).where(TOKENS.c.id == found[1])).mappings().first()
            now = now_s(db)
        if not hmac.compare_digest(_digest(found[2]), "" if row is None else row["digest"]) or row is None:
            return None
        token = _token_of(row)
        alive = token.revoked_at is None and (token.expires_at is None or now < token.expires_at)
        return token if alive else None

    def tokens(self) -> tuple[Token, ...]:
        """All that were ever made, oldest first."""
        with self._db.reading() as db:
            rows = db.execute(sa.select(TOKENS).order_by(TOKENS.c.created_at)).mappings().all()
        return tuple(_token_of(row) for row in rows)

    def revoke(self, identity: str) -> Token:
        """End a token at once; raises BadInput for one that does not exist. Again, it changes nothing."""
        with self._db.writing() as db:
            this = (TOKENS.c.id == identity) & TOKENS.c.revoked_at.is_(None)
            db.execute(sa.update(TOKENS).where(this).values(revoked_at=now_s(db)))
        found = next((token for token in self.tokens() if token.id == identity), None)
        if found is None:
            known = ", ".join(token.id for token in self.tokens()) or "(there is none)"
            raise BadInput("TOKEN", identity, f"the id of a token: {known}")
        return found

    def note(self, token: str, action: str, target: str, outcome: str) -> None:
        """Keep what was asked, and what came of it."""
        with self._db.writing() as db:
            row = {"at": now_s(db), "token": token, "action": action, "target": target[:200], "outcome": outcome}
            db.execute(sa.insert(AUDIT).values(row))

    def audit(self, limit: int = 100) -> tuple[AuditEntry, ...]:
        """The newest first."""
        columns = (AUDIT.c.at, AUDIT.c.token, AUDIT.c.action, AUDIT.c.target, AUDIT.c.outcome)
        with self._db.reading() as db:
            rows = db.execute(sa.select(*columns).order_by(AUDIT.c.id.desc()).limit(limit)).mappings().all()
        return tuple(AuditEntry(**row) for row in rows)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _token_of(row: sa.RowMapping) -> Token:
    return Token(row["id"], row["name"], Scope(row["scope"]), row["created_at"], row["expires_at"], row["revoked_at"])
