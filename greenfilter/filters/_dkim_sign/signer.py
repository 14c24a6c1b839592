"""Signs a message: which headers, by which keys (RFC 6376, RFC 8463)."""

from __future__ import annotations

import base64
import re
import textwrap
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..._mail.header_text import to_a_labels
from .._smtpd_edits import EDITED, complete_addresses, edit_like_smtpd, scan, split_addresses
from .canonical import (
    MAX_WRITTEN,
    NotSigned,
    body_hash,
    mend,
    relaxed_header,
    sendable,
    unverifiable,
)

if TYPE_CHECKING:
    from .keys import Key
    from .ring import KeyRing

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


@dataclass(frozen=True)
class Signer:
    """Signs messages.

    Args:
        ring: the keys.
        signed: names of headers to sign, in lower case.
        oversigned: those of them that none may be added to.
        parents: a domain's keys sign for the domains below it too.
    """

    ring: KeyRing
    signed: Sequence[str]
    oversigned: Sequence[str]
    parents: bool = False

    def sign(self, headers: Any, lines: Iterable[bytes], host: str) -> list[Key]:
        """Edit a message as smtpd will, and put the signatures on top.

        Args:
            headers: of the message, as ``Message.headers``.
            lines: of its body.
            host: name of the listener, which completes addresses.

        Returns:
            The keys that have signed it.

        Raises:
            NotSigned: it is left as it is, but that CR in headers may be a space.
            BareReturn: it would be signed if no line of the body had a CR without LF.
        """
        keys = self._keys(headers, host)
        if problem := unverifiable(headers, self.signed):
            raise NotSigned(problem)
        digest = body_hash(sendable(lines))
        mend(headers)
        edit_like_smtpd(headers, host)
        fields = headers.items()
        names = signed_names(fields, self.signed, self.oversigned)
        for key in reversed(keys):
            value = signature(fields, names, digest, key, int(time.time()))
            headers.prepend("DKIM-Signature", value)
        return keys

    def _keys(self, headers: Any, host: str) -> list[Key]:
        """Choose the keys by the domain of the author."""
        senders = headers.get_all("From")
        if len(senders) != 1:
            raise NotSigned(f"{len(senders)} From headers")
        if sum(len(headers.get_all(name)) for name in EDITED) > MAX_WRITTEN:
            raise NotSigned(f"more than {MAX_WRITTEN} address headers")
        domain = from_domain(complete_addresses(senders[0], host))
        keys = self.ring.keys(domain, parents=self.parents)
        if not keys:
            raise NotSigned(f"no key for {domain!r}")
        return keys


def signed_names(
    fields: Sequence[tuple[str, str]], signed: Sequence[str], oversigned: Sequence[str]
) -> list[str]:
    """Make the ``h=`` list: each name as often as it occurs, oversigned ones once more."""
    counts = Counter(name.lower() for name, _ in fields)
    return [name for name in signed for _ in range(counts[name] + (name in oversigned))]


def signature(
    fields: Sequence[tuple[str, str]], names: Sequence[str], digest: bytes, key: Key, now: int
) -> str:
    """Make the value of a DKIM-Signature field.

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
    """Return the domain of the first address of a From header, as A-labels, or ""."""
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
