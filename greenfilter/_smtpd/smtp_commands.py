"""How smtpd reads the arguments of SMTP commands. Pure functions."""

from __future__ import annotations

import base64
import binascii
import itertools
import re
import socket
from collections.abc import Iterable
from typing import NamedTuple

_ATOM = r"[A-Za-z0-9!#$%&'*/?^`{|}~+\-=_]+"
_LOCAL_PART = re.compile(rf"{_ATOM}(?:\.{_ATOM})*\Z", re.ASCII)
# res_hnok(3), and no dot at the end; labels of RFC 1035, 2.3.4.
_LABEL = r"[A-Za-z0-9_-]{1,63}"
_DOMAIN = re.compile(rf"(?!-){_LABEL}(?:\.{_LABEL})*\Z", re.ASCII)
# SMTPD_MAXLOCALPARTSIZE without its NUL; 255 octets of RFC 1035, 2.3.4, as text.
_MAX_LOCAL_PART_BYTES = 255
_MAX_DOMAIN_BYTES = 253
_MAX_LITERAL_BYTES = 255
# rfc5322_parser_new(), MAX_HOPS_COUNT, DSN_ENVID_LEN.
_MAX_NAME_BYTES = 1024
_MAX_UNFOLDED_BYTES = 65_536
_MAX_HOPS = 100
_MAX_ENVID_BYTES = 100
_UNFOLDED = (b"from", b"to", b"cc")


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
    """Return what stands between the first ``<`` and the next ``>``."""
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
    options = [option for option in rest.split(" ") if option]
    local_part, host = _split_address(address)
    if len(local_part) > _MAX_LOCAL_PART_BYTES:
        return None
    local_part = local_part.partition(":")[2] if ":" in local_part else local_part
    if not (local_part or host) and null_allowed:
        return Path("", options)
    if not _LOCAL_PART.match(local_part) or not is_domain(host or domain):
        return None
    return Path(f"{local_part}@{host or domain}", options)


def _split_address(address: str) -> tuple[str, str]:
    local_part, at, host = address.rpartition("@")
    return (local_part, host) if at else (address, "")


def shown(phase: str, argument: str | None) -> str:
    """Return the argument of a command as the request to the filter has it."""
    if phase in ("mail-from", "rcpt-to"):
        return bracketed(argument or "") or ""
    return argument or "" if phase in ("helo", "ehlo", "auth") else ""


def refuse_mail_options(options: list[str]) -> str:
    """Return why smtpd refuses the ESMTP parameters of MAIL FROM, "" if it does not."""
    arguments = "503 5.5.4 Invalid command arguments:"
    for option in options:
        upper = option.upper()
        if upper.startswith("ENVID=") and len(option) - 6 > _MAX_ENVID_BYTES:
            return f"{arguments} option too large, truncated: {option[6:]}"
        is_known = upper.startswith(("AUTH=", "SIZE=", "RET=", "ENVID="))
        if not is_known and upper not in ("BODY=7BIT", "BODY=8BITMIME"):
            return f"{arguments} Unsupported option {option}"
    return ""


def refuse_rcpt_options(options: list[str], notify: set[str]) -> str:
    """Return why smtpd refuses the ESMTP parameters of RCPT TO, "" if it does not.

    Args:
        options: of the command.
        notify: what NOTIFY has said in this transaction so far: smtpd forgets nothing of it.
    """
    for option in options:
        upper = option.upper()
        if upper.startswith("NOTIFY="):
            notify.update({"SUCCESS", "FAILURE", "DELAY", "NEVER"} & set(upper[7:].split(",")))
            if "NEVER" in notify and len(notify) > 1:
                return "553 NOTIFY option NEVER cannot be combined with other options"
        elif upper.startswith("ORCPT="):
            local_part, host = _split_address(option[13 if upper[6:13] == "RFC822;" else 6 :])
            is_long = len(local_part) > _MAX_LOCAL_PART_BYTES
            if is_long or not _LOCAL_PART.match(local_part) or (host and not is_domain(host)):
                return "553 ORCPT address syntax error"
        else:
            return f"503 Unsupported option {option}"
    return ""


def header_fault(lines: Iterable[bytes]) -> str:
    """Return what smtpd finds wrong with a message's header: ``malformed``, ``loop`` or nothing.

    As ``smtp_tx_dataline()`` and ``rfc5322_next()`` do: what has a colon is a header line.

    Args:
        lines: of the message, as the filter left it.
    """
    hops = name_bytes = unfolded_bytes = 0
    name: bytes | None = None
    for line in itertools.takewhile(bool, lines):
        if name is not None and line[:1] in (b" ", b"\t"):
            unfolded_bytes += len(line) + 1
        else:
            name, colon, value = line.partition(b":")
            if not colon or name_bytes + len(name) + 1 > _MAX_NAME_BYTES:
                return "malformed"
            name_bytes = len(name) + 1
            unfolded_bytes = len(value) + 1
            hops += name.lower() == b"received"
            if hops >= _MAX_HOPS:
                return "loop"
        if name.lower() in _UNFOLDED and unfolded_bytes >= _MAX_UNFOLDED_BYTES:
            return "malformed"
    return ""


def is_domain(text: str) -> bool:
    """Return whether smtpd takes it for a domain: a name, or an address literal."""
    if not text.startswith("["):
        return len(text) <= _MAX_DOMAIN_BYTES and bool(_DOMAIN.match(text))
    literal = text[6:] if text[1:6].upper() == "IPV6:" else text[1:]
    if len(literal) > _MAX_LITERAL_BYTES or not literal.endswith("]"):
        return False
    return any(_is_address(family, literal[:-1]) for family in (socket.AF_INET6, socket.AF_INET))


def _is_address(family: int, text: str) -> bool:
    try:
        socket.inet_pton(family, text)
    except (OSError, ValueError):
        return False
    return True


def parse_plain(response: str) -> tuple[str, str] | None:
    """Return user name and password of a PLAIN response (RFC 4616); None for a syntax error."""
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
