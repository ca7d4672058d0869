"""The commands of who may ask: what they print, what they keep, and what they refuse."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from tuner.app.cli.commands import app
from tuner.app.cli.times import seconds_of
from tuner.errors import BadInput
from tuner.study.quotas import Quota
from tuner.study.store import Store


@pytest.fixture
def parlay(tmp_path):
    """A command on one store: its stdout."""

    def run(*words, fails=None):
        found = CliRunner().invoke(app, [*words, "--out", str(tmp_path)])
        if fails is None:
            assert found.exception is None, found.exception
        else:
            assert isinstance(found.exception, BadInput)
            assert found.exception.where == fails
        return found.stdout.strip()

    return run


@pytest.fixture
def store(tmp_path):
    opened = Store(f"sqlite:///{tmp_path}/parlay.db")
    yield opened
    opened.close()


@pytest.mark.slow
def test_a_token_is_made_with_its_quota_rotated_and_revoked(parlay, store):
    secret = parlay("token", "create", "--name", "ci", "--gpu-hours", "40", "--window-days", "7", "--studies", "2")
    token = store.accounts.check(secret)
    assert store.quotas.of(token.id) == Quota(token.id, 40.0, 7.0, 2)
    rotated = parlay("token", "rotate", "ci", "--overlap-hours", "0")
    assert store.accounts.check(secret) is None
    assert store.accounts.check(rotated).id == token.id
    (listed,) = json.loads(parlay("token", "list", "--json"))
    assert (listed["id"], listed["scope"], listed["previous_until"] is None) == (token.id, "tune", False)
    assert rotated not in parlay("token", "list")
    parlay("token", "revoke", token.id)
    assert store.accounts.check(rotated) is None


def test_what_is_wrong_makes_no_token(parlay, store):
    parlay("token", "create", "--name", "ci", "--gpu-hours", "-1", fails="--gpu-hours")
    parlay("token", "create", "--name", "ci", "--scope", "root", fails="--scope")
    assert store.accounts.tokens() == ()


@pytest.mark.slow
def test_a_quota_is_set_and_shown(parlay, store):
    parlay("quota", "set", "oidc:ada", "--gpu-hours", "4")
    parlay("quota", "set", "*", "--studies", "1")
    assert store.quotas.of("oidc:ada") == Quota("oidc:ada", 4.0, 30.0, None)
    assert json.loads(parlay("quota", "list", "--json")) == [
        {"account": "*", "gpu_hours": None, "window_days": 30.0, "studies": 1, "spent_gpu_hours": None},
        {"account": "oidc:ada", "gpu_hours": 4.0, "window_days": 30.0, "studies": None, "spent_gpu_hours": 0},
    ]
    assert "oidc:ada" in parlay("quota", "list")


@pytest.mark.slow
def test_the_audit_has_what_was_done_there(parlay, store):
    parlay("token", "create", "--name", "[red]ci")
    parlay("token", "rotate", "[red]ci")
    parlay("quota", "set", "*", "--gpu-hours", "4")
    entries = json.loads(parlay("audit", "--since", "1h", "--json"))
    assert [entry["action"] for entry in entries] == ["quota set", "token rotate", "token create"]
    assert {entry["token"] for entry in entries} == {"command line"}
    assert json.loads(parlay("audit", "--since", "2999-01-01", "--json")) == []
    assert len(json.loads(parlay("audit", "--limit", "1", "--json"))) == 1
    assert "token rotate" in parlay("audit")
    parlay("audit", "--since", "yesterday", fails="--since")


def test_a_time_without_a_zone_is_of_utc():
    assert seconds_of("", "1970-01-02") == 86_400.0
    assert seconds_of("", "1970-01-02T01:00") == seconds_of("", "1970-01-02T03:00+02:00") == 90_000.0
    assert seconds_of("", "60m") == pytest.approx(seconds_of("", "1h"), abs=60)
    for wrong in ("", "h", "1.5h", "-1h", "2026-13-01", "9" * 9 + "d"):
        with pytest.raises(BadInput, match="--since"):
            seconds_of("--since", wrong)
