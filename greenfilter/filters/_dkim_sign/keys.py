"""Private keys, and what they sign."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa

from .places import KeyProblem, Place

_MIN_RSA_BITS = 1024  # RFC 8301, 3.2


class Key(NamedTuple):
    """A private key, and where its public half is published."""

    domain: str
    selector: str
    private: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

    @property
    def algorithm(self) -> str:
        """The ``a=`` of signatures."""
        return f"{'rsa' if isinstance(self.private, rsa.RSAPrivateKey) else 'ed25519'}-sha256"

    def sign(self, data: bytes) -> bytes:
        """Sign ``data``."""
        if isinstance(self.private, rsa.RSAPrivateKey):
            return self.private.sign(data, padding.PKCS1v15(), hashes.SHA256())
        return self.private.sign(hashlib.sha256(data).digest())  # RFC 8463, 3


def load(place: Place) -> Key:
    """Read a key.

    Raises:
        KeyProblem: it cannot be read, or it is not valid for DKIM.
    """
    path = place.path
    try:
        with open(path, "rb") as file:
            private = serialization.load_pem_private_key(file.read(), password=None)
    except OSError as error:
        raise KeyProblem(f"{path}: {error.strerror}") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyProblem(f"{path}: no unencrypted PEM private key") from error
    if not isinstance(private, rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey):
        raise KeyProblem(f"{path}: neither an RSA nor an Ed25519 key")
    if isinstance(private, rsa.RSAPrivateKey) and private.key_size < _MIN_RSA_BITS:
        raise KeyProblem(f"{path}: {private.key_size} bits are too few for DKIM")
    return Key(place.domain, place.selector, private)
