"""Tokens: what is kept of them, what they allow, and how they end."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from tuner.errors import BadInput
from tuner.study.accounts import Scope
from tuner.study.store import Store


@pytest.fixture
def store(url):
    opened = Store(url)
    yield opened
    opened.close()


def test_a_token_is_known_by_its_secret_which_is_kept_nowhere(store, url):
    token, secret = store.accounts.create("pipeline", Scope.TUNE)
    assert store.accounts.check(secret) == token
    with sa.create_engine(url).connect() as db:
        kept = str(db.exec_driver_sql("SELECT * FROM parlay_tokens").all())
    assert token.id in kept
    assert secret.split("_", 2)[2] not in kept


@pytest.mark.parametrize(
    "wrong", ["", "parlay", "parlay_{id}_", "parlay_{id}_{zeros}", "Parlay_{id}_{zeros}", "é" * 50]
)
def test_no_other_text_is_it(store, wrong):
    token, secret = store.accounts.create("pipeline", Scope.TUNE)
    assert store.accounts.check(wrong.format(id=token.id, zeros="0" * 43)) is None
    assert store.accounts.check(secret[:-1] + ("A" if secret[-1] != "A" else "B")) is None
    assert store.accounts.check(secret + " ") is None


def test_it_ends_when_it_is_revoked_or_has_expired(store, monkeypatch):
    token, secret = store.accounts.create("pipeline", Scope.READ, days=1)
    assert store.accounts.check(secret) == token
    monkeypatch.setattr("tuner.study.accounts.now_s", lambda db: token.created_at + 86_401)
    assert store.accounts.check(secret) is None
    monkeypatch.undo()
    revoked = store.accounts.revoke(token.id)
    assert store.accounts.check(secret) is None
    assert store.accounts.revoke(token.id) == revoked
    with pytest.raises(BadInput, match=f"the id of a token: {token.id}"):
        store.accounts.revoke("unknown")


def test_each_scope_allows_what_those_before_it_do():
    allowed = {scope: [needed for needed in Scope if scope.allows(needed)] for scope in Scope}
    assert allowed == {
        Scope.READ: [Scope.READ], Scope.TUNE: [Scope.READ, Scope.TUNE], Scope.ADMIN: list(Scope),
    }  # fmt: skip


@pytest.mark.parametrize("days", [0, -1, float("nan"), 1e9])
def test_a_time_that_is_none_is_refused(store, days):
    with pytest.raises(BadInput, match="--days"):
        store.accounts.create("pipeline", Scope.READ, days)


def test_the_audit_is_told_newest_first(store):
    for action in ("create", "cancel"):
        store.audit.note("abc", action, "s", "done")
    assert [entry.action for entry in store.audit.page()] == ["cancel", "create"]
    assert len(store.audit.page(limit=1)) == 1
