"""Private keys: where they are, and what they sign."""

from __future__ import annotations

import argparse
import hashlib
import os
import re
from typing import NamedTuple

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa

from ..._mail.header_text import to_a_labels
from ...errors import GreenfilterError

_MIN_RSA_BITS = 1024  # RFC 8301, 3.2
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.I)  # RFC 6376, 3.5; RFC 5321, 4.1.2


class KeyProblem(GreenfilterError):
    """A key cannot be had; the text says which one, and why."""


class Place(NamedTuple):
    """A file with a private key, and where its public half is published."""

    domain: str
    selector: str
    path: str

    def __str__(self) -> str:
        """Name the key."""
        return f"{self.domain}:{self.selector}"


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


def parse_place(text: str, directory: str = "") -> Place:
    """Parse a key's place from ``DOMAIN:SELECTOR:FILE``.

    Args:
        text: says where.
        directory: that FILE is relative to.

    Raises:
        argparse.ArgumentTypeError: it is not of this form, or verifiers do not take its names.
    """
    domain, _, rest = text.partition(":")
    selector, _, path = rest.partition(":")
    if not path:
        raise argparse.ArgumentTypeError(f"{text!r} is not DOMAIN:SELECTOR:FILE")
    domain, selector = _published(domain, 2, "domain"), _published(selector, 1, "selector")
    if len(f"{selector}._domainkey.{domain}") > 253:
        raise argparse.ArgumentTypeError(
            f"{selector}._domainkey.{domain} is not a name in DNS: too long"
        )
    return Place(domain, selector, os.path.join(directory, path))


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


def _published(name: str, labels: int, what: str) -> str:
    """Return a domain or selector as A-labels, if verifiers take it (RFC 6376, 3.1 and 3.5)."""
    try:
        found = to_a_labels(name.rstrip(".")).split(".")
        if len(found) < labels or not all(map(_LABEL.fullmatch, found)):
            raise ValueError
        if labels > 1 and found[-1].isdigit():
            raise ValueError
    except ValueError:
        problem = f"{name!r}: verifiers take no such {what} (letters, digits, - within, and dots)"
        raise argparse.ArgumentTypeError(problem) from None
    return ".".join(found)
