"""Mail that is signed by another implementation, dkimpy."""

from __future__ import annotations

import base64
from functools import cache

import dkim
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

MAIL = (
    b"From: Alice <alice@example.com>\r\nTo: bob@example.org\r\nSubject: hello\r\n"
    b"Date: Fri, 27 Nov 2026 12:00:00 +0000\r\nMessage-ID: <1@example.com>\r\n"
    b"\r\nHello  Bob,\r\n.\r\n\r\nbye \r\n\r\n"
)


@cache
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def private_pem() -> bytes:
    return key().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )


def record() -> str:
    data = (
        key()
        .public_key()
        .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return f"v=DKIM1; k=rsa; p={base64.b64encode(data).decode()}"


def sign(mail: bytes = MAIL, domain: str = "example.com", form: str = "relaxed") -> bytes:
    """Put a signature on top."""
    forms = (form.encode(), form.encode())
    return dkim.sign(mail, b"k1", domain.encode(), private_pem(), canonicalize=forms) + mail


def seal(mail: bytes, domain: str = "list.example.net") -> bytes:
    """Put an ARC set on top; there has to be an Authentication-Results field of ``domain``."""
    fields = dkim.arc_sign(mail, b"k1", domain.encode(), private_pem(), domain.encode())
    return b"".join(fields) + mail
