"""Decisions at STARTTLS. They come before the handshake, which need not succeed for this."""

import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support.client import Client
from tests.support.filters import command
from tests.support.smtpd import Smtpd


@pytest.fixture(scope="module")
def server(require_smtpd, tmp_path_factory):
    directory = tmp_path_factory.mktemp("pki")
    make_certificate(directory)
    pki = "\n".join(
        f'pki mx.example.org {part} "{directory}/{part}.pem"' for part in ("cert", "key")
    )
    filters = {"decide": command("decide")}
    with Smtpd(filters, extra_conf=pki, listen_options="tls pki mx.example.org") as server:
        yield server
        assert server.alive(), server.last_log()


def make_certificate(directory):
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mx.example.org")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(
        name, name, key.public_key(), 1, now, now + datetime.timedelta(days=1)
    )
    encoding = serialization.Encoding.PEM
    certificate = builder.sign(key, hashes.SHA256())
    (directory / "cert.pem").write_bytes(certificate.public_bytes(encoding))
    (directory / "key.pem").touch(mode=0o600)
    (directory / "key.pem").write_bytes(
        key.private_bytes(
            encoding,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )


def starttls(client, decision):
    client.greet(f"starttls-{decision}.example.net")
    return client.command("STARTTLS")


@pytest.mark.parametrize("decision", ["nothing", "proceed", "junk"])
def test_what_does_not_refuse_begins_tls(server, decision):
    with Client(server.port) as client:
        assert starttls(client, decision).startswith("220 ")


def test_reject_refuses_tls_and_the_session_goes_on(server):
    with Client(server.port) as client:
        assert starttls(client, "reject") == "550 5.7.1 refused here"
        assert client.command("HELP").startswith("214 ")


@pytest.mark.parametrize("decision", ["rewrite", "report"])
def test_a_decision_that_starttls_does_not_allow_becomes_a_temporary_refusal(server, decision):
    with Client(server.port) as client:
        assert starttls(client, decision).startswith("451 4.3.0 ")
        assert client.command("HELP").startswith("214 ")


def test_disconnect_refuses_tls_and_ends_the_session(server):
    with Client(server.port) as client:
        assert starttls(client, "disconnect") == "550 5.7.1 refused here"
        assert client.closed()
