"""Tokens of an identity provider as the service's callers see them: accounts, statuses, and a provider that is away."""

from __future__ import annotations

import asyncio
import threading

import pytest

from tests.fakes import copy_of_empty_store
from tests.oidc_issuer import AUDIENCE, oidc_issuer
from tests.service_app import STUDY, client_of
from tuner.app.service.access import Doorkeeper
from tuner.app.service.issuer import Issuer
from tuner.app.service.joined_reads import JoinedReads
from tuner.app.service.rates import Rates
from tuner.study.accounts import Scope
from tuner.study.quotas import Quota
from tuner.study.store import Store


@pytest.fixture
def provider():
    with oidc_issuer() as made:
        yield made


@pytest.fixture
def issuer(provider):
    return Issuer(provider.url, AUDIENCE)


@pytest.fixture
def store(tmp_path):
    opened = Store(copy_of_empty_store(tmp_path / "store.db"))
    yield opened
    opened.close()


@pytest.fixture
def client(store, tmp_path, issuer):
    return client_of(store, tmp_path, open_to_all=False, issuer=issuer)


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.slow
def test_a_subject_is_an_account_for_studies_quota_and_audit(provider, client, store):
    headers = bearer(provider.token())
    made = client.post("/v1/studies", json=STUDY | {"name": "one"}, headers=headers)
    assert (made.status_code, made.json()["order"]["owner"]) == (201, "oidc:ada")
    assert [(entry.token, entry.action) for entry in store.audit.page()] == [("oidc:ada", "create")]
    store.quotas.set(Quota("oidc:ada", None, 30.0, 1))
    assert client.get("/v1/account", headers=headers).json()["allowed_studies"] == 1
    assert client.post("/v1/studies", json=STUDY | {"name": "two"}, headers=headers).status_code == 429
    other = bearer(provider.token(sub="grace"))
    assert client.post("/v1/studies", json=STUDY | {"name": "two"}, headers=other).status_code == 201
    assert client.delete("/v1/studies/one", headers=headers).status_code == 403


def test_tokens_of_the_store_are_let_in_beside(client, store):
    _, secret = store.accounts.create("ci", Scope.READ)
    assert client.get("/v1/studies", headers=bearer(secret)).status_code == 200


def test_what_is_wrong_with_a_token_is_told_by_the_status(provider, client):
    answers = {
        "expired": client.get("/v1/studies", headers=bearer(provider.token(exp=1.0))),
        "no scope": client.get("/v1/studies", headers=bearer(provider.token(scope="openid"))),
        "forged": client.get("/v1/studies", headers=bearer(provider.token(number=3))),
    }
    assert {why: answer.status_code for why, answer in answers.items()} == {
        "expired": 401,
        "no scope": 403,
        "forged": 401,
    }
    assert "expired" in answers["expired"].json()["detail"]


def test_a_provider_that_is_away_is_no_fault_of_the_token(provider, client):
    provider.status = 502
    answer = client.get("/v1/studies", headers=bearer(provider.token()))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert "502" in answer.json()["detail"]


@pytest.mark.slow
def test_made_up_keys_hold_nobody_else_up_while_the_provider_hangs(provider, issuer, store, monkeypatch):
    """More of them at once than the service has threads."""
    _, secret = store.accounts.create("ci", Scope.READ)
    answer = threading.Event()
    monkeypatch.setattr(provider, "answer", lambda _: (503 if answer.wait(60) else 500, b""))
    for module in ("issuer", "provider_keys"):  # nobody gives up before the test has looked
        monkeypatch.setattr(f"tuner.app.service.{module}.ANSWER_S", 60.0)
    keeper = Doorkeeper(JoinedReads(store.accounts.check), Rates(1e9, 1), Rates(1e9, 1), issuer)

    async def run():
        made_up = [asyncio.create_task(keeper.known(provider.token(kid=f"made up {n}"))) for n in range(60)]
        await asyncio.sleep(0.05)
        try:
            assert (await keeper.known(secret)).scope is Scope.READ
            assert not any(one.done() for one in made_up)
        finally:
            answer.set()
        return await asyncio.gather(*made_up, return_exceptions=True)

    assert {one.status for one in asyncio.run(run())} == {503}


def test_without_a_provider_its_tokens_are_unknown(provider, store, tmp_path):
    client = client_of(store, tmp_path, open_to_all=False)
    assert client.get("/v1/studies", headers=bearer(provider.token())).status_code == 401
    assert provider.asked == []
