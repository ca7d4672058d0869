"""Where a load goes, with which key, and whom the client trusts."""

import asyncio
import ipaddress
import json
import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from serve.load.client import LoadRun
from serve.load.endpoint import Endpoint, bearer
from serve.load.request_sample import Outcome
from serve.load.request_spec import Call
from tests.mock_server import MockServer
from tuner.errors import BadInput


@pytest.mark.parametrize(
    "url",
    ["", "localhost:8000", "ftp://host", "http://", "file:///etc/passwd", "http://h:99999", "http://h/\r\nX: y"],
)
def test_what_is_no_address_is_refused(url):
    with pytest.raises(BadInput):
        Endpoint(url, "m")


@pytest.mark.parametrize(
    ("url", "chat", "address", "line", "host"),
    [
        ("http://h", False, ("h", 80), "POST /v1/completions HTTP/1.1", "h"),
        ("https://h/", True, ("h", 443), "POST /v1/chat/completions HTTP/1.1", "h"),
        ("http://h:81/a/b/", False, ("h", 81), "POST /a/b/v1/completions HTTP/1.1", "h:81"),
        ("http://[::1]:81", False, ("::1", 81), "POST /v1/completions HTTP/1.1", "[::1]:81"),
    ],
)
def test_what_is_sent_where(url, chat, address, line, host):
    endpoint = Endpoint(url, "m", chat=chat)
    lines = endpoint.request_head().decode().split("\r\n")
    assert endpoint.address == address
    assert lines[0] == line
    assert f"Host: {host}" in lines
    assert lines[-1] == "Content-Length: "


@pytest.mark.parametrize("url", ["http://user:secret@h", "http://secret@h"])
def test_a_password_in_an_address_is_refused_and_not_repeated(url):
    with pytest.raises(BadInput) as bad:
        Endpoint(url, "m")
    assert "secret" not in str(bad.value)


@pytest.mark.parametrize("header", [("X-A", "b\r\nX-C: d"), ("X: A", "b"), ("X A", "b"), ("X\n", "b")])
def test_a_header_cannot_smuggle_another(header):
    with pytest.raises(BadInput):
        Endpoint("http://h", "m", headers=(header,))


def test_a_key_comes_from_the_environment_or_a_file_and_is_never_shown(monkeypatch, tmp_path):
    monkeypatch.setenv("THE_KEY", " sk-secret\n")
    (tmp_path / "key").write_text("sk-secret\n")
    for header in (bearer("THE_KEY"), bearer(file=tmp_path / "key")):
        assert header == (("Authorization", "Bearer sk-secret"),)
        assert "secret" not in repr(Endpoint("http://h", "m", headers=header))
    assert bearer() == ()


@pytest.mark.parametrize("content", [None, "", "two\nlines", "ключ"])
def test_a_place_without_a_key_is_named_and_its_content_is_not(tmp_path, content):
    file = tmp_path / "key"
    if content is not None:
        file.write_text(content)
    with pytest.raises(BadInput, match="key") as bad:
        bearer(file=file)
    assert not content or content not in str(bad.value)


def test_an_unset_variable_is_named():
    with pytest.raises(BadInput, match="NO_SUCH_KEY"):
        bearer("NO_SUCH_KEY")
    with pytest.raises(BadInput):
        bearer("A", file="b")


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """A certificate for 127.0.0.1 that signs itself, as a file, with the server's context."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    pem, secret = folder / "ca.pem", folder / "key.pem"
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, secret)
    return pem, context


def one_sample(endpoint):
    body = json.dumps({"model": "m", "prompt": [1], "max_tokens": 2, "stream": True}).encode()
    return asyncio.run(LoadRun(endpoint, 20.0).run([Call(0, 0.0, body, 1, 2)]))[0]


def test_an_authority_of_ones_own_is_trusted(authority):
    pem, context = authority
    with MockServer(tls=context) as server:
        assert one_sample(Endpoint(server.url, "m", ca_file=pem)).ok


def test_an_unknown_authority_is_not_trusted(authority):
    with MockServer(tls=authority[1]) as server:
        sample = one_sample(Endpoint(server.url, "m"))
    assert sample.outcome is Outcome.TLS
    assert "certificate" in sample.detail


def test_a_certificate_for_another_host_is_not_trusted(authority):
    pem, context = authority
    with MockServer(tls=context) as server:
        sample = one_sample(Endpoint(server.url.replace("127.0.0.1", "localhost"), "m", ca_file=pem))
    assert sample.outcome is Outcome.TLS


def test_a_server_without_tls_fails_as_tls(authority):
    with MockServer() as server:
        sample = one_sample(Endpoint(server.url.replace("http:", "https:"), "m", ca_file=authority[0]))
    assert sample.outcome is Outcome.TLS


def test_a_file_without_certificates_is_refused(tmp_path):
    (tmp_path / "ca.pem").write_text("nothing")
    for file in (tmp_path / "ca.pem", tmp_path / "missing.pem"):
        with pytest.raises(BadInput, match="ca_file"):
            LoadRun(Endpoint("https://h", "m", ca_file=file), 1.0)
    with pytest.raises(BadInput, match="https"):
        Endpoint("http://h", "m", ca_file=tmp_path / "ca.pem")
