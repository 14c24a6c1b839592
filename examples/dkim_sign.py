#!/usr/bin/env -S greenfilter run
r"""Sign mail with DKIM (RFC 6376), by RSA-SHA256 and Ed25519-SHA256 (RFC 8463).

Needs cryptography: pip install '.[dkim]' in a clone of greenfilter.

In smtpd.conf, for the listeners that your own users and programs use:

    filter dkim proc-exec "/usr/local/bin/greenfilter run /etc/mail/dkim_sign.py \
        --key example.org:k1:/etc/mail/k1.pem"
    listen on socket filter dkim
    listen on 0.0.0.0 port submission tls-require pki mx.example.org auth filter dkim

smtpd runs filters as its own user (``_smtpd`` or ``opensmtpd``): that user must be able to read
the keys, which are loaded once, at start. Name their whole paths. Make one, and the p= of
"v=DKIM1; k=rsa; p=...", the TXT record to publish at k1._domainkey.example.org, with

    openssl genrsa -out k1.pem 2048
    openssl pkey -in k1.pem -pubout -outform der | base64 -w0

or, for "v=DKIM1; k=ed25519; p=...",

    openssl genpkey -algorithm ed25519 -out k2.pem
    openssl pkey -in k2.pem -pubout -outform der | tail -c 32 | base64

The domain of the From header chooses the keys; several keys of one domain make several
signatures. Only mail from authenticated clients, the local socket and loopback is signed, unless
--network or --sign-all say otherwise. Do not forward strangers' mail to a loopback listener that
signs. Mail without one From header, or without a key for it, or with a header that verifiers do
not take, passes unsigned, with a log line; so does mail with lines above 998 octets, which servers
cut on its way. A CR without LF ends a line for them: in the body it is made CRLF first, in a header
a space (RFC 6376, 5.3). International domains may be written in Unicode or as A-labels.

smtpd edits a message after its filters, which would break the signature: it completes addresses
without a domain, adds Date and Message-ID, and removes Bcc. The same is done here first. The
``masquerade`` option of a listener cannot be: do not use both. In a chain of filters this one goes
last: what another changes after it breaks the signature too.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import ipaddress
import re
import socket
import sys
import textwrap
import time
from collections import Counter
from email.utils import formatdate, make_msgid
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa

from greenfilter import Filter, MessageTooBig, Need
from greenfilter._mail.header_text import to_a_labels

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

# RFC 6376, 5.4.1. The first are signed once more than they occur, so that none can be added.
OVERSIGNED = (
    "from reply-to subject date to cc message-id mime-version content-type "
    "content-transfer-encoding in-reply-to references"
)
SIGNED = (
    f"{OVERSIGNED} sender resent-from resent-to resent-cc resent-date resent-message-id list-id "
    "list-help list-unsubscribe list-unsubscribe-post list-subscribe list-post list-owner "
    "list-archive"
)
EDITED = ("From", "To", "Cc")  # by smtpd, where an address has no domain
MIN_RSA_BITS = 1024  # RFC 8301, 3.2
SMTPD_ADDRESS_BYTES = 4096  # smtpd leaves a longer address as it is
MAX_WRITTEN = 100  # fields that are written anew: RFC 5322, 3.6 allows three with addresses
MAX_LINE = 998  # octets (RFC 5322, 2.1.1)
LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.I)  # RFC 6376, 3.5; RFC 5321, 4.1.2
FIELD_NAMES = re.compile(r"[!-9<-~]+(:[!-9<-~]+)*")  # RFC 6376, 2.10
FIELD_NAME = re.compile(rb"^([!-9;-~]+):", re.M)  # smtpd knows none with a space before the colon
NEXT_FIELD = re.compile(rb"\r\n(?![ \t])")
FIELD = re.compile(rb"[!-9;-~]+[ \t]*:|From ")  # and what an mbox file has on top
SPACE = " \t\n\v\f\r"
WHITE = re.compile(r"[ \t]+")
WHITE_BYTES = re.compile(rb"[ \t]+")


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
        """Signature of ``data``."""
        if isinstance(self.private, rsa.RSAPrivateKey):
            return self.private.sign(data, padding.PKCS1v15(), hashes.SHA256())
        return self.private.sign(hashlib.sha256(data).digest())  # RFC 8463, 3


class BareReturn(ValueError):
    """The body has a CR that ends no line."""


# --- what smtpd would do after the filter (smtp_session.c, smtp_tx_dataline) ---


def scan(text: str, *, quoted_pairs: bool) -> Iterator[tuple[int, str, bool]]:
    """Read an address list as smtpd does.

    Args:
        text: value of the header, or one address.
        quoted_pairs: whether a backslash counts inside quotes too.

    Yields:
        Index, character and whether it is quoted, for all that is not in a comment; at last the
        length, "", and whether quotes or comments were left open.
    """
    quote = escape = False
    comment = 0
    for index, char in enumerate(text):
        if char == "(" and not escape and not quote:
            comment += 1
        elif char == '"' and not escape and not comment:
            quote = not quote
        elif char == ")" and not escape and not quote and comment:
            comment -= 1
            continue
        escape = char == "\\" and not escape and not comment and (quoted_pairs or not quote)
        if not comment:
            yield index, char, quote
    yield len(text), "", bool(quote or escape or comment)


def split_addresses(value: str) -> list[str]:
    """Split an address list at its commas."""
    chars = scan(value, quoted_pairs=True)
    commas = [index for index, char, quoted in chars if char == "," and not quoted]
    starts = [0, *(index + 1 for index in commas)]
    return [value[a:b] for a, b in zip(starts, [*commas, len(value)], strict=True)]


def complete_address(address: str, host: str) -> str:
    """Append ``@host`` to an address without a domain, where smtpd would."""
    if len(f"{address}@{host}".encode("utf-8", "surrogateescape")) >= SMTPD_ADDRESS_BYTES:
        return address
    *chars, (_, _, left_open) = scan(address, quoted_pairs=False)
    words, bracket, closing = [0], False, 0
    for index, char, quoted in chars:
        if char in "@:" and not quoted:  # a domain, or a group
            return address
        if char == "<" and not quoted:
            bracket, closing = True, closing or -1
        elif char == ">" and not quoted and bracket:
            bracket, closing = False, index
        if char not in SPACE and char != ")":
            words.append(index)
    end = len(address[:closing].rstrip(SPACE)) if closing else words[-1] + 1
    if left_open or bracket or address[end - 1 : end] in ("", "<", *SPACE):
        return address
    if address[:end] == "(":  # a comment alone: smtpd writes into it, unless a space leads
        return f" {address}"
    return f"{address[:end]}@{host}{address[end:]}"


def complete_addresses(value: str, host: str) -> str:
    """Append ``@host`` to every address of a list that has no domain."""
    # The space before the list and the newline after it matter where an address is malformed.
    addresses = split_addresses(f" {value}\n")
    return ",".join(complete_address(address, host) for address in addresses)[1:-1]


def edit_like_smtpd(headers: Any, host: str) -> None:
    """Make the edits that smtpd would make to the message after it was signed.

    Raises:
        ValueError: a field cannot be written; nothing was changed.
    """
    edits = []
    for name in EDITED:
        for index, value in enumerate(headers.get_all(name)):
            completed = complete_addresses(value, host)
            if completed != value:
                edits.append((name, index, octets(completed)))
    for name, _, value in edits:
        trial = type(headers)()
        trial.append(name, value)
        if problem := too_long(bytes(trial)):
            raise ValueError(problem)
    for name, index, value in edits:
        headers.replace(name, value, index=index)
    headers.remove("Bcc")
    present = set(FIELD_NAME.findall(bytes(headers).lower()))
    if b"date" not in present:
        headers.append("Date", formatdate(localtime=True))
    if b"message-id" not in present:
        headers.append("Message-ID", make_msgid(domain=host))


def too_long(field: bytes) -> str | None:
    """What is wrong with a field that has a line above 998 octets."""
    longest = max(map(len, field.split(b"\r\n")))
    name = field.partition(b":")[0].decode("ascii", "replace")
    return f"{name} needs a line of {longest} octets" if longest > MAX_LINE else None


def mend(headers: Any) -> None:
    """Put a space in the place of each CR that stands in a field."""
    seen: Counter[str] = Counter()
    for name, value in headers.items():
        if "\r" in value:
            headers.replace(name, octets(value), index=seen[name.lower()])
        seen[name.lower()] += 1


def octets(value: str) -> bytes:
    """A value of a field as it came."""
    return value.encode("utf-8", "surrogateescape")


# --- the signature ---


def unverifiable(headers: Any, signed: Sequence[str]) -> str | None:
    """What would make verifiers reject a good signature, if there is any such thing.

    Some take off other white space than RFC 6376, 3.4.2 says, and all want fields in a header.
    """
    for raw in NEXT_FIELD.split(bytes(headers).removesuffix(b"\r\n")):
        if raw and not FIELD.match(raw):
            return f"a header line that is no field: {raw[:40]!r}"
        if problem := too_long(raw):
            return problem
    if sum("\r" in value for _, value in headers.items()) > MAX_WRITTEN:
        return f"more than {MAX_WRITTEN} headers with a bare CR"
    for name, value in headers.items():
        if name.lower() in signed and value != value.strip(SPACE):
            return f"a control character at one end of {name}"
    return None


def body_hash(lines: Iterable[bytes]) -> bytes:
    """SHA-256 of a body in relaxed form (RFC 6376, 3.4.4), in one pass and linear time."""
    digest, blank = hashlib.sha256(), 0
    for line in lines:
        if b"  " in line or b"\t" in line:
            line = WHITE_BYTES.sub(b" ", line)
        line = line.rstrip(b" ")
        if line:
            digest.update(b"\r\n" * blank + line + b"\r\n")
            blank = 0
        else:
            blank += 1  # blank lines at the end do not count
    return digest.digest()


def sendable(lines: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of a body, which arrive as they are sent.

    Raises:
        BareReturn: one has a CR.
        ValueError: one is too long.
    """
    for line in lines:
        if b"\r" in line:
            raise BareReturn("a bare CR in the body")
        if len(line) > MAX_LINE:
            raise ValueError(f"a line of {len(line)} octets in the body")
        yield line


def body_lines(message: Any) -> Iterable[bytes]:
    """The lines after the header block, read as they are asked for."""
    lines = chain.from_iterable(message.lines())
    for line in lines:
        if not line:
            break
    return lines


def relaxed_header(name: str, value: str) -> str:
    """A header field in relaxed form (RFC 6376, 3.4.2), without its CRLF."""
    return f"{name.lower()}:{WHITE.sub(' ', value).strip(' ')}"


def signed_names(
    fields: Sequence[tuple[str, str]], signed: Sequence[str], oversigned: Sequence[str]
) -> list[str]:
    """The ``h=`` list: each name as often as it occurs, oversigned ones once more."""
    counts = Counter(name.lower() for name, _ in fields)
    return [name for name in signed for _ in range(counts[name] + (name in oversigned))]


def signature(
    fields: Sequence[tuple[str, str]], names: Sequence[str], digest: bytes, key: Key, now: int
) -> str:
    """Value of a DKIM-Signature field.

    White space stands wherever the field may be folded: relaxed form makes any folding equal.

    Args:
        fields: names and values of the header, in order.
        names: the ``h=`` list.
        digest: from :func:`body_hash`.
        key: signs.
        now: Unix time in seconds.
    """
    values: dict[str, list[str]] = {}
    for name, value in fields:
        values.setdefault(name.lower(), []).append(value)
    # RFC 6376, 5.4.2: of fields with the same name, the last is signed first.
    chosen = [(name, values[name].pop()) for name in names if values.get(name)]
    tags = (
        f"v=1; a={key.algorithm}; c=relaxed/relaxed; d={key.domain}; s={key.selector}; "
        f"t={now}; h={': '.join(names)}; bh={base64.b64encode(digest).decode()}; b="
    )
    hashed = [relaxed_header(name, value) for name, value in [*chosen, ("DKIM-Signature", tags)]]
    signed = key.sign("\r\n".join(hashed).encode("utf-8", "surrogateescape"))
    return tags + " ".join(textwrap.wrap(base64.b64encode(signed).decode(), 70))


def from_domain(value: str) -> str:
    """Domain of the first address of a From header, as A-labels; "" where it has none."""
    address = split_addresses(value)[0]
    chars = scan(address, quoted_pairs=True)
    ats = [index for index, char, quoted in chars if char == "@" and not quoted]
    if not ats:
        return ""
    domain = re.split(r"[\s>(;]", address[ats[-1] + 1 :].strip())[0]
    try:
        return to_a_labels(domain).rstrip(".")
    except ValueError:
        return ""


def keys_for(domain: str, keys: Sequence[Key], *, parents: bool) -> list[Key]:
    """The keys of a domain, or if ``parents`` of the nearest domain above it that has any."""
    while domain:
        found = [key for key in keys if key.domain == domain]
        if found or not parents:
            return found
        domain = domain.partition(".")[2]
    return []


def is_own(session: Any, networks: Sequence[Any]) -> bool:
    """Whether a client may have its mail signed: authenticated, local, or of ``networks``."""
    if session.authenticated or session.src is None:
        return bool(session.authenticated)
    ip = getattr(session.src.ip, "ipv4_mapped", None) or session.src.ip
    if ip is None:
        return session.src.path is not None
    return ip.is_loopback or any(ip in network for network in networks)


def sign_message(
    headers: Any, lines: Iterable[bytes], host: str, options: argparse.Namespace
) -> str | None:
    """Edit a message as smtpd will, and put the signatures on top.

    Args:
        headers: of the message, as ``Message.headers``.
        lines: of its body.
        host: name of the listener, which completes addresses.
        options: key, parent_domains, headers, oversign.

    Returns:
        None, or why the message was left as it is.

    Raises:
        BareReturn: the body has a CR without LF.
        ValueError: a line is above RFC 5322's 998 octets, or would be, completed. Nothing was
            changed but that CR in headers is a space.
    """
    senders = headers.get_all("From")
    if len(senders) != 1:
        return f"{len(senders)} From headers"
    if sum(len(headers.get_all(name)) for name in EDITED) > MAX_WRITTEN:
        return f"more than {MAX_WRITTEN} address headers"
    domain = from_domain(complete_addresses(senders[0], host))
    keys = keys_for(domain, options.key, parents=options.parent_domains)
    if not keys:
        return f"no key for {domain!r}"
    if problem := unverifiable(headers, options.headers):
        return problem
    digest = body_hash(sendable(lines))
    mend(headers)
    edit_like_smtpd(headers, host)
    fields = headers.items()
    names = signed_names(fields, options.headers, options.oversign)
    for key in reversed(keys):
        value = signature(fields, names, digest, key, int(time.time()))
        headers.prepend("DKIM-Signature", value)
    return None


def build(options: argparse.Namespace) -> Filter:
    """The filter."""
    needs = Need.SRC | Need.USERNAME | Need.GREETING | Need.MESSAGE_ID
    app = Filter("dkim-sign", deadline=120.0, needs=needs)

    @app.message(thread=True)
    def sign(ctx: Any, message: Any) -> None:
        if not options.sign_all and not is_own(ctx.session, options.network):
            return
        host = ctx.session.greeting or socket.gethostname()
        try:
            try:
                problem = sign_message(message.headers, body_lines(message), host, options)
            except BareReturn:
                message.body = message.body.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
                problem = sign_message(message.headers, body_lines(message), host, options)
        except (ValueError, MessageTooBig) as error:
            problem = str(error)
        if problem:
            ctx.log.warning("message %s is not signed: %s", ctx.tx.message_id, problem)

    return app


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, which smtpd logs as one."""

    def error(self, message: str) -> NoReturn:  # noqa: D102
        self.exit(2, f"{self.prog}: {message}; see --help\n")


def key(text: str) -> Key:
    """Load a key from ``DOMAIN:SELECTOR:FILE``."""
    domain, _, rest = text.partition(":")
    selector, _, path = rest.partition(":")
    if not path:
        raise ValueError(text)
    domain, selector = published(domain, 2, "domain"), published(selector, 1, "selector")
    if len(f"{selector}._domainkey.{domain}") > 253:
        raise argparse.ArgumentTypeError(
            f"{selector}._domainkey.{domain} is no name in DNS: too long"
        )
    try:
        with open(path, "rb") as file:
            private = serialization.load_pem_private_key(file.read(), password=None)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{path}: {error.strerror}") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise argparse.ArgumentTypeError(f"{path}: no unencrypted PEM private key") from error
    if not isinstance(private, rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey):
        raise argparse.ArgumentTypeError(f"{path}: neither an RSA nor an Ed25519 key")
    if isinstance(private, rsa.RSAPrivateKey) and private.key_size < MIN_RSA_BITS:
        raise argparse.ArgumentTypeError(f"{path}: {private.key_size} bits are too few for DKIM")
    return Key(domain, selector, private)


def published(name: str, labels: int, what: str) -> str:
    """A domain or selector as A-labels, if verifiers take it (RFC 6376, 3.1 and 3.5)."""
    try:
        found = to_a_labels(name.rstrip(".")).split(".")
        if len(found) < labels or not all(map(LABEL.fullmatch, found)):
            raise ValueError
        if labels > 1 and found[-1].isdigit():
            raise ValueError
    except ValueError:
        problem = f"{name!r}: verifiers take no such {what} (letters, digits, - within, and dots)"
        raise argparse.ArgumentTypeError(problem) from None
    return ".".join(found)


def names(text: str) -> list[str]:
    """Header names, in lower case, from text with colons or spaces between them."""
    found = list(dict.fromkeys(text.lower().replace(":", " ").split()))
    if not FIELD_NAMES.fullmatch(":".join(found)):
        raise ValueError(text)
    return found


def parse_options(arguments: Sequence[str]) -> argparse.Namespace:
    """The filter's options; exits with status 2 and one line if one is wrong."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = Parser(description=__doc__, formatter_class=raw, allow_abbrev=False)
    add = parser.add_argument
    text = "sign mail from DOMAIN with the PEM key in FILE; repeatable"
    add("--key", metavar="DOMAIN:SELECTOR:FILE", type=key, action="append", help=text)
    add("--parent-domains", action="store_true", help="sign for subdomains of DOMAIN too")
    text = "sign mail from this address or network too; repeatable"
    add("--network", type=ipaddress.ip_network, action="append", default=[], help=text)
    add("--sign-all", action="store_true", help="sign mail from any client")
    text = "headers to sign, instead of those of RFC 6376"
    add("--headers", metavar="NAME:NAME...", type=names, default=SIGNED, help=text)
    text = "those of them that none may be added to, instead of all that occur once at most"
    add("--oversign", metavar="NAME:NAME...", type=names, default=OVERSIGNED, help=text)
    options = parser.parse_args(arguments)
    if not options.key:
        parser.error("argument --key: give one at least")
    if len({(key.domain, key.selector) for key in options.key}) < len(options.key):
        parser.error("argument --key: two keys have the same domain and selector")
    if "from" not in options.headers:
        parser.error("argument --headers: From must be signed (RFC 6376, 5.4)")
    if extra := set(options.oversign) - set(options.headers):
        parser.error(f"argument --oversign: {', '.join(sorted(extra))}: not in --headers")
    return options


options = parse_options(sys.argv[1:])
app = build(options)

if __name__ == "__main__":
    app.run()
