"""Sign mail with DKIM (RFC 6376), by RSA-SHA256 and Ed25519-SHA256 (RFC 8463)."""

from __future__ import annotations

import argparse
import re
import socket
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from .. import Filter, Headers, MessageTooBig, Need
from ._clients import client_ip, is_in
from ._decide import Decider
from ._dkim_sign.canonical import BareReturn, body_lines
from ._dkim_sign.places import KeyProblem, place
from ._dkim_sign.signer import OVERSIGNED, SIGNED, Signer
from ._options import Options, parse_network
from ._paths import whole_value

if TYPE_CHECKING:
    from .. import Message, Session
    from ._dkim_sign.keys import Key

SUMMARY = "Sign mail with DKIM (RFC 6376), by RSA-SHA256 and Ed25519-SHA256 (RFC 8463)."
MANUAL = r"""
    In smtpd.conf, for the listeners that your own users and programs use:

        filter "dkim" proc-exec "/usr/local/bin/greenfilter run dkim_sign \
            --key example.org:k1:/etc/mail/k1.pem"
        listen on socket filter "dkim"
        listen on 0.0.0.0 port submission tls-require pki mx.example.org auth filter "dkim"

    smtpd runs filters as its own user (_smtpd or opensmtpd): that user must be able to read the
    keys. Name their whole paths. Make one, and the p= of "v=DKIM1; k=rsa; p=...", the TXT record to
    publish at k1._domainkey.example.org, with

        openssl genrsa -out k1.pem 2048
        openssl pkey -in k1.pem -pubout -outform der | base64 -w0

    or, for "v=DKIM1; k=ed25519; p=...",

        openssl genpkey -algorithm ed25519 -out k2.pem
        openssl pkey -in k2.pem -pubout -outform der | tail -c 32 | base64

    Many keys are better in a directory, as DOMAIN/SELECTOR.pem (or .key, .private), or in a table
    with DOMAIN:SELECTOR:FILE at the end of each line, as OpenDKIM's KeyTable has it (FILE is
    relative to the table's directory). Keys, tables and directories are read again within a second
    when they change. One that is broken then is refused with a log line, and what was read before
    goes on; at start it is an error.

    The domain of the From header chooses the keys; several keys of one domain make several
    signatures. Only mail from authenticated clients, the local socket and loopback is signed,
    unless --network or --sign-all say otherwise. Do not forward strangers' mail to a loopback
    listener that signs. Mail without one From header, or without a key for it, or with a header
    that verifiers do not take, passes unsigned, with a log line; so does mail with lines above 998
    octets, which servers cut on its way. A CR without LF ends a line for them: in the body it is
    made CRLF first, in a header a space (RFC 6376, 5.3). International domains may be written in
    Unicode or as A-labels. Mail that cannot be signed for another reason (no memory, a full disk)
    is refused for now, with 451.

    smtpd edits a message after its filters, which would break the signature: it completes addresses
    without a domain, adds Date and Message-ID, and removes Bcc. The same is done here first. The
    "masquerade" option of a listener cannot be: do not use both. In a chain of filters this one
    goes last: what another changes after it breaks the signature too.
"""
_FIELD_NAMES = re.compile(r"[!-9<-~]+(:[!-9<-~]+)*")  # RFC 6376, 2.10


def build(arguments: Sequence[str]) -> Filter:
    """Make the filter.

    Args:
        arguments: its options, see ``greenfilter run dkim_sign --help``.

    Raises:
        UsageError: an option is wrong, or a key cannot be read.
    """
    options = parse(arguments)
    signer = make_signer(options)
    needs = Need.SRC | Need.USERNAME | Need.GREETING | Need.MESSAGE_ID
    app = Filter("dkim-sign", deadline=120.0, on_error="tempfail", needs=needs)
    decide = Decider("dkim_sign", options.log_only)

    @app.message(thread=True)
    def sign(ctx: Any, message: Any) -> Any:
        if not options.sign_all and not is_own(ctx.session, options.network):
            return None
        try:
            keys = _sign(signer, ctx, message, edit=not options.log_only)
        except (ValueError, MessageTooBig) as error:
            ctx.log.warning("message %s is not signed: %s", ctx.tx.message_id, error)
            return None
        selectors = ",".join(key.selector for key in keys)
        decide(ctx, None, "sign", message=ctx.tx.message_id, d=keys[0].domain, s=selectors)
        return None

    return app


def _sign(signer: Signer, ctx: Any, message: Message, *, edit: bool) -> list[Key]:
    host = ctx.session.greeting or socket.gethostname()
    headers = message.headers if edit else Headers(bytes(message.headers))
    try:
        return signer.sign(headers, body_lines(message), host)
    except BareReturn:
        body = message.body.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if not edit:
            return signer.sign(headers, body.split(b"\n"), host)
        message.body = body
        return signer.sign(headers, body_lines(message), host)


def is_own(session: Session, networks: Iterable[Any]) -> bool:
    """Return whether a client has its mail signed: authenticated, local, or of ``networks``."""
    if session.authenticated or session.src is None:
        return session.authenticated
    ip = client_ip(session.src)
    if ip is None:
        return session.src.path is not None
    return ip.is_loopback or is_in(ip, networks)


def make_signer(options: argparse.Namespace) -> Signer:
    """Load the keys.

    Raises:
        UsageError: one cannot be read.
    """
    from ._dkim_sign.ring import KeyRing

    try:
        ring = KeyRing(options.key, options.key_table, options.key_directory)
    except KeyProblem as error:
        raise make_options().error(str(error)) from None
    return Signer(ring, options.headers, options.oversign, options.parent_domains)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the options.

    Raises:
        UsageError: one is wrong.
    """
    options = make_options()
    parsed = options.parse(arguments)
    if not (parsed.key or parsed.key_table or parsed.key_directory):
        raise options.error("give one --key, --key-table or --key-directory at least")
    if "from" not in parsed.headers:
        raise options.error("argument --headers: From must be signed (RFC 6376, 5.4)")
    if extra := set(parsed.oversign) - set(parsed.headers):
        raise options.error(f"argument --oversign: {', '.join(sorted(extra))}: not in --headers")
    return parsed


def make_options() -> Options:
    """Make the options."""
    options = Options("dkim_sign", SUMMARY, MANUAL)
    text = "sign mail from DOMAIN with the PEM key in FILE"
    options.add_list(
        "--key", place, text, "DOMAIN:SELECTOR:FILE", path=lambda text: place(text).path
    )
    text = "file with such a key at the end of each line; repeatable"
    options.add(
        "--key-table", path=whole_value, metavar="FILE", action="append", default=[], help=text
    )
    text = "directory with keys as DOMAIN/SELECTOR.pem; repeatable"
    options.add(
        "--key-directory",
        path=whole_value,
        metavar="DIRECTORY",
        action="append",
        default=[],
        help=text,
    )
    text = "sign for subdomains of DOMAIN too"
    options.add("--parent-domains", action="store_true", help=text)
    text = "sign mail from this address or network too"
    options.add_watched_list("--network", parse_network, text, "NETWORK")
    options.add("--sign-all", action="store_true", help="sign mail from any client")
    text = "headers to sign, instead of those of RFC 6376"
    options.add(
        "--headers",
        metavar="NAME:NAME...",
        type=parse_names,
        default=parse_names(SIGNED),
        help=text,
    )
    text = "those of them that none may be added to, instead of all that occur once at most"
    options.add(
        "--oversign",
        metavar="NAME:NAME...",
        type=parse_names,
        default=parse_names(OVERSIGNED),
        help=text,
    )
    options.add_log_only()
    return options


def parse_names(text: str) -> list[str]:
    """Parse header names, in lower case, from text with colons or spaces between them."""
    found = list(dict.fromkeys(text.lower().replace(":", " ").split()))
    if not _FIELD_NAMES.fullmatch(":".join(found)):
        raise ValueError(text)
    return found
