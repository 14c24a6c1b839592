"""What may be limited, and how a limit is written."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .._options import parse_size

if TYPE_CHECKING:
    from limits import RateLimitItem

SCOPES = ("network", "user", "sender")
KINDS = ("messages", "recipients", "bytes")
_SIZE = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?[kmgt])(?=\s*(?:/|per\b))", re.I)
_NEVER = re.compile(r"(?:/|per)\s*0+\b", re.I)


@dataclass(frozen=True)
class Limit:
    """One limit.

    Attributes:
        scope: whose: of a client's network, an authenticated user, or an envelope sender.
        kind: of what: messages, recipients or bytes.
        amount: how many within the period.
        period: seconds.
        shown: the rate in words.
    """

    scope: str
    kind: str
    amount: int
    period: float
    shown: str

    def __str__(self) -> str:
        return f"{self.scope}:{self.kind}={self.shown}"


def parse_limits(text: str) -> list[Limit]:
    """Parse limits: ``SCOPE:KIND=RATE[,RATE...]``, ``user:recipients=100/hour,500 per 2 days``.

    Raises:
        ArgumentTypeError: it makes no sense.
    """
    from limits import parse_many

    scope, colon, rest = text.partition(":")
    kind, equals, rates = rest.partition("=")
    if not (colon and equals and scope in SCOPES and kind in KINDS):
        scopes, kinds = ", ".join(SCOPES), ", ".join(KINDS)
        raise ArgumentTypeError(f"{text!r}: write SCOPE:KIND=RATE, of {scopes} and of {kinds}")
    if kind == "bytes":
        rates = _SIZE.sub(lambda match: str(parse_size(match[1])), rates)
    try:
        if _NEVER.search(rates):  # which the library takes for 1
            raise ValueError(rates)
        items = parse_many(rates.strip())
    except ValueError:
        raise ArgumentTypeError(f"{text!r}: {rates!r} is not a rate, such as 100/hour") from None
    return [_limit(text, scope, kind, item) for item in items]


def _limit(text: str, scope: str, kind: str, item: RateLimitItem) -> Limit:
    period = item.get_expiry()
    if item.amount < 1 or not 1 <= period <= 366 * 86_400:
        raise ArgumentTypeError(f"{text!r}: at least 1, and in a year at most")
    unit = item.GRANULARITY.name
    every = unit if item.multiples == 1 else f"{item.multiples} {unit}s"
    return Limit(scope, kind, item.amount, float(period), f"{item.amount} per {every}")
