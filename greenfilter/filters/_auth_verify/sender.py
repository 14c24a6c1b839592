"""SPF (RFC 7208): whether a client may send for a domain, by pyspf with our DNS."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from .._spf import Query
from .domains import a_labels

if TYPE_CHECKING:
    from .._clients import Ip
    from .._dns import Questions

log = logging.getLogger(__name__)


class SpfResult(NamedTuple):
    """What SPF says about a client.

    Attributes:
        result: a word of RFC 8601, 2.7.2.
        domain: that was asked, in A-labels; "" if there is none.
        identity: mailfrom, or helo for the null sender.
        reason: in words, "" where there is nothing to say.
    """

    result: str
    domain: str = ""
    identity: str = "mailfrom"
    reason: str = ""


def check_sender(ip: Ip, mail_from: str, helo: str, questions: Questions) -> SpfResult:
    """Check the sender, or the HELO name if the sender is null (RFC 7208, 2.4).

    Switches greenlets.

    Args:
        ip: of the client.
        mail_from: envelope sender.
        helo: what the client calls itself.
        questions: asked for records.
    """
    identity = "mailfrom" if mail_from else "helo"
    local, _, name = mail_from.rpartition("@")
    try:
        domain = a_labels(name if mail_from else helo)
    except ValueError as error:
        return SpfResult("none", "", identity, str(error))
    if "." not in domain:
        return SpfResult("none", domain, identity, "no name of a domain")
    sender = f"{local or 'postmaster'}@{domain}"
    query = Query(str(ip), sender, helo, questions)
    try:
        result, _, text = query.check()
    except Exception as error:  # pyspf raises much on records that make no sense
        log.info("spf: the record of %s cannot be evaluated: %r", domain, error)
        result, text = "permerror", "the record cannot be evaluated"
    reason = text.rpartition("Error: ")[2] if result in ("temperror", "permerror") else ""
    return SpfResult(result, domain, identity, reason)
