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

_VERBS = b"|".join(
    b"HELO EHLO LHLO STARTTLS AUTH MAIL RCPT DATA BDAT RSET QUIT NOOP HELP WIZ VRFY EXPN".split()
)
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
    """Put stars in place of the credentials in whole lines of the protocol."""
    if b"|auth|" in lines or b"|rewrite|" in lines or b"|protocol-client|" in lines:
        lines = _SECRETS.sub(lambda found: found[1] + redact_auth(found[2]), lines)
        lines = _CONTINUATION.sub(rb"\1" + STARS, lines)
    return lines


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
