"""Credentials of AUTH are shown nowhere: not in a log, a trace, a recording or an error.

They stand in auth requests, in the rewrite of one (in the filter's answer, and in the report of
it), and in protocol-client: behind AUTH, and in the lines that continue it. smtpd writes stars
for most of the latter, but not after an exchange that failed. Such a line cannot be told from
another single word that is not a command, so each of these becomes stars. In recordings the user
name stays.
"""

from __future__ import annotations

import base64
import binascii
import re

from ._call import Call

STARS = b"********"

_COMMANDS = frozenset(
    b"HELO EHLO LHLO STARTTLS AUTH MAIL RCPT DATA BDAT RSET QUIT NOOP HELP WIZ VRFY EXPN".split()
)
_VERBS = b"|".join(sorted(_COMMANDS))
# What stands in every line that holds a secret.
_MARKS = (b"|auth|", b"|rewrite|", b"|protocol-client|", b"AUTH method ")
# What a client can name as a method; any other word may be the password.
_METHODS = frozenset(
    b"PLAIN LOGIN CRAM-MD5 DIGEST-MD5 SCRAM-SHA-1 SCRAM-SHA-256 XOAUTH2 OAUTHBEARER GSSAPI NTLM "
    b"EXTERNAL ANONYMOUS".split()
)
# Each begins at a line's begin: what looks like these inside a message is not touched.
_SECRETS = re.compile(
    rb"^(filter\|[^|\n]*\|[^|\n]*\|smtp-in\|auth\|[^|\n]*\|[^|\n]*\|"
    # No identity or address that smtpd takes looks like this.
    rb"|filter-result\|[^|\n]*\|[^|\n]*\|rewrite\|(?!<)(?=[^\n]*[ \t+/=])"
    rb"|report\|[^|\n]*\|[^|\n]*\|[^|\n]*\|filter-response\|[^|\n]*\|auth\|rewrite\|"
    rb"|report\|[^|\n]*\|[^|\n]*\|[^|\n]*\|protocol-client\|[^|\n]*\|"
    rb"[ \t]*(?i:AUTH)[ \t]+)([^\n]+)$",
    re.MULTILINE,
)
_CONTINUATION = re.compile(
    rb"^(report\|[^|\n]*\|[^|\n]*\|[^|\n]*\|protocol-client\|[^|\n]*\|)"
    rb"(?:(?!(?i:" + _VERBS + rb")\r?$)[^\s|.*][^\s|]*\r?"
    # A method without its verb, and a verb that runs into what follows.
    rb"|[ \t]*(?i:PLAIN|LOGIN|AUTH\S)[^\n]*)$",
    re.MULTILINE,
)
# smtpd quotes the method that it does not know.
_QUOTED = re.compile(rb'(AUTH method ")([^\n]*)(" not supported)')
_SAID = b"report|||smtp-in|protocol-client||"
_MECHANISM = re.compile(rb"([A-Za-z0-9_-]{1,20})(?:[ \t]+(.*)|[ \t\r]*)\Z", re.DOTALL)


def redact(lines: bytes, keep_user: bool = False) -> bytes:
    """Put stars in place of the credentials in whole lines of the protocol.

    Only lines with a mark are looked at: a third of the time that the patterns take for all.

    Args:
        lines: as on the wire.
        keep_user: for recordings; see :func:`redact_auth`.
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
        pieces += [lines[done:begin], _redact_line(lines[begin:end], keep_user)]
        done = end
    return b"".join([*pieces, lines[done:]])


def _redact_line(line: bytes, keep_user: bool) -> bytes:
    words = line.split(b"|", 6)
    if words[4:5] == [b"protocol-client"] and _is_plain(words[-1].upper()):
        return line
    if words[4:5] == [b"protocol-server"]:
        return redact_reply(line)
    line = _SECRETS.sub(lambda found: found[1] + redact_auth(found[2], keep_user), line)
    return _CONTINUATION.sub(rb"\1" + STARS, line)


def redact_auth(parameter: bytes, keep_user: bool = False) -> bytes:
    """Put stars in place of the credentials behind the mechanism.

    Args:
        parameter: of the command.
        keep_user: the user name stays: that of ``PLAIN`` (RFC 4616) is encoded again with stars as
            its password, so that a filter that decodes it still can. What follows ``LOGIN`` is a
            user name.
    """
    found = _MECHANISM.match(parameter)
    if found is None:
        return STARS
    mechanism, response = found.groups()
    if not _is_method(mechanism):
        return STARS
    if not response:
        return parameter
    kept = STARS
    words = _decoded(response).split(b"\0")
    if response.strip() == b"=":  # how a refusal goes out; see the guard
        kept = response
    elif keep_user and mechanism.upper() == b"PLAIN" and len(words) == 3:
        shown = [STARS if word == words[2] else word for word in words[:2]]
        kept = base64.b64encode(b"\0".join([*shown, STARS]))
    elif keep_user and mechanism.upper() == b"LOGIN" and len(words) == 1 and words[0]:
        kept = response
    return mechanism + b" " + kept


def redact_command(line: bytes) -> bytes:
    """Put stars in place of the credentials in a line that a client has sent."""
    return redact(_SAID + line)[len(_SAID) :]


def redact_reply(line: bytes) -> bytes:
    """Put stars in place of what a client took for a method, where smtpd quotes it."""
    return _QUOTED.sub(
        lambda found: found[1] + (found[2] if _is_method(found[2]) else STARS) + found[3], line
    )


def carries_credentials(call: Call) -> bool:
    """Return whether a handler of this event gets credentials, which its errors may contain."""
    wire = call.hook.wire
    if wire == "filter-response":
        return b"|auth|" in call.line
    return wire in ("auth", "protocol-client")


def reveals(parameter: bytes, shown: str) -> bool:
    """Return whether a text contains the password of an AUTH parameter, encoded or not."""
    words = parameter.split()[1:]
    secrets = [*words, *(part for word in words for part in _decoded(word).split(b"\0")[2:])]
    text = shown.encode("utf-8", "surrogateescape")
    return any(secret and secret in text for secret in secrets)


def _is_method(word: bytes) -> bool:
    return word.upper() in _METHODS


def _decoded(response: bytes) -> bytes:
    try:
        return base64.b64decode(response.strip(), validate=True)
    except binascii.Error:
        return b""


def _is_plain(said: bytes) -> bool:
    """Return whether a client's line, in capitals, obviously has no secret in it."""
    begin = said.lstrip()
    return said in _COMMANDS or (
        b" " in begin and not begin.startswith((b"AUTH", b"PLAIN", b"LOGIN"))
    )
