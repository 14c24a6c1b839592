"""The header field Authentication-Results (RFC 8601): who claims to have written one, and ours."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from authres import AuthenticationResultsHeader  # type: ignore[import-untyped]
from authres.core import (  # type: ignore[import-untyped]
    AuthenticationResult,
    AuthenticationResultProperty,
)

from .arc import ArcResult
from .dkim import DkimResult
from .dmarc import Dmarc
from .domains import a_labels
from .sender import SpfResult

if TYPE_CHECKING:
    from ... import Headers

NAME = "Authentication-Results"
_MAX_FIELDS = 100  # that are looked at one by one
_MAX_VALUE = 255  # characters of a value; nothing that is right is longer
_MAX_REASON = 120
_MAX_PREFIX = 4096  # characters in which an identifier has to be found
_PLAIN = re.compile(r"[A-Za-z0-9!#$%&'*+./=?^_`{|}~@-]+\Z")
_DOT_ATOM = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+\Z")
_TOKEN = re.compile(r"[!#-'*+.0-9A-Z^-~\u0080-\U0010ffff-]+")  # RFC 2045, and RFC 6532
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_PAIR = re.compile(r"\\(.)", re.DOTALL)
_WHITE = re.compile(r"[ \t\r\n]+")
_DIGITS = re.compile(r"[0-9]+")
_IN_COMMENT = re.compile(r"\\.?|[()]|[^()\\]+", re.DOTALL)


class _MalformedError(Exception):
    """A comment or a quoted string is not closed, or there is no end of them."""


def claims(value: str, authserv_id: str) -> bool:
    """Return whether a field of this name has to be removed (RFC 8601, 5).

    Args:
        value: of the field, unfolded.
        authserv_id: ours.

    Returns:
        True if it says it is ours, in whatever spelling, or has a version other than 1, or is so
        malformed that somebody might take it for ours.
    """
    try:
        name, version = _identity(value[:_MAX_PREFIX])
    except _MalformedError:
        return _same(authserv_id) in value.lower()
    return _same(name) == _same(authserv_id) or (version != "" and int(version[:9]) != 1)


def remove_claims(headers: Headers, ours: Sequence[str]) -> None:
    """Remove the fields of this name that have to be removed.

    Args:
        headers: of a message.
        ours: identifiers.
    """
    values = headers.get_all(NAME)
    if len(values) > _MAX_FIELDS:  # nobody has so many in good faith (RFC 8601, 5 allows it)
        headers.remove(NAME)
        return
    for index in reversed(range(len(values))):
        if any(claims(values[index], each) for each in ours):
            headers.remove(NAME, index=index)


def _identity(value: str) -> tuple[str, str]:
    """Return identifier and version, "" for what is not there."""
    at = _skip(value, 0)
    if value[at : at + 1] == '"':
        match = _QUOTED.match(value, at)
        if match is None:
            raise _MalformedError
        name = _PAIR.sub(r"\1", match[1])
    else:
        match = _TOKEN.match(value, at)
        name = match[0] if match else ""
    at = _skip(value, match.end() if match else at)
    if at >= _MAX_PREFIX:  # there is more, which is not looked at
        raise _MalformedError
    if value[at : at + 1] == "=":
        return "", ""  # a method: some leave the identifier out
    digits = _DIGITS.match(value, at)
    return name, digits[0] if digits and match else ""


def _skip(value: str, at: int) -> int:
    """Skip white space and comments (RFC 5322, 3.2.2)."""
    depth = 0
    while at < len(value):
        match = (_IN_COMMENT if depth else _WHITE).match(value, at)
        if match is None:
            if value[at] != "(":
                return at
            depth, at = 1, at + 1
            continue
        depth += {"(": 1, ")": -1}.get(match[0], 0) if depth else 0
        at = match.end()
    if depth:
        raise _MalformedError
    return at


def _same(name: str) -> str:
    """Return the form in which identifiers are compared."""
    name = name.strip()
    try:
        return a_labels(name)
    except ValueError:
        return name.lower()


def compose(
    authserv_id: str,
    spf: SpfResult,
    mail_from: str,
    dkim: Iterable[DkimResult],
    dmarc: Dmarc,
    arc: ArcResult | None,
) -> str:
    """Write the value of our field.

    Args:
        authserv_id: who says so.
        spf: result.
        mail_from: envelope sender.
        dkim: results, from the top.
        dmarc: result.
        arc: result, or None if it was not asked for.
    """
    results = [_spf(spf, mail_from), *(_dkim_results(list(dkim))), _dmarc(dmarc)]
    if arc is not None:
        results.append(_arc(arc))
    header = str(AuthenticationResultsHeader(authserv_id=authserv_id, results=results))
    return header.partition(":")[2].strip()


def _spf(spf: SpfResult, mail_from: str) -> AuthenticationResult:
    value = spf.domain
    local = mail_from.rpartition("@")[0]
    # A local part that needs quotes could pretend to be more results, to a reader that is careless.
    if spf.identity == "mailfrom" and spf.domain and _DOT_ATOM.match(local):
        value = f"{local}@{spf.domain}"
    return _result("spf", spf.result, spf.reason, [("smtp", spf.identity, value)])


def _dkim_results(results: list[DkimResult]) -> list[AuthenticationResult]:
    if not results:
        return [_result("dkim", "none", "", [])]
    return [
        _result(
            "dkim",
            each.result,
            each.reason,
            [
                ("header", "d", each.domain),
                ("header", "s", each.selector),
                ("header", "a", each.algorithm),
                # RFC 6008: tells signatures of one domain apart.
                ("header", "b", each.value[:8] if len(results) > 1 else ""),
            ],
        )
        for each in results
    ]


def _dmarc(dmarc: Dmarc) -> AuthenticationResult:
    properties = [
        ("header", "from", dmarc.author_domain or ""),
        ("policy", "dmarc", dmarc.policy or ""),
    ]
    return _result("dmarc", dmarc.result, dmarc.reason, properties)


def _arc(arc: ArcResult) -> AuthenticationResult:
    properties = [
        ("header", "d", arc.domain),
        ("header", "s", arc.selector),
        ("header", "i", str(arc.instance or "")),
    ]
    return _result("arc", arc.result, arc.reason, properties)


def _result(
    method: str, result: str, reason: str, properties: list[tuple[str, str, str]]
) -> AuthenticationResult:
    # authres writes values as they are: what comes with mail has to be harmless before.
    known = [(kind, name, value[:_MAX_VALUE]) for kind, name, value in properties]
    return AuthenticationResult(
        method,
        result=result,
        reason=_clean(reason) or None,
        properties=[
            AuthenticationResultProperty(kind, name, value)
            for kind, name, value in known
            if _PLAIN.match(value)
        ],
    )


def _clean(text: str) -> str:
    printable = re.sub(r"[^ !#-\[\]-~]", "?", " ".join(text.split()))
    return printable[:_MAX_REASON]
