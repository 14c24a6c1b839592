"""What a chain knows of one session, beside what smtpd reports of it.

It has to outlive the worker: what of it matters is kept by the supervisor, as JSON under a key.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from .. import _control
from ..protocol import Session, Transaction, memo_report
from .member import Member
from .stages import Pipeline
from .views import MemberSession, Rewrites

if TYPE_CHECKING:
    from .._runtime.calls import Calls

_NO_LIMIT = 1 << 30
_MARKS, _SENDER, _RECIPIENT = b"marks", b"sender", b"recipient-"


class ChainSession:
    """What a chain knows of one session.

    Args:
        members: of the chain.
        real: the session, as the runtime has it.
        answering: takes what members say by ``ctx.reply``.

    Attributes:
        views: the session as each member sees it.
        rewrites: addresses of the transaction that members have rewritten.
        bypassed: members from this number on are not asked any more.
        junk_session: a mark of the session that could not be sent yet.
        junk_message: the transaction whose mark could not be sent yet, or None.
        pipeline: the message whose commit is to come.
    """

    __slots__ = (
        "_members",
        "bypassed",
        "junk_message",
        "junk_session",
        "pipeline",
        "rewrites",
        "views",
    )

    def __init__(self, members: list[Member], real: Session, answering: Any) -> None:
        self._members = members
        self.rewrites = Rewrites()
        self.views = [
            MemberSession(real, member.needs, answering, member.number, self.rewrites)
            for member in members
        ]
        self.bypassed = _NO_LIMIT
        self.junk_session = False
        self.junk_message: Transaction | None = None
        self.pipeline: Pipeline | None = None

    def keep_marks(self, calls: Calls, real: Any) -> None:
        """Tell the next worker of marks and of the bypass, should this one die."""
        by = self._members[self.bypassed - 1].key if self.bypassed <= len(self._members) else None
        marked = self.junk_message._message_id if self.junk_message is not None else None
        kept = {"session": self.junk_session, "message": marked, "bypassed_by": by}
        self._keep(calls, real, _MARKS, kept)

    def note_sender(self, calls: Calls, real: Any, was: str, by: dict[str, str]) -> None:
        """Note what members have made of the sender, here and for the next worker.

        Args:
            calls: of the chain.
            real: the session, as the runtime has it.
            was: what the client has said.
            by: the new values by the keys of the members, in order; empty if none has rewritten.
        """
        self.rewrites.begin(self._values(was, by))
        if by or _SENDER in real.memos:
            self._keep(calls, real, _SENDER, {"was": was, "by": by})

    def note_recipient(self, calls: Calls, real: Any, was: str, by: dict[str, str]) -> None:
        """Note what members have made of a recipient. As :meth:`note_sender`."""
        if not by and not self.rewrites.recipients:
            return
        tx = real.open_tx()
        if tx is None:
            return
        position = len(tx._rcpt_to)
        self.rewrites.add(tx, position, self._values(was, by))
        key = _RECIPIENT + b"%d" % position
        if by or key in real.memos:
            self._keep(calls, real, key, {"message": tx._message_id, "was": was, "by": by})

    def restore(self, real: Any) -> None:
        """Go on from what another worker has kept, perhaps of another version of the chain."""
        kept = {key: json.loads(value) for key, value in real.memos.items()}
        tx = real.open_tx()
        message_id = tx._message_id if tx is not None else None
        if marks := kept.pop(_MARKS, None):
            self.junk_session = marks["session"]
            self.junk_message = tx if marks["message"] == message_id else None
            for member in self._members:
                if member.key == marks["bypassed_by"]:
                    self.bypassed = member.number + 1
        if sender := kept.pop(_SENDER, None):
            self.rewrites.begin(self._values(sender["was"], sender["by"]))
        for key, rcpt in kept.items():
            if tx is not None and rcpt["message"] == message_id:
                position = int(key.removeprefix(_RECIPIENT))
                self.rewrites.add(tx, position, self._values(rcpt["was"], rcpt["by"]))

    def _values(self, value: str, by: dict[str, str]) -> list[str]:
        """Return what an address was when each member had been asked; empty if always the same."""
        if not by:
            return []
        values = []
        for member in self._members:
            value = by.get(member.key, value)
            values.append(value)
        return values

    def _keep(self, calls: Calls, real: Any, key: bytes, fact: dict[str, Any]) -> None:
        if calls.page is not None:  # there is a supervisor
            real.add_memo(key, json.dumps(fact).encode("ascii"))
            calls.answers.send(_control.KEEP + memo_report(real, key) + b"\n")
