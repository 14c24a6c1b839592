"""What becomes of each recipient of a message that is relayed: delivered, deferred or bounced."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from ... import Status
from .dialogue import Dialogue

if TYPE_CHECKING:
    from ... import Session

Record = dict[str, Any]


class _Recipient(NamedTuple):
    """One that the other server has accepted, for now."""

    address: str
    envelope_id: str | None


class Outgoing:
    """One session with another server. Each method returns the records that an event makes.

    A refused recipient is reported as the end of the transaction, which goes on all the same:
    what was accepted before is open until the message is, or another one begins, or the
    connection ends.

    Args:
        session: its facts.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._dialogue = Dialogue()
        self._message_id: str | None = None
        self._mail_from: str | None = None
        self._envelope_ids: deque[str] = deque()
        self._open: list[_Recipient] = []

    def client_said(self, command: str) -> Iterator[Record]:
        """Take what smtpd says."""
        self._dialogue.client_said(command)
        if self._dialogue.phase == "mail-from":
            yield from self._give_up("another message came")

    def server_said(self, line: str) -> Iterator[Record]:
        """Take a line that the other server answers."""
        dialogue = self._dialogue
        if dialogue.server_said(line) and dialogue.refused and dialogue.phase == "mail-from":
            # There is no transaction, so nobody says which message it was.
            about = {"message_id": None, "mail_from": dialogue.address, "rcpt_to": None}
            yield {**self._relay(), **about, **self._failure()}

    def begin(self, message_id: str) -> None:
        """Take the begin of a transaction."""
        if message_id != self._message_id:
            self._message_id, self._mail_from = message_id, None
            self._envelope_ids.clear()

    def mail_from(self, result: Status, sender: str) -> None:
        """Take the sender."""
        if result is Status.OK and self._mail_from is None:
            self._mail_from = sender

    def envelope(self, message_id: str, envelope_id: str) -> None:
        """Take the id of the recipient that is asked for."""
        self.begin(message_id)
        self._envelope_ids.append(envelope_id)

    def rcpt_to(self, message_id: str, result: Status, address: str) -> Iterator[Record]:
        """Take a recipient, accepted or refused."""
        self.begin(message_id)
        envelope_id = self._envelope_ids.popleft() if self._envelope_ids else None
        recipient = _Recipient(address, envelope_id)
        if result is Status.OK:
            self._open.append(recipient)
        else:
            yield self._record(recipient, self._failure())

    def data(self, result: Status) -> Iterator[Record]:
        """Take the answer to DATA."""
        if result is not Status.OK:
            yield from self._close(self._failure())

    def commit(self) -> Iterator[Record]:
        """Take the end of a message that was delivered."""
        yield from self._close({"event": "delivered", "reply": self._dialogue.reply})

    def rollback(self) -> Iterator[Record]:
        """Take the end of a transaction that came to nothing, or that goes on."""
        if self._dialogue.phase in ("data", "commit"):
            yield from self._close(self._failure())

    def disconnect(self) -> Iterator[Record]:
        """Take the end of the connection."""
        yield from self._give_up("the connection was lost")

    def _give_up(self, why: str) -> Iterator[Record]:
        phase = self._dialogue.phase
        yield from self._close({"event": "deferred", "phase": phase or None, "reply": why})

    def _close(self, outcome: Record) -> Iterator[Record]:
        recipients, self._open = self._open, []
        for recipient in recipients:
            yield self._record(recipient, outcome)

    def _failure(self) -> Record:
        dialogue = self._dialogue
        event = "bounced" if dialogue.code >= 500 else "deferred"
        return {"event": event, "phase": dialogue.phase, "reply": dialogue.reply or None}

    def _record(self, recipient: _Recipient, outcome: Record) -> Record:
        about = {
            "message_id": self._message_id,
            "envelope_id": recipient.envelope_id,
            "mail_from": self._mail_from,
            "rcpt_to": recipient.address,
        }
        return {**self._relay(), **about, **outcome}

    def _relay(self) -> Record:
        session, dst = self._session, self._session.dst
        return {
            "session": session.id,
            "relay": f"{dst}:{dst.port}" if dst is not None and dst.port else dst and str(dst),
            "relay_name": session.rdns,
            "relay_tls": session.ciphers,
        }
