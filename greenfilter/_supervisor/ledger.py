"""Which answers smtpd waits for that a worker may give without being read.

A request is known by the ids of its session and its phase, ``SID|TOKEN``: smtpd has one token for
each phase, and asks a session one thing at a time. Contract: a pair is in the ledger from the
moment that its request goes to the worker until any answer to it is queued for smtpd. Answers
pass unread only if each is ``proceed``, which is legal at every phase, and each pays a debt that
is in the ledger, once. So whatever a worker writes, smtpd gets no second answer and none to what
it has not asked. Once there are messages, commit is not entered: what is answered to it depends on
what was decided about one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# Before protocol 0.5 the ids come in another order: there every answer is read.
_REQUEST = re.compile(
    rb"\nfilter\|0\.(?:[5-9]|\d\d)\|[^|\n]*\|[^|\n]*\|[^|\n]*\|([0-9a-f]{16}\|[0-9a-f]{16})(?=[|\n])"
)
_PROCEED = re.compile(rb"filter-result\|([0-9a-f]{16}\|[0-9a-f]{16})\|proceed\n")
_ANSWER_BYTES = len(b"filter-result||proceed\n") + 33


class Ledger:
    """The pairs that are owed."""

    def __init__(self) -> None:
        self._owed: set[bytes] = set()

    def owe_all(self, lines: bytes) -> None:
        """Enter every request among whole lines of smtpd's."""
        self._owed.update(_REQUEST.findall(b"\n" + lines))

    def owe(self, pair: bytes) -> None:
        """Enter one request."""
        self._owed.add(pair)

    def settle(self, pair: bytes) -> bool:
        """Cross one out; return whether it was there."""
        if pair in self._owed:
            self._owed.remove(pair)
            return True
        return False

    def payable(self, lines: bytes) -> list[bytes]:
        """Find out what a worker's lines answer.

        Args:
            lines: whole lines.

        Returns:
            The pairs, for :meth:`pay`; none if the lines have to be read.
        """
        pairs: list[bytes] = _PROCEED.findall(lines)
        if len(pairs) * _ANSWER_BYTES != len(lines):
            return []
        paid = set(pairs)
        if len(paid) != len(pairs) or not paid <= self._owed:
            return []
        return pairs

    def pay(self, pairs: list[bytes]) -> None:
        """Cross out what has been answered."""
        self._owed.difference_update(pairs)

    def forget(self, sids: Iterable[bytes]) -> None:
        """Cross out what sessions are owed that have ended."""
        if self._owed:
            ended = frozenset(sids)
            self._owed = {pair for pair in self._owed if pair[:16] not in ended}

    def __len__(self) -> int:
        return len(self._owed)
