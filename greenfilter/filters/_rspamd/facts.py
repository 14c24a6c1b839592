"""What rspamd is told of a message besides its bytes: the headers of the request."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import quote

from ... import Status
from .._clients import client_ip
from .http import Header

if TYPE_CHECKING:
    from ... import Context

_MOST_VALUE_BYTES = 4096
_NOT_PLAIN = re.compile(r"[^ -~]+")


def facts_of(ctx: Context, settings_id: str | None, mta_name: str | None) -> list[Header]:
    """Return the facts that are known, in UTF-8; octets that are none stay as they are.

    Args:
        ctx: of the message.
        settings_id: name of the rspamd settings to apply.
        mta_name: instead of the name in the server's greeting.
    """
    return [
        (name, value.encode("utf-8", "surrogateescape")[:_MOST_VALUE_BYTES])
        for name, value in _facts(ctx, settings_id, mta_name)
        if value
    ]


def _facts(
    ctx: Context, settings_id: str | None, mta_name: str | None
) -> Iterator[tuple[str, str | None]]:
    session, tx = ctx.session, ctx.tx
    ip = client_ip(session.src)
    # What comes over smtpd's socket is this host's own, and rspamd has rules for that.
    yield "IP", str(ip) if ip is not None else "127.0.0.1"
    yield "Helo", session.identity
    yield "Hostname", session.rdns if session.fcrdns is Status.OK else None
    yield "User", session.username
    if session.ciphers:
        version, _, rest = session.ciphers.partition(":")
        yield "TLS-Version", version
        yield "TLS-Cipher", rest.partition(":")[0] or version
    if tx is not None:
        yield "Queue-Id", tx.message_id
        yield "From", _path(tx.mail_from or "")
        for recipient in tx.rcpt_to:
            yield "Rcpt", _path(recipient)
    yield "MTA-Name", mta_name or session.greeting
    yield "MTA-Tag", "greenfilter"
    yield "Settings-ID", settings_id


def _path(address: str) -> str:
    """Return an address in brackets, in ASCII.

    rspamd drops others: the message would seem to have no sender. So domains become A-labels, which
    its rules know, and other octets are written as in URLs.
    """
    local, at, domain = address.rpartition("@")
    with contextlib.suppress(UnicodeError):  # nobody can look up such a domain
        domain = domain if domain.isascii() else domain.encode("idna").decode()
    return f"<{_NOT_PLAIN.sub(_percent, local + at + domain)}>"


def _percent(found: re.Match[str]) -> str:
    return quote(found[0].encode("utf-8", "surrogateescape"), safe="")
