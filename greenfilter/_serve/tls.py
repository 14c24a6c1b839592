"""A certificate that lives as long as the server."""

from __future__ import annotations

import datetime
import os
import ssl
import tempfile

import gevent.ssl


def throw_away_context(hostname: str) -> ssl.SSLContext:
    """Make a TLS context with a new, self-signed certificate.

    The key is on disk (mode 600) only while OpenSSL loads it. Never switches greenlets.

    Args:
        hostname: subject of the certificate.

    Raises:
        ImportError: cryptography is not installed.
    """
    context: ssl.SSLContext = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(_certificate_and_key(hostname))
        file.flush()
        context.load_cert_chain(file.name)
    return context


def _certificate_and_key(hostname: str) -> bytes:
    # Not at the top: without it there is a server, only no TLS.
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, hostname)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=365))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(hostname)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return certificate.public_bytes(serialization.Encoding.PEM) + private
