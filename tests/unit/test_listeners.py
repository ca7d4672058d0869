"""Who listens to a study: so many of a token, and none for longer than the token lasts."""

from __future__ import annotations

from functools import partial

import pytest

from tests.fakes import copy_of_empty_store, make_request
from tests.service_app import client_of
from tuner.app.service import event_routes
from tuner.study.accounts import Scope
from tuner.study.orders import Wish
from tuner.study.store import Store


@pytest.fixture
def store(tmp_path):
    opened = Store(copy_of_empty_store(tmp_path / "store.db"))
    yield opened
    opened.close()


@pytest.fixture
def serve(store, tmp_path):
    return partial(client_of, store, tmp_path, open_to_all=False)


def bearer(store, scope=Scope.TUNE, name="ci"):
    token, secret = store.accounts.create(name, scope)
    return token, {"Authorization": f"Bearer {secret}"}


def test_a_token_has_so_many_listeners_and_the_seats_are_given_back(serve, store):
    client = serve(listeners_each=1, listeners=2)
    watchers = client.app.state.service.watchers
    store.create_study("s", make_request(), {})
    one, headers = bearer(store, Scope.READ, "one")
    assert watchers.sit(one.id) is None
    answer = client.get("/v1/studies/s/events", headers=headers)
    assert (answer.status_code, "1 listeners" in answer.json()["detail"]) == (503, True)
    assert watchers.sit("two") is None
    assert watchers.sit("three") == "too many listen already"
    watchers.rise(one.id)
    assert watchers.sit("three") is None
    watchers.rise("two")
    watchers.rise("three")


def test_a_stream_that_ends_gives_its_seat_back(serve, store):
    client = serve(listeners_each=1)
    store.orders.submit("s", make_request(), terms())
    store.orders.ask("s", Wish.CANCEL)
    _, headers = bearer(store, Scope.READ)
    for _ in range(3):
        assert client.get("/v1/studies/s/events", headers=headers).status_code == 200


def terms():
    from tuner.study.orders import Terms

    return Terms("", "simulated", seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["revoked", "expired"])
def test_a_stream_ends_with_its_token(serve, store, monkeypatch, how):
    monkeypatch.setattr("tuner.app.service.watching.SILENT_S", 0.05)
    client = serve()
    store.orders.submit("s", make_request(), terms())  # it waits for ever
    token, headers = bearer(store, Scope.READ)

    def end(*_):
        if how == "revoked":
            store.accounts.revoke(token.id)
        else:
            monkeypatch.setattr("tuner.study.accounts.now_s", lambda db: 1e12)

    real = event_routes._over

    async def over(service, name):
        end()  # after the first silence
        return await real(service, name)

    if how == "expired":
        import sqlalchemy as sa

        with store._db.writing() as db:
            db.execute(sa.text("UPDATE parlay_tokens SET expires_at = 1e11"))
    monkeypatch.setattr(event_routes, "_over", over)
    text = client.get("/v1/studies/s/events", headers=headers).text
    assert text.endswith(": this token has ended\n\n")


def test_a_stream_ends_in_the_middle_of_many_events_too(serve, store, monkeypatch):
    monkeypatch.setattr(event_routes, "TOKEN_S", 0.0)
    client = serve()
    store.orders.submit("s", make_request(), terms())
    for _ in range(50):
        store.events.tell("s", "x", {})
    token, headers = bearer(store, Scope.READ)
    keeper, looks = client.app.state.service.doorkeeper, []
    real = type(keeper).has_gone

    async def has_gone(self, request):
        looks.append(1)
        if len(looks) == 3:
            store.accounts.revoke(token.id)
        return await real(self, request)

    monkeypatch.setattr(type(keeper), "has_gone", has_gone)
    text = client.get("/v1/studies/s/events", headers=headers).text
    assert text.count("id: ") == 2
    assert text.endswith(": this token has ended\n\n")
