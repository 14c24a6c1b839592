"""What becomes of each recipient of a message that comes in: accepted, refused or given up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ... import Status
from .dialogue import Dialogue

if TYPE_CHECKING:
    from ... import Session, Transaction

Record = dict[str, Any]

# Refusals that are worth a record although there is no recipient yet.
_WITHOUT_RECIPIENT = ("connect", "helo", "ehlo", "mail-from")


class Incoming:
    """One incoming session. Each method returns the records that an event makes.

    Args:
        session: its facts.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._dialogue = Dialogue()
        self._reported = False  # what the open transaction came to
        self._timed_out = False
        self._mail_from: str | None = None  # as the client gave it
        self._rcpt_to: list[str] = []  # those accepted, as the client gave them

    def client_said(self, command: str) -> None:
        """Take a command."""
        self._dialogue.client_said(command)
        if self._dialogue.phase == "data":
            self._reported = False

    def filter_said(self, phase: str, response: str) -> None:
        """Take a filter's answer."""
        self._dialogue.filter_said(response)

    def server_said(self, line: str) -> Iterator[Record]:
        """Take a line of smtpd's reply."""
        dialogue = self._dialogue
        if not self._dialogue.server_said(line) or not dialogue.refused:
            return
        tx = self._session.tx
        if dialogue.phase in ("data", "commit") and tx is not None:
            self._reported = True
            for recipient in self._recipients(tx):
                yield {**self._about(tx), **recipient, **self._refusal()}
        elif dialogue.phase in _WITHOUT_RECIPIENT:
            about = self._about(tx)
            if dialogue.phase == "mail-from":
                about["mail_from"] = about["mail_from_before"] = dialogue.address
            yield {**about, "rcpt_to": None, **self._refusal()}

    def mail_from(self, result: Status, sender: str) -> None:
        """Take the sender."""
        if result is Status.OK and self._mail_from is None:
            self._mail_from = sender

    def rcpt_to(self, result: Status, recipient: str) -> Iterator[Record]:
        """Take a recipient, accepted or refused."""
        if result is Status.OK:
            self._rcpt_to.append(recipient)
        elif self._dialogue.phase == "rcpt-to" and self._dialogue.refused:
            self._dialogue.fresh = False
            addresses = {"rcpt_to": recipient, "rcpt_to_before": recipient}
            yield {**self._about(self._session.tx), **addresses, **self._refusal()}

    def commit(self, size: int) -> Iterator[Record]:
        """Take the end of a message that was accepted."""
        self._reported = True
        tx = self._session.tx
        if tx is None:
            return
        outcome = {"event": "accepted", "size": size, "reply": self._dialogue.reply or None}
        for recipient in self._recipients(tx):
            yield {**self._about(tx), **recipient, **outcome}

    def timeout(self) -> None:
        """Take it that the client was silent for too long."""
        self._timed_out = True

    def rollback(self) -> Iterator[Record]:
        """Take the end of a message that came to nothing."""
        tx = self._session.tx
        if self._reported or tx is None:
            return
        self._reported = True
        ended = self._dialogue.phase in ("rset", "quit", "ehlo", "helo")
        reason = "timeout" if self._timed_out else self._dialogue.phase if ended else "disconnect"
        for recipient in self._recipients(tx):
            yield {**self._about(tx), **recipient, "event": "aborted", "reason": reason}

    def reset(self) -> None:
        """Take the end of a transaction."""
        self._mail_from, self._rcpt_to, self._reported = None, [], False

    def _refusal(self) -> Record:
        dialogue = self._dialogue
        return {
            "event": "refused",
            "phase": dialogue.phase,
            "by": "filter" if dialogue.by_filter else "smtpd",
            "reply": dialogue.reply,
        }

    def _recipients(self, tx: Transaction) -> Iterator[Record]:
        """Return the accepted recipients, each as it was asked for and as it is."""
        # After a worker was replaced those that it had taken are known as they are now alone.
        unknown = max(0, len(tx.rcpt_to) - len(self._rcpt_to))
        before = [*tx.rcpt_to[:unknown], *self._rcpt_to]
        ids: list[str | None] = [*tx.envelope_ids]
        if len(ids) != len(tx.rcpt_to):
            ids = [None] * len(tx.rcpt_to)
        for after, asked, envelope_id in zip(tx.rcpt_to, before, ids, strict=True):
            yield {"envelope_id": envelope_id, "rcpt_to": after, "rcpt_to_before": asked}

    def _about(self, tx: Transaction | None) -> Record:
        session = self._session
        about: Record = {
            "message_id": tx.message_id if tx is not None else None,
            "session": session.id,
            "client": str(session.src) if session.src is not None else None,
            "client_name": session.rdns if session.fcrdns is Status.OK else None,
            "listener": _with_port(session.dst),
            "helo": session.identity,
            "tls": session.ciphers,
            "user": session.username,
            "mail_from": tx.mail_from if tx is not None else None,
        }
        before = self._mail_from if self._mail_from is not None else about["mail_from"]
        return {**about, "mail_from_before": before}


def _with_port(address: Any) -> str | None:
    if address is None:
        return None
    return str(address) if address.port is None else f"{address}:{address.port}"
