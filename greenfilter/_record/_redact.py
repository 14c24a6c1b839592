"""Credentials are left out of recordings; the user name stays.

They stand in auth requests, in the rewrite of one (in the filter's answer, and in the report of
it), and in protocol-client: behind AUTH, and in the lines that continue it. smtpd writes stars
for most of the latter, but not after an exchange that failed. Such a line cannot be told from
another single word that is no command, so each of these becomes stars.
"""

from __future__ import annotations

import base64
import binascii
import re

STARS = b"********"

_COMMANDS = frozenset(
    b"HELO EHLO LHLO STARTTLS AUTH MAIL RCPT DATA BDAT RSET QUIT NOOP HELP WIZ VRFY EXPN".split()
)
_VERBS = b"|".join(sorted(_COMMANDS))
# What stands in every line that holds a secret.
_MARKS = (b"|auth|", b"|rewrite|", b"|protocol-client|")
# Each begins at a line's begin: what looks like these inside a message is not touched.
_SECRETS = re.compile(
    rb"^(filter\|[^|\n]*\|[^|\n]*\|smtp-in\|auth\|[^|\n]*\|[^|\n]*\|"
    rb"|filter-result\|[^|\n]*\|[^|\n]*\|rewrite\|(?=(?i:PLAIN|LOGIN|CRAM-MD5|XOAUTH2) )"
    rb"|report\|[^|\n]*\|[^|\n]*\|[^|\n]*\|filter-response\|[^|\n]*\|auth\|rewrite\|"
    rb"|report\|[^|\n]*\|[^|\n]*\|[^|\n]*\|protocol-client\|[^|\n]*\|(?i:AUTH)[ \t]+)([^\n]+)$",
    re.MULTILINE,
)
_CONTINUATION = re.compile(
    rb"^(report\|[^|\n]*\|[^|\n]*\|[^|\n]*\|protocol-client\|[^|\n]*\|)"
    rb"(?!(?i:" + _VERBS + rb")\r?$)[^\s|.*][^\s|]*\r?$",
    re.MULTILINE,
)
_MECHANISM = re.compile(rb"([A-Za-z0-9_-]{1,20})(?:[ \t]+(.*)|[ \t\r]*)\Z", re.DOTALL)


def redact(lines: bytes) -> bytes:
    """Put stars in place of the credentials in whole lines of the protocol.

    Only lines with a mark are looked at: a third of the time that the patterns take for all.
    """
    places: dict[int, int] = {}
    for mark in _MARKS:
        found = lines.find(mark)
        while found >= 0:
            end = lines.find(b"\n", found)
            end = len(lines) if end < 0 else end
            places[lines.rfind(b"\n", 0, found) + 1] = end
            found = lines.find(mark, end)
    if not places:
        return lines
    pieces, done = [], 0
    for begin, end in sorted(places.items()):
        pieces += [lines[done:begin], _redact_line(lines[begin:end])]
        done = end
    return b"".join([*pieces, lines[done:]])


def _redact_line(line: bytes) -> bytes:
    words = line.split(b"|", 6)
    if words[4:5] == [b"protocol-client"] and _is_plain(words[-1].upper()):
        return line
    line = _SECRETS.sub(lambda found: found[1] + redact_auth(found[2]), line)
    return _CONTINUATION.sub(rb"\1" + STARS, line)


def redact_auth(parameter: bytes) -> bytes:
    """Put stars in place of the credentials behind the mechanism.

    The user name stays: that of ``PLAIN`` (RFC 4616) is encoded again with stars as its password,
    so that a filter that decodes it still can. What follows ``LOGIN`` is a user name.
    """
    found = _MECHANISM.match(parameter)
    if found is None:
        return STARS
    mechanism, response = found.groups()
    if not response:
        return parameter
    kept = STARS
    words = _decoded(response).split(b"\0")
    if mechanism.upper() == b"PLAIN" and len(words) == 3:
        kept = base64.b64encode(b"\0".join([*words[:2], STARS]))
    elif mechanism.upper() == b"LOGIN" and len(words) == 1 and words[0]:
        kept = response
    return mechanism + b" " + kept


def _decoded(response: bytes) -> bytes:
    try:
        return base64.b64decode(response.strip(), validate=True)
    except binascii.Error:
        return b""


def _is_plain(said: bytes) -> bool:
    """Whether it is clear without more that a line of a client's, in capitals, has no secret."""
    return said in _COMMANDS or (b" " in said and not said.startswith(b"AUTH"))
