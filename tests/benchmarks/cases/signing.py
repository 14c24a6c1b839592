"""DKIM signatures per second next to filter-dkimsign, same key, same messages."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from .. import peers
from ..bench import GREENFILTER, SUPERVISED, Bench, Case, Contestant, Row, failed, race
from ..driver import WrongReplies
from ..wire import Sessions, Traffic, build, message_lines

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DOMAIN, SELECTOR = "example.net", "bench"
MESSAGE_BYTES = 4096
PEER = "filter-dkimsign"
ENDS = (b"|.\n", b"|proceed\n")


def make_key(folder: Path) -> tuple[Path, bytes]:
    """A new RSA-2048 key: its file, and the DNS record of its public half."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(65537, 2048)
    path = folder / "dkim.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return path, b"v=DKIM1; k=rsa; p=" + base64.b64encode(public)


def make_message() -> list[bytes]:
    """4 KB with headers that no server has to complete."""
    headers = [
        b"From: Alice <alice@example.net>",
        b"To: Bob <bob@example.org>",
        b"Subject: minutes",
        b"Date: Sun, 22 Nov 2026 07:50:57 +0000",
        b"Message-ID: <1@example.net>",
        b"",
    ]
    left = MESSAGE_BYTES - sum(len(line) + 2 for line in headers)
    return [*headers, *message_lines(4 + left // 72)[4:]]


def make_verifier(message: list[bytes], messages: int, record: bytes) -> Callable[[bytes], None]:
    """A check that every message came back whole, below one valid signature."""
    import dkim  # type: ignore[import-untyped]

    def verify(received: bytes) -> None:
        found: dict[bytes, list[bytes]] = {}
        for line in received.splitlines():
            kind, sid, _, text = line.split(b"|", 3)
            if kind == b"filter-dataline":
                found.setdefault(sid, []).append(text)
        if len(found) != messages:
            raise WrongReplies(f"{len(found)} of {messages} messages came back")
        for sid, lines in found.items():
            if lines[-len(message) - 1 :] != [*message, b"."]:
                raise WrongReplies(f"the message of session {sid!r} was changed")
            signed = b"".join(line + b"\r\n" for line in lines[:-1])
            if not dkim.verify(signed, dnsfunc=lambda name, timeout=5: record):
                raise WrongReplies(f"session {sid!r}: the signature is not valid")

    return verify


def _run(bench: Bench) -> list[Row]:
    case = "signing, 4 KB, RSA-2048"
    message, messages = make_message(), bench.size(1000, 40)
    try:
        key, record = make_key(bench.folder)
        verify = make_verifier(message, messages, record)
    except ImportError as error:
        return [failed(case, GREENFILTER, f"{error}; install greenfilter[bench]")]

    def traffic(hooks: frozenset[str]) -> Traffic:
        kind = Sessions(hooks, message, lambda lines: lines)
        return build(kind, messages, units=messages, lanes=1, at_once=64, markers=ENDS)

    stock = "dkim_sign"
    options = ("--key", f"{DOMAIN}:{SELECTOR}:{key}", "--network", "203.0.0.0/8")
    contestants = [Contestant(GREENFILTER, lambda: peers.greenfilter(stock, *options), traffic)]
    if peers.has_workers():
        contestants += [
            Contestant(SUPERVISED, lambda: peers.supervised(stock, *options), traffic),
            Contestant(
                "greenfilter 2 workers",
                lambda: peers.supervised(stock, *options, workers=2),
                traffic,
                1.5,
            ),
        ]
    contestants.append(Contestant(PEER, lambda: peers.dkimsign(key, DOMAIN, SELECTOR), traffic))
    for one in contestants:
        one.verify = verify
    return race(bench, case, "messages/s", contestants, base=PEER)


CASE = Case("signing", "DKIM signatures", _run)
