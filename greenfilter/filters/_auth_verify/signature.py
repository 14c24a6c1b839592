"""One signature field, of DKIM or ARC: its tags, its key, and whether it is right."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from ...errors import GreenfilterError
from .._dns import DnsError, Questions
from .domains import a_labels, is_below
from .signed import FORMS, BodyForm, BodyHash, Field, select, without_signature

CLOCK_SECONDS = 3600  # that other people's clocks may be wrong
RSA_BITS = (1024, 8192)  # RFC 8301, 3.2; above it takes long
_TAG = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z")
_WHITE = re.compile(r"[ \t\r\n]+")
_TIME = re.compile(r"\d{1,12}\Z")
_LENGTH = re.compile(r"\d{1,76}\Z")
_ALGORITHMS = ("rsa-sha256", "ed25519-sha256")


class SignatureProblem(GreenfilterError):
    """Why a signature does not count.

    Args:
        result: a word of RFC 8601, 2.7.1.
        reason: in words.
    """

    def __init__(self, result: str, reason: str) -> None:
        super().__init__(reason)
        self.result = result
        self.reason = reason


def wrong(reason: str) -> SignatureProblem:
    """Make the problem that a signature can never be right."""
    return SignatureProblem("permerror", reason)


def parse_tags(text: bytes, what: str) -> dict[str, str]:
    """Read a list of tags (RFC 6376, 3.2).

    Raises:
        SignatureProblem: it is malformed, or a tag occurs twice.
    """
    parts = text.decode("utf-8", "surrogateescape").split(";")
    if not parts[-1].strip():
        parts.pop()
    tags: dict[str, str] = {}
    for part in parts:
        name, equals, value = part.partition("=")
        name = name.strip(" \t\r\n")
        if not equals or not _TAG.match(name):
            raise wrong(f"{what} syntax error")
        if name in tags:
            raise wrong(f"{what} has {name[:20]}= twice")
        tags[name] = value.strip(" \t\r\n")
    return tags


class Signature(NamedTuple):
    """A signature field that has been read.

    Attributes:
        field: itself.
        domain: d=, as DNS knows it.
        selector: s=.
        algorithm: a=.
        key_type: rsa or ed25519.
        identity: domain of i=.
        header_form: relaxed or simple.
        body: form of the body; None if only fields are signed (ARC-Seal).
        names: h=, in lower case.
        body_hash: bh=.
        value: b=.
    """

    field: Field
    domain: str
    selector: str
    algorithm: str
    key_type: str
    identity: str
    header_form: str
    body: BodyForm | None
    names: list[bytes]
    body_hash: bytes
    value: bytes

    def verify(self, data: bytes, bodies: Mapping[BodyForm, BodyHash], questions: Questions) -> str:
        """Check the signature. Switches greenlets.

        Args:
            data: the fields that are signed, in canonical form, with CRLF after each.
            bodies: what the body came to in each form.
            questions: asked for the key.

        Returns:
            A remark: "" if there is nothing to say.

        Raises:
            SignatureProblem: it is not right.
        """
        remark = self._check_body(bodies[self.body], self.body) if self.body else ""
        key = find_key(questions, self)
        data += FORMS[self.header_form](without_signature(self.field))
        try:
            if isinstance(key, RSAPublicKey):
                key.verify(self.value, data, padding.PKCS1v15(), hashes.SHA256())
            else:
                key.verify(self.value, hashlib.sha256(data).digest())  # RFC 8463, 3
        except InvalidSignature:
            raise SignatureProblem("fail", "signature did not verify") from None
        return remark

    def signed_fields(self, fields: Sequence[Field]) -> bytes:
        """Return the fields that h= names in canonical form."""
        form = FORMS[self.header_form]
        others = [field for field in fields if field is not self.field]
        return b"".join([form(field) + b"\r\n" for field in select(others, self.names)])

    def _check_body(self, body: BodyHash, form: BodyForm) -> str:
        digest = body.digest()
        if form.length is not None and form.length > body.size:
            raise wrong("l= is larger than the body")
        if digest != self.body_hash:
            raise SignatureProblem("fail", "body hash did not verify")
        if form.length is not None and form.length < body.size:
            return f"only {form.length} of {body.size} octets of the body are signed"
        return ""


def parse_signature(
    field: Field, tags: dict[str, str], now: float, required: str, *, dkim: bool
) -> Signature:
    """Check the tags of a signature (RFC 6376, 3.5 and 6.1.1).

    Args:
        field: itself.
        tags: of it.
        now: seconds since 1970.
        required: names of tags.
        dkim: whether what only DKIM asks for is checked.

    Raises:
        SignatureProblem: it cannot be right, or has expired.
    """
    for name in required.split():
        if not tags.get(name):
            raise wrong(f"signature without {name}=" if name not in tags else f"{name}= is empty")
    algorithm = tags["a"]
    if algorithm not in _ALGORITHMS:
        raise wrong("rsa-sha1 is historic" if algorithm == "rsa-sha1" else "unknown algorithm")
    domain, selector = _name(tags["d"], "d"), _name(tags["s"], "s")
    identity = domain
    if dkim and "i" in tags:
        identity = _name(tags["i"].rpartition("@")[2], "i")
        if not is_below(identity, domain) or "@" not in tags["i"]:
            raise wrong("domain mismatch of i= and d=")
    _check_times(tags, now)
    header_form, _, body_form = _forms(tags.get("c"), dkim)
    names = [name.strip().lower().encode() for name in _ascii(tags.get("h", "")).split(":")]
    body = None
    if "bh" in tags:
        body = BodyForm(body_form, _length(tags.get("l")))
    return Signature(
        field,
        domain,
        selector,
        algorithm,
        algorithm.partition("-")[0],
        identity,
        header_form,
        body,
        names,
        decode(tags.get("bh", ""), "bh="),
        decode(tags["b"], "b="),
    )


def decode(text: str, what: str) -> bytes:
    """Decode base64 with white space in it.

    Raises:
        SignatureProblem: it is not a key.
    """
    try:
        return base64.b64decode(_WHITE.sub("", text).encode("ascii"), validate=True)
    except (binascii.Error, UnicodeError):
        raise wrong(f"{what} is not base64") from None


def _ascii(text: str) -> str:
    if not text.isascii():
        raise wrong("h= is malformed")
    return text


def _name(text: str, tag: str) -> str:
    try:
        return a_labels(text)
    except ValueError:
        raise wrong(f"{tag}= is not a domain name") from None


def _check_times(tags: dict[str, str], now: float) -> None:
    for tag in ("t", "x"):
        if tag in tags and not _TIME.match(tags[tag]):
            raise wrong(f"{tag}= is not a time")
    signed, expires = (int(tags[tag]) if tag in tags else None for tag in ("t", "x"))
    if expires is not None and signed is not None and expires < signed:
        raise wrong("expires before it was signed")
    if expires is not None and expires < now:
        raise SignatureProblem("fail", "signature expired")
    if signed is not None and signed > now + CLOCK_SECONDS:
        raise SignatureProblem("neutral", "timestamp in the future")


def _forms(value: str | None, dkim: bool) -> tuple[str, str, str]:
    # RFC 8617, 4.1.2 leaves the default open; what signs ARC without c= means relaxed.
    default = "simple/simple" if dkim else "relaxed/relaxed"
    header, slash, body = (default if value is None else value).partition("/")
    if header not in FORMS or (slash and body not in FORMS):
        raise wrong("unknown canonicalization")
    return header, slash, body or "simple"


def _length(value: str | None) -> int | None:
    if value is None:
        return None
    if not _LENGTH.match(value):
        raise wrong("l= is not a number")
    return int(value)


# --- keys (RFC 6376, 3.6) ---


def find_key(questions: Questions, signature: Signature) -> RSAPublicKey | Ed25519PublicKey:
    """Ask for the key of a signature. Switches greenlets.

    Raises:
        SignatureProblem: there is none that may be used for it, or nobody answers.
    """
    try:
        texts = questions.texts(f"{signature.selector}._domainkey.{signature.domain}")
    except DnsError as error:
        raise SignatureProblem("temperror", f"key unavailable: {error}") from None
    if not texts:
        raise wrong("no key for signature")
    # Several records are undefined; one of something else may be there (a wildcard).
    for text in texts[:4]:
        try:
            return _key(parse_tags(text, "key"), signature)
        except SignatureProblem as error:
            problem = error
    raise problem


def _key(tags: dict[str, str], signature: Signature) -> RSAPublicKey | Ed25519PublicKey:
    def items(name: str, default: str) -> list[str]:
        return [item.strip() for item in tags.get(name, default).split(":")]

    if tags.get("v", "DKIM1") != "DKIM1" or ("v" in tags and next(iter(tags)) != "v"):
        raise wrong("unknown version of key")
    if "p" not in tags:
        raise wrong("key syntax error: no p=")
    if tags.get("k", "rsa") != signature.key_type:
        raise wrong("inappropriate key algorithm")
    if "sha256" not in items("h", "sha256"):
        raise wrong("inappropriate hash algorithm")
    if not {"*", "email"}.intersection(items("s", "*")):
        raise wrong("service type is not email")
    if "s" in items("t", "") and signature.identity != signature.domain:
        raise wrong("i= is a subdomain, and the key does not allow it")
    if not tags["p"]:
        raise wrong("key revoked")
    return _load_key(decode(tags["p"], "key"), signature.key_type)


def _load_key(data: bytes, key_type: str) -> RSAPublicKey | Ed25519PublicKey:
    try:
        if key_type == "ed25519":
            return Ed25519PublicKey.from_public_bytes(data)
        key: Any = serialization.load_der_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        raise wrong("key syntax error") from None
    if not isinstance(key, RSAPublicKey):
        raise wrong("inappropriate key algorithm")
    least, most = RSA_BITS
    if not least <= key.key_size <= most:
        raise wrong(f"RSA key of {key.key_size} bits")
    return key
