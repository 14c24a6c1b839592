#!/usr/bin/env -S greenfilter run
r"""Sign what your own users and programs send with DKIM (RFC 6376): a filter to learn from.

Needs dkimpy. The one to put behind a mail server is stock: ``greenfilter run dkim_sign --help``; it
signs what smtpd makes of a message after its filters, such as an address without a domain.
In smtpd.conf, with domain, selector and the file of the private key:

    filter dkim proc-exec "/usr/local/bin/greenfilter run /etc/mail/dkim_sign.py \
        example.org k1 /etc/mail/k1.pem"
    listen on socket filter dkim
    listen on 0.0.0.0 port submission tls-require pki mx.example.org auth filter dkim
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import dkim

from greenfilter import Filter

DOMAIN, SELECTOR, FILE = sys.argv[1:]
KEY = Path(FILE).read_bytes()
SIGNED = ("From", "To", "Cc", "Subject", "Date", "Message-ID", "MIME-Version")

app = Filter("dkim", deadline=60.0, on_error="proceed")


def is_own(session: Any) -> bool:
    """Return whether a client has authenticated, or is on this host."""
    src = session.src
    return bool(session.authenticated or src.path or (src.ip and src.ip.is_loopback))


@app.message(thread=True)  # RSA takes a millisecond of the processor: not in the loop
def sign(ctx: Any, message: Any) -> None:
    """Put a signature on top."""
    author = message.headers.get("From", "").rstrip("> ").lower()
    if not is_own(ctx.session) or not author.endswith(f"@{DOMAIN}"):
        return
    signature = dkim.sign(
        message.raw,
        SELECTOR.encode(),
        DOMAIN.encode(),
        KEY,
        canonicalize=(b"relaxed", b"relaxed"),
        include_headers=[name.encode() for name in SIGNED if name in message.headers],
    )
    name, _, value = signature.decode().partition(": ")
    message.headers.prepend(name, value.rstrip("\r\n"))
