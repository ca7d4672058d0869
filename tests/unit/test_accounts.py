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


# Rotation


def test_a_rotated_token_is_the_same_with_another_secret_and_the_old_one_ends(store, monkeypatch):
    token, old = store.accounts.create("pipeline", Scope.TUNE)
    rotated, new = store.accounts.rotate("pipeline", overlap_hours=1)
    assert (rotated.id, rotated.scope) == (token.id, token.scope)
    assert store.accounts.check(new) == store.accounts.check(old) == rotated
    monkeypatch.setattr("tuner.study.accounts.now_s", lambda db: rotated.previous_until)
    assert store.accounts.check(old) is None
    assert store.accounts.check(new) == rotated


def test_without_an_overlap_the_old_secret_ends_at_once(store):
    token, old = store.accounts.create("pipeline", Scope.TUNE)
    _, new = store.accounts.rotate(token.id, overlap_hours=0)
    assert store.accounts.check(old) is None
    assert store.accounts.check(new).id == token.id


def test_two_secrets_are_good_at_most(store):
    _, first = store.accounts.create("pipeline", Scope.TUNE)
    _, second = store.accounts.rotate("pipeline", overlap_hours=24)
    _, third = store.accounts.rotate("pipeline", overlap_hours=24)
    assert [store.accounts.check(secret) is None for secret in (first, second, third)] == [True, False, False]


def test_revoking_ends_both(store):
    token, old = store.accounts.create("pipeline", Scope.TUNE)
    _, new = store.accounts.rotate("pipeline", overlap_hours=24)
    store.accounts.revoke(token.id)
    assert [store.accounts.check(secret) for secret in (old, new)] == [None, None]
    with pytest.raises(BadInput, match="was revoked"):
        store.accounts.rotate("pipeline", overlap_hours=24)


def test_one_that_expires_may_be_renewed_with_its_secret(store, monkeypatch):
    token, _ = store.accounts.create("pipeline", Scope.READ, days=1)
    assert store.accounts.rotate("pipeline", 0)[0].expires_at == token.expires_at
    monkeypatch.setattr("tuner.study.accounts.now_s", lambda db: token.created_at + 90_000)
    with pytest.raises(BadInput, match="has expired"):
        store.accounts.rotate("pipeline", 0)
    assert store.accounts.check(store.accounts.rotate("pipeline", 0, days=1)[1]) is not None


def test_a_name_is_a_tokens_where_one_alone_has_it(store):
    first, _ = store.accounts.create("ci", Scope.READ)
    second, _ = store.accounts.create("ci", Scope.READ)
    with pytest.raises(BadInput, match=f"{first.id}, {second.id}"):
        store.accounts.rotate("ci", 1)
    store.accounts.revoke(first.id)
    assert store.accounts.rotate("ci", 1)[0].id == second.id
    with pytest.raises(BadInput, match="the id or name of a token"):
        store.accounts.rotate("nobody", 1)


@pytest.mark.parametrize("hours", [-1, float("nan"), 1e9])
def test_an_overlap_that_is_none_is_refused(store, hours):
    store.accounts.create("pipeline", Scope.READ)
    with pytest.raises(BadInput, match="--overlap-hours"):
        store.accounts.rotate("pipeline", hours)


def test_the_audit_is_read_a_page_at_a_time_and_names_tokens(store):
    token, _ = store.accounts.create("pipeline", Scope.TUNE)
    for number in range(5):
        store.audit.note(token.id if number else "oidc:ada", "create", f"s{number}", "queued")
    first = store.audit.page(limit=2)
    rest = store.audit.page(before=first[-1].number)
    assert [entry.target for entry in (*first, *rest)] == ["s4", "s3", "s2", "s1", "s0"]
    assert [entry.name for entry in rest] == ["pipeline", "pipeline", None]
    assert store.audit.page(since=first[0].at + 1) == ()
    assert len(store.audit.page(since=rest[-1].at)) == 5


# Tokens that were made elsewhere


def test_a_token_made_elsewhere_is_adopted_as_often_as_one_likes(store, tmp_path):
    elsewhere = Store(f"sqlite:///{tmp_path / 'elsewhere.db'}")
    _, secret = elsewhere.accounts.create("installation", Scope.ADMIN)
    elsewhere.close()
    assert store.accounts.check(secret) is None
    adopted = store.accounts.adopt(secret, "installation", Scope.ADMIN)
    assert store.accounts.adopt(secret, "installation", Scope.ADMIN) == adopted
    assert store.accounts.check(secret) == adopted
    assert store.accounts.tokens() == (adopted,)
    _, new = store.accounts.rotate(adopted.id, overlap_hours=1)
    for text in (secret, new):
        assert store.accounts.adopt(text, "installation", Scope.ADMIN).id == adopted.id
    store.accounts.revoke(adopted.id)
    store.accounts.adopt(new, "installation", Scope.ADMIN)
    assert store.accounts.check(new) is None  # it stays revoked


def test_what_is_no_token_or_another_one_is_not_adopted_and_not_shown(store):
    token, secret = store.accounts.create("pipeline", Scope.READ)
    forged = secret[:-1] + ("A" if secret[-1] != "A" else "B")
    for text, scope in (("hunter2", Scope.READ), (forged, Scope.READ), (secret, Scope.ADMIN)):
        with pytest.raises(BadInput, match="PARLAY_TOKEN") as refused:
            store.accounts.adopt(text, "pipeline", scope)
        assert text not in str(refused.value)
    assert store.accounts.check(secret) == token
