"""Who may ask the service: tokens, of which only digests are kept."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, replace
from enum import StrEnum

import sqlalchemy as sa

from tuner.errors import BadInput
from tuner.study.database import Database, now_s
from tuner.study.schema import TOKENS

_SHAPE = re.compile(r"parlay_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_TOKEN = sa.select(TOKENS).where(TOKENS.c.id == sa.bindparam("token", type_=sa.String))  # read with every request


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
    """A token without its secret. Times in s since 1970; ``expires_at`` None: never; ``previous_until``: until then the
    secret before the last rotation is one too."""

    id: str
    name: str
    scope: Scope
    created_at: float
    expires_at: float | None
    revoked_at: float | None
    previous_until: float | None = None

    def alive(self, now: float) -> bool:
        """Whether it may ask at that moment."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


class Accounts:
    """Tokens, in the store's database."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def create(self, name: str, scope: Scope, days: float | None = None) -> tuple[Token, str]:
        """A new token, and its secret text: that is shown once and kept nowhere.

        The text holds 256 random bits, so that a plain SHA-256 of it is as hard to invert as any slower digest.
        """
        _require_name(name)
        _require_days(days)
        identity, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
        with self._db.writing() as db:
            now = now_s(db)
            token = Token(identity, name, scope, now, None if days is None else now + 86_400 * days, None)
            row = {"id": identity, "name": name, "digest": _digest(secret), "scope": scope.value}
            db.execute(sa.insert(TOKENS).values(row | {"created_at": now, "expires_at": token.expires_at}))
        return token, f"parlay_{identity}_{secret}"

    def adopt(self, text: str, name: str, scope: Scope) -> Token:
        """Make the text of a token that was made elsewhere known here; again, it changes nothing, rotated or not.

        Raises BadInput for what is no token, or one whose id is known with another secret, name or scope.
        """
        _require_name(name)
        found = _SHAPE.fullmatch(text)
        if found is None:
            raise BadInput("PARLAY_TOKEN", "(not shown)", "a token, as `parlay token create` prints it")
        row, digest = {"id": found[1], "name": name, "scope": scope.value}, _digest(found[2])
        with self._db.exclusive(), self._db.writing() as db:  # replicas of a service start at once
            this = sa.select(TOKENS).where(TOKENS.c.id == found[1])
            if db.execute(this).first() is None:
                db.execute(
                    sa.insert(TOKENS).values(row | {"digest": digest, "created_at": now_s(db), "expires_at": None})
                )
            present = db.execute(this).mappings().one()
        known = digest in (present["digest"], present["previous_digest"])
        if not known or any(present[key] != value for key, value in row.items()):
            raise BadInput("PARLAY_TOKEN", found[1], "an id that no other token has, with its secret, name and scope")
        return _token_of(present)

    def check(self, text: str) -> Token | None:
        """The token that the text is, or None where it is none, has expired or was revoked."""
        found = _SHAPE.fullmatch(text)
        if found is None:
            return None
        with self._db.reading() as db:
            row = db.execute(_TOKEN, {"token": found[1]}).mappings().first()
            now = now_s(db)
        if row is None or not _shown(row, _digest(found[2]), now):
            return None
        token = _token_of(row)
        return token if token.alive(now) else None

    def rotate(self, word: str, overlap_hours: float, days: float | None = None) -> tuple[Token, str]:
        """A new secret for a token, by its id or its name; the present one is good for ``overlap_hours`` more, the one
        before that no longer. Its id, and with it its studies, its quota and its audit, stays. It expires in ``days``
        from now, or when it did.

        Raises BadInput where there is no such token, several have the name, or it was revoked or has expired.
        """
        _require_days(days)
        if not 0 <= overlap_hours <= 8_760:
            raise BadInput("--overlap-hours", overlap_hours, "a number of hours from 0 to a year")
        secret = secrets.token_urlsafe(32)
        with self._db.writing() as db:
            now = now_s(db)
            token = self._named(db, word)
            renewed = replace(token, expires_at=token.expires_at if days is None else now + 86_400 * days)
            if not renewed.alive(now):
                ended = "was revoked" if token.revoked_at is not None else "has expired"
                raise BadInput("TOKEN", word, f"a token that is still one; {token.id} {ended}")
            values = {"previous_digest": TOKENS.c.digest, "digest": _digest(secret), "expires_at": renewed.expires_at}
            until = now + 3600 * overlap_hours
            db.execute(sa.update(TOKENS).where(TOKENS.c.id == token.id).values(**values, previous_until=until))
        return replace(renewed, previous_until=until), f"parlay_{token.id}_{secret}"

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

    def _named(self, db: sa.Connection, word: str) -> Token:
        rows = db.execute(sa.select(TOKENS).order_by(TOKENS.c.created_at)).mappings().all()
        tokens, now = [_token_of(row) for row in rows], now_s(db)
        found = [token for token in tokens if token.id == word] or [token for token in tokens if token.name == word]
        found = [token for token in found if token.alive(now)] or found  # of one name, those that are over do not count
        if len(found) != 1:
            ids = ", ".join(token.id for token in found or tokens) or "(there is none)"
            raise BadInput("TOKEN", word, f"the id of one of {ids}" if found else f"the id or name of a token: {ids}")
        return found[0]


def _require_name(name: str) -> None:
    if not name.strip() or not name.isprintable() or len(name) > 200:
        raise BadInput("--name", name, "a printable name of 1 to 200 characters, for the audit")


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _shown(row: sa.RowMapping, digest: str, now: float) -> bool:
    """Whether that is the digest of the token's secret, or of the one before while it is good; both are looked at."""
    present = hmac.compare_digest(digest, row["digest"])
    before = hmac.compare_digest(digest, row["previous_digest"] or "")
    return present or (before and now < (row["previous_until"] or 0.0))


def _token_of(row: sa.RowMapping) -> Token:
    times = (row["created_at"], row["expires_at"], row["revoked_at"], row["previous_until"])
    return Token(row["id"], row["name"], Scope(row["scope"]), *times)


def _require_days(days: float | None) -> None:
    if days is not None and not 0 < days < 36_500:
        raise BadInput("--days", days, "a number of days above 0, up to a hundred years")
