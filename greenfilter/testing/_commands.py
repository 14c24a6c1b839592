"""How smtpd reads the arguments of SMTP commands. Pure functions."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import itertools
import re
from collections.abc import Iterable
from typing import NamedTuple

_ATOM = r"[A-Za-z0-9!#$%&'*/?^`{|}~+\-=_]+"
_LOCAL_PART = re.compile(rf"{_ATOM}(?:\.{_ATOM})*\Z", re.ASCII)
_HEADER = re.compile(rb"[!-9;-~]+[ \t]*:")
_DOMAIN = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\.?\Z", re.ASCII)
# SMTPD_MAXLOCALPARTSIZE without its NUL; RFC 1035, 2.3.4.
_MAX_LOCAL_PART_BYTES = 255
_MAX_DOMAIN_BYTES = 255


class Path(NamedTuple):
    """An address between brackets, and the ESMTP parameters behind it.

    Args:
        address: as smtpd keeps it; the local domain is added to a bare local part.
        options: ESMTP parameters.
    """

    address: str
    options: list[str]


def split_command(line: str) -> tuple[str, str | None]:
    """Split a command line into its verb, in upper case, and its argument if it has one."""
    upper = line.upper()
    for verb in ("MAIL FROM", "RCPT TO"):
        if upper.startswith(verb + ":"):
            return verb, line[len(verb) + 1 :].lstrip()
    verb, space, argument = line.partition(" ")
    return verb.upper(), argument.lstrip() if space else None


def bracketed(text: str) -> str | None:
    """What stands between the first ``<`` and the next ``>``."""
    start = text.find("<")
    end = text.find(">", start)
    return text[start + 1 : end] if start >= 0 <= end else None


def parse_path(argument: str, domain: str, null_allowed: bool) -> Path | None:
    """Read the argument of MAIL FROM or RCPT TO (``smtp_mailaddr()``).

    Args:
        argument: what follows the colon.
        domain: added to an address without one.
        null_allowed: whether ``<>`` is an address.

    Returns:
        None for a syntax error.
    """
    if not argument.startswith("<") or ">" not in argument:
        return None
    address, _, rest = argument[1:].partition(">")
    options = rest.split()
    if not address:
        return Path("", options) if null_allowed else None
    local_part, at, host = address.rpartition("@")
    if not at:
        local_part, host = address, domain
    local_part = local_part.rpartition(":")[2]
    if len(local_part) > _MAX_LOCAL_PART_BYTES or not _LOCAL_PART.match(local_part):
        return None
    if not is_domain(host):
        return None
    return Path(f"{local_part}@{host}", options)


def shown(phase: str, argument: str | None) -> str:
    """The argument of a command as the request to the filter has it."""
    if phase in ("mail-from", "rcpt-to"):
        return bracketed(argument or "") or ""
    return argument or "" if phase in ("helo", "ehlo", "auth") else ""


def unknown_option(options: list[str], known: tuple[str, ...]) -> str | None:
    """The first ESMTP parameter that does not begin with a known word."""
    return next((option for option in options if not option.upper().startswith(known)), None)


def is_malformed(lines: Iterable[bytes]) -> bool:
    """Whether smtpd refuses a message because of its header (``rfc5322_push()``).

    Args:
        lines: of the message, as the filter left it.
    """
    header = list(itertools.takewhile(bool, lines))
    if header and header[0][:1] in (b" ", b"\t"):
        return True
    return not all(line[:1] in (b" ", b"\t") or _HEADER.match(line) for line in header)


def is_domain(text: str) -> bool:
    """Whether HELO and EHLO accept it: a name, or an address literal."""
    if text.startswith("[") and text.endswith("]"):
        literal = text[1:-1]
        try:
            ipaddress.ip_address(literal[5:] if literal.upper().startswith("IPV6:") else literal)
        except ValueError:
            return False
        return True
    return len(text) <= _MAX_DOMAIN_BYTES and bool(_DOMAIN.match(text))


def parse_plain(response: str) -> tuple[str, str] | None:
    """User name and password in a PLAIN response (RFC 4616); None for a syntax error."""
    raw = decode_base64(response)
    if raw is None:
        return None
    _, username, password, *_ = [*raw.decode("utf-8", "surrogateescape").split("\0"), "", ""]
    return (username, password) if username and raw.count(b"\0") >= 2 else None


def decode_base64(text: str) -> bytes | None:
    """Decode base64; None for a syntax error."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
