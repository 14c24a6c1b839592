"""What smtpd does to a message after its filters (smtp_session.c, smtp_tx_dataline), done before.

It would break a signature: addresses without a domain are completed, Date and Message-ID added,
Bcc removed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from email.utils import formatdate, make_msgid
from typing import Any

EDITED = ("From", "To", "Cc")  # where an address has no domain
SPACE = " \t\n\v\f\r"
_ADDRESS_BYTES = 4096  # smtpd leaves a longer address as it is
MAX_LINE = 998  # octets (RFC 5322, 2.1.1)
_FIELD_NAME = re.compile(rb"^([!-9;-~]+):", re.M)  # smtpd knows none with a space before the colon


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
    if len(f"{address}@{host}".encode("utf-8", "surrogateescape")) >= _ADDRESS_BYTES:
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
    present = set(_FIELD_NAME.findall(bytes(headers).lower()))
    if b"date" not in present:
        headers.append("Date", formatdate(localtime=True))
    if b"message-id" not in present:
        headers.append("Message-ID", make_msgid(domain=host))


def too_long(field: bytes) -> str | None:
    """Return what is wrong with a field that has a line above 998 octets."""
    longest = max(map(len, field.split(b"\r\n")))
    name = field.partition(b":")[0].decode("ascii", "replace")
    return f"{name} needs a line of {longest} octets" if longest > MAX_LINE else None


def octets(value: str) -> bytes:
    """Return a value of a field as it came."""
    return value.encode("utf-8", "surrogateescape")
