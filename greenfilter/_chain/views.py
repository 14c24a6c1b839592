"""A session and its transaction as one member of a chain sees them."""

from __future__ import annotations

from typing import Any

from ..protocol import Session, Transaction


class MemberSession(Session):
    """A session with the state of the one that it stands for, and objects of the member's own.

    What smtpd reports is known to the session that the runtime has; it is copied when a field is
    read. Addresses are the ones that were there when the member had been asked.

    Args:
        real: the runtime's session.
        needs: the fields that the member may read.
        runtime: answers for ``ctx.reply``.
        number: which of the chain's members it is.
    """

    __slots__ = ("_actual", "_number", "_real_tx", "_rewrites", "runtime")

    def __init__(
        self, real: Session, needs: int, runtime: Any, number: int, rewrites: Rewrites
    ) -> None:
        super().__init__(real.sid, real.incoming, needs)
        self._actual = real
        self._real_tx: Transaction | None = None
        self._number = number
        self._rewrites = rewrites
        self.closed = real.closed
        self.queue = real.queue  # an own one would stay empty, and takes 0.6 KB
        self.runtime = runtime

    def _read(self) -> None:
        real = self._actual
        real._read()
        self._src, self._dst = real._src, real._dst
        self._rdns, self._fcrdns = real._rdns, real._fcrdns
        self._greeting, self._identity, self._method = real._greeting, real._identity, real._method
        self._ciphers, self._username = real._ciphers, real._username
        real_tx = real._tx
        if real_tx is not self._real_tx:
            self._end_tx()
            self._real_tx = real_tx
            if real_tx is not None:
                self._tx = Transaction(self, real_tx._message_id)
        if real_tx is not None and self._tx is not None:
            self._copy(real_tx, self._tx)

    def _copy(self, real: Transaction, own: Transaction) -> None:
        own._envelope_ids = real._envelope_ids
        self._rewrites.belong_to(real)
        sender = self._rewrites.sender
        is_rewritten = bool(sender) and sender[-1] == real._mail_from
        own._mail_from = sender[self._number] if is_rewritten else real._mail_from
        recipients = real._rcpt_to
        if self._rewrites.recipients:
            recipients = list(recipients)
            for index, values in self._rewrites.recipients.items():
                if recipients[index : index + 1] == values[-1:]:
                    recipients[index] = values[self._number]
        own._rcpt_to = recipients


class Rewrites:
    """The addresses of a transaction that members have rewritten, as each member has left them.

    They count while smtpd has the last of the values: it may have been answered something else.

    Attributes:
        sender: one value for each member; empty where none was rewritten.
        recipients: the same for each accepted recipient that was rewritten, by its position.
    """

    def __init__(self) -> None:
        self.sender: list[str] = []
        self.recipients: dict[int, list[str]] = {}
        self._tx: Transaction | None = None

    def belong_to(self, tx: Transaction) -> None:
        """Forget what was rewritten in another transaction than this one."""
        if self._tx is not tx:
            if self._tx is not None:
                self.sender = []
            self.recipients = {}
            self._tx = tx

    def begin(self, sender: list[str]) -> None:
        """Note the sender of a transaction that is about to begin."""
        self._tx = None
        self.sender = sender
        self.recipients = {}

    def add(self, tx: Transaction, position: int, values: list[str]) -> None:
        """Note a recipient; it counts if smtpd accepts it."""
        self.belong_to(tx)
        if values:
            self.recipients[position] = values
        else:
            self.recipients.pop(position, None)
