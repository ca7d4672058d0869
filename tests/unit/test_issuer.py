"""Tokens of an identity provider: which are let in, as whom, and every way in which one could be forged."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.oidc_issuer import AUDIENCE, jwk, oidc_issuer, private_key
from tuner.app.service.issuer import Identity, Issuer, NotOurs
from tuner.app.service.provider_keys import AGAIN_S, ANSWER_S, KEYS_S, ProviderKeys, Unreachable
from tuner.errors import BadInput
from tuner.study.accounts import Scope

TUNES = Identity("oidc:ada", Scope.TUNE)


class Clock:
    """Of ``time.monotonic``, for the issuer and for the library that keeps its keys."""

    def __init__(self, monkeypatch):
        self.later_s = 0.0
        real = time.monotonic
        monkeypatch.setattr("jwt.jwks_client.time.monotonic", lambda: real() + self.later_s)

    def __call__(self):
        return time.monotonic()


@pytest.fixture
def provider():
    with oidc_issuer() as made:
        yield made


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


@pytest.fixture
def issuer(provider, clock):
    return Issuer(provider.url, AUDIENCE, clock=clock)


def b64(part):
    raw = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def by_hand(header, claims, key=None):
    """A token whose header says anything; signed with HMAC where there is a key."""
    text = f"{b64(header)}.{b64(claims)}"
    return f"{text}.{b64(hmac.digest(key, text.encode(), hashlib.sha256)) if key else ''}"


@pytest.mark.parametrize("kind", ["RS256", "ES256", "EdDSA"])
def test_a_token_that_the_provider_signed_for_us_is_let_in(provider, issuer, kind):
    provider.keys = [jwk("other", number=1), jwk("first", kind)]
    assert issuer.identify(provider.token(kind)) == TUNES
    assert issuer.identify(provider.token(kind, aud=["another", AUDIENCE])) == TUNES


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"aud": "another"}, "udience"),
        ({"aud": None}, "aud"),
        ({"aud": []}, "aud"),
        ({"iss": "https://evil.example"}, "issuer"),
        ({"iss": None}, "iss"),
        ({"exp": 1.0}, "expired"),
        ({"exp": None}, "exp"),
        ({"exp": "soon"}, "exp"),
        ({"nbf": 4e9}, "not yet valid"),
        ({"iat": 4e9}, "not yet valid"),
        ({"sub": None}, "sub"),
        ({"sub": ""}, "nobody"),
        ({"sub": 7}, "ubject"),
    ],
)
def test_every_claim_is_looked_at(provider, issuer, changes, words):
    with pytest.raises(NotOurs, match=words):
        issuer.identify(provider.token(**changes))


def test_clocks_may_differ_by_a_little(provider, issuer):
    now = time.time()
    assert issuer.identify(provider.token(exp=now - 20)) == TUNES
    assert issuer.identify(provider.token(nbf=now + 20)) == TUNES
    for late in ({"exp": now - 40}, {"nbf": now + 40}):
        with pytest.raises(NotOurs):
            issuer.identify(provider.token(**late))


@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE", "", None, "HS256", "HS512", "RS255", ["RS256"], 5])
def test_no_other_algorithm_signs(provider, issuer, name):
    header = {"alg": name, "kid": "first", "typ": "JWT"}
    with pytest.raises(NotOurs):
        issuer.identify(by_hand({key: value for key, value in header.items() if value is not None}, provider.claims()))


@pytest.mark.parametrize("form", ["pem", "der", "jwk", "n"])
def test_a_public_key_signs_nothing(provider, issuer, form):
    """The old confusion: HMAC with what everybody may read."""
    public = private_key().public_key()
    keys = {
        "pem": public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        "der": public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        "jwk": json.dumps(jwk("first")).encode(),
        "n": jwk("first")["n"].encode(),
    }
    forged = by_hand({"alg": "HS256", "kid": "first"}, provider.claims(), keys[form])
    with pytest.raises(NotOurs, match="algorithm"):
        issuer.identify(forged)
    again = by_hand({"alg": "RS256", "kid": "first"}, provider.claims(), keys[form])
    with pytest.raises(NotOurs, match="ignature"):
        issuer.identify(again)


def test_a_shared_secret_that_a_provider_publishes_signs_nothing(provider, issuer):
    secret = b"s" * 32
    provider.keys = [{"kty": "oct", "k": b64(secret), "kid": "first", "alg": "HS256"}, jwk("second", number=1)]
    with pytest.raises(NotOurs):
        issuer.identify(by_hand({"alg": "HS256", "kid": "first"}, provider.claims(), secret))
    with pytest.raises(NotOurs):
        issuer.identify(by_hand({"alg": "RS256", "kid": "first"}, provider.claims(), secret))


def test_the_key_says_which_algorithm_it_is_for(provider, issuer):
    provider.keys = [jwk("first"), jwk("ec", "ES256")]
    with pytest.raises(NotOurs, match="algorithm"):
        issuer.identify(jwt.encode(provider.claims(), private_key(), algorithm="RS512", headers={"kid": "first"}))
    with pytest.raises(NotOurs):
        issuer.identify(provider.token("RS256", kid="ec"))


@pytest.mark.filterwarnings("ignore:The RSA key is 1024")
def test_a_key_that_is_short_or_for_something_else_signs_nothing(provider, issuer):
    provider.keys = [jwk("short", "short"), jwk("enc", number=2, use="enc"), jwk("good", number=1)]
    with pytest.raises(NotOurs, match="bits"):
        issuer.identify(provider.token("short", kid="short"))
    with pytest.raises(NotOurs, match="signing key"):
        issuer.identify(provider.token(number=2, kid="enc"))


@pytest.mark.slow
@pytest.mark.parametrize("header", ["jwk", "jku", "x5u", "x5c"])
def test_a_token_brings_no_key_of_its_own(provider, issuer, header):
    mine = private_key(number=9)
    brought = {
        "jwk": jwk("first", number=9),
        "jku": f"{provider.url}/mine",
        "x5u": f"{provider.url}/mine",
        "x5c": ["a"],
    }
    headers = {"kid": "first", header: brought[header]}
    with pytest.raises(NotOurs):
        issuer.identify(jwt.encode(provider.claims(), mine, algorithm="RS256", headers=headers))
    assert "/mine" not in provider.asked


@pytest.mark.parametrize(
    "text", ["..", "a.b.c", "é.é.é", "." * 9, "x" * 20_000 + "..", '{"a":1}..', "eyJhbGciOiJSUzI1NiJ9.e30."]
)
def test_what_is_no_token_is_none(provider, issuer, text):
    with pytest.raises(NotOurs):
        issuer.identify(text)


def test_a_header_that_is_critical_and_not_understood_is_refused(provider, issuer):
    headers = {"kid": "first", "crit": ["exp2"], "exp2": 1}
    with pytest.raises(NotOurs):
        issuer.identify(jwt.encode(provider.claims(), private_key(), algorithm="RS256", headers=headers))


def test_keys_are_fetched_once_and_rotated_ones_at_once(provider, issuer, clock):
    assert issuer.identify(provider.token()) == issuer.identify(provider.token()) == TUNES
    assert provider.asked == ["/.well-known/openid-configuration", "/keys"]
    provider.keys = [jwk("second", number=1)]
    clock.later_s = AGAIN_S + 1
    assert issuer.identify(provider.token(number=1, kid="second")) == TUNES
    with pytest.raises(NotOurs):
        issuer.identify(provider.token())  # the first key is gone
    assert provider.asked.count("/keys") == 2


def test_a_key_that_is_gone_is_good_until_it_is_fetched_anew_and_no_longer(provider, issuer, clock):
    token = provider.token()
    issuer.identify(token)
    provider.keys = [jwk("second", number=1)]
    assert issuer.identify(token) == TUNES
    clock.later_s = KEYS_S + 1
    with pytest.raises(NotOurs):
        issuer.identify(token)


def test_keys_that_nobody_has_do_not_make_us_ask_and_ask(provider, issuer):
    issuer.identify(provider.token())
    for number in range(20):
        with pytest.raises(NotOurs, match="signing key"):
            issuer.identify(provider.token(kid=f"unknown {number}"))
    assert provider.asked.count("/keys") == 1
    with pytest.raises(NotOurs):
        issuer.identify(provider.token(kid=None))


def test_while_the_provider_does_not_answer_nobody_new_can_be_known(provider, issuer, clock):
    provider.status = 503
    for _ in range(5):
        with pytest.raises(Unreachable, match="503"):
            issuer.identify(provider.token())
    assert len(provider.asked) == 1  # and it is not asked again and again
    provider.status = 200
    clock.later_s = AGAIN_S + 1
    assert issuer.identify(provider.token()) == TUNES
    provider.status = 500
    clock.later_s += AGAIN_S + 1
    with pytest.raises(Unreachable):
        issuer.identify(provider.token(number=1, kid="second"))
    assert issuer.identify(provider.token()) == TUNES  # its key is at hand
    clock.later_s += KEYS_S
    with pytest.raises(Unreachable):
        issuer.identify(provider.token())


def test_whoever_shows_an_unknown_key_keeps_nobody_else_waiting(provider, issuer, clock, monkeypatch):
    assert issuer.identify(provider.token()) == TUNES
    clock.later_s = AGAIN_S + 1
    asked, answer, at_once = threading.Event(), threading.Event(), provider.answer

    def slow(path):
        asked.set()
        answer.wait(10)
        return at_once(path)

    monkeypatch.setattr(provider, "answer", slow)
    with ThreadPoolExecutor(2) as threads:
        unknown = threads.submit(issuer.identify, provider.token(number=1, kid="second"))
        assert asked.wait(10)
        try:
            assert threads.submit(issuer.identify, provider.token()).result(1) == TUNES
        finally:
            answer.set()
        with pytest.raises((NotOurs, Unreachable)):
            unknown.result(10)


def test_a_provider_that_hangs_is_asked_one_thing_and_waited_for_by_nobody_after_a_while(provider, clock, monkeypatch):
    asked, answer, at_once = threading.Event(), threading.Event(), provider.answer

    def hanging(path):
        asked.set()
        answer.wait(60)
        return at_once(path)

    monkeypatch.setattr(provider, "answer", hanging)
    keys = ProviderKeys(provider.url, clock)
    try:
        coming = keys.coming("made up")
        assert asked.wait(60)
        assert {keys.coming(f"made up {number}") for number in range(50)} == {coming}
        clock.later_s = ANSWER_S
        assert keys.coming("made up") is None
        with pytest.raises(Unreachable, match="not answered"):
            keys.find("made up")
    finally:
        answer.set()
    coming.result(60)
    assert (keys.find("first").key_id, keys.find("made up")) == ("first", None)
    assert provider.asked == ["/.well-known/openid-configuration", "/keys"]


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_no_redirection_is_followed(provider, issuer, status):
    provider.status = status
    with pytest.raises(Unreachable):
        issuer.identify(provider.token())
    assert provider.asked == ["/.well-known/openid-configuration"]


@pytest.mark.parametrize(
    "changes",
    [
        {"issuer": "https://evil.example"},
        {"issuer": None},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": "http://keys.example/keys"},
        {"jwks_uri": None},
        {"jwks_uri": ["https://a"]},
        {"jwks_uri": "https://"},
    ],
)
def test_a_discovery_document_that_is_not_its_own_is_none(provider, issuer, changes):
    provider.document |= changes
    with pytest.raises(Unreachable):
        issuer.identify(provider.token())
    assert "/keys" not in provider.asked


@pytest.mark.parametrize(
    "keys", [[], [{"kty": "oct", "k": "YQ"}], [{"kty": "strange", "kid": "first"}], ["x"], {"keys": "x"}, None, 5]
)
def test_keys_that_are_none_are_a_fault_of_the_provider(provider, issuer, keys):
    provider.keys = keys
    with pytest.raises(Unreachable):
        issuer.identify(provider.token())


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"5", b"\xff", b'{"keys": [{}]}'])
@pytest.mark.parametrize("path", ["/keys", "/.well-known/openid-configuration"])
def test_an_answer_that_is_no_json_object_is_a_fault_of_the_provider(provider, issuer, monkeypatch, path, body):
    real = provider.answer
    monkeypatch.setattr(provider, "answer", lambda asked: (200, body) if asked == path else real(asked))
    with pytest.raises(Unreachable):
        issuer.identify(provider.token())


def test_an_answer_without_an_end_is_none(provider, issuer, monkeypatch):
    monkeypatch.setattr(provider, "answer", lambda _: (200, b" " * 5_000_000))
    with pytest.raises(Unreachable, match="1000000 bytes"):
        issuer.identify(provider.token())


@pytest.mark.parametrize(
    ("claim", "prefix", "changes", "scope"),
    [
        ("scope", "parlay:", {"scope": "parlay:read parlay:admin"}, Scope.ADMIN),
        ("scope", "parlay:", {"scope": ["parlay:read"]}, Scope.READ),
        ("scope", "parlay:", {"scope": "admin parlay:administrator xparlay:admin"}, None),
        ("scope", "parlay:", {"scope": None}, None),
        ("scope", "parlay:", {"scope": 7}, None),
        ("scope", "parlay:", {"scope": {"parlay:admin": True}}, None),
        ("roles", "", {"roles": ["tune"]}, Scope.TUNE),
        ("realm_access.roles", "parlay-", {"realm_access": {"roles": ["x", "parlay-tune", 5, None]}}, Scope.TUNE),
        ("realm_access.roles", "parlay-", {"realm_access": ["parlay-tune"]}, None),
        ("https://x.example/roles", "", {"https://x.example/roles": ["read"]}, Scope.READ),
    ],
)
def test_a_claim_says_the_scope(provider, clock, claim, prefix, changes, scope):
    issuer = Issuer(provider.url, AUDIENCE, claim, prefix, clock)
    assert issuer.identify(provider.token(**changes)).scope is scope


def test_accounts_of_subjects_are_told_apart_however_long(provider, issuer):
    subjects = ["ada", "a" * 50, "a" * 51, "a" * 52, "a\nb", "a" * 4000]
    accounts = [issuer.identify(provider.token(sub=subject)).account for subject in subjects]
    assert len(set(accounts)) == len(subjects)
    assert all(len(account) <= 60 and account.isprintable() for account in accounts)


@pytest.mark.parametrize(
    "url",
    [
        "http://id.example",
        "ftp://id.example",
        "id.example",
        "https://me:secret@id.example",
        "https://",
        "https://x?y=1",
    ],
)
def test_an_address_that_cannot_be_trusted_is_refused(url):
    with pytest.raises(BadInput, match="--oidc-issuer"):
        Issuer(url, AUDIENCE)
