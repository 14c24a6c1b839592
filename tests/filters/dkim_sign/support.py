"""Keys, their DNS records, and verification by dkimpy."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import dkim
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

if TYPE_CHECKING:
    from pathlib import Path

RSA = rsa.generate_private_key(public_exponent=65537, key_size=1024)
ED25519 = ed25519.Ed25519PrivateKey.generate()


def write_key(path: Path, private: Any) -> str:
    """Write a private key as PEM; return the path."""
    data = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.write_bytes(data)
    return str(path)


def key_options(directory: Path, domain: str = "example.org") -> list[str]:
    """Options for the RSA key by selector r1 and the Ed25519 key by selector e1."""
    return [
        f"--key={domain}:r1:" + write_key(directory / "r1.pem", RSA),
        f"--key={domain}:e1:" + write_key(directory / "e1.pem", ED25519),
    ]


def dns_record(private: Any) -> bytes:
    """The TXT record that publishes a key (RFC 6376, 3.6.1; RFC 8463, 4)."""
    encoding, form = serialization.Encoding, serialization.PublicFormat
    if isinstance(private, rsa.RSAPrivateKey):
        kind = b"rsa"
        public = private.public_key().public_bytes(encoding.DER, form.SubjectPublicKeyInfo)
    else:
        kind, public = b"ed25519", private.public_key().public_bytes(encoding.Raw, form.Raw)
    return b"v=DKIM1; k=" + kind + b"; p=" + base64.b64encode(public)


DNS = {
    b"r1._domainkey.example.org.": dns_record(RSA),
    b"e1._domainkey.example.org.": dns_record(ED25519),
}


def verified(signed: bytes) -> list[bool]:
    """Whether each signature verifies, from the top."""
    names = [name.lower() for name, _ in dkim.DKIM(signed).headers]
    return [_verify(signed, index) for index in range(names.count(b"dkim-signature"))]


def _verify(signed: bytes, index: int) -> bool:
    try:
        return bool(dkim.DKIM(signed).verify(index, dnsfunc=lambda name, timeout=5: DNS.get(name)))
    except dkim.ValidationError:  # where the hash of the body is another
        return False
