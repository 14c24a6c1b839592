"""What a chain knows of one session, beside what smtpd reports of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import _control
from ..protocol import Session, Transaction, memo_report
from .member import Member
from .stages import Pipeline
from .views import MemberSession, Rewrites

if TYPE_CHECKING:
    from .._runtime.calls import Calls

_NO_LIMIT = 1 << 30


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

    def keep(self, calls: Calls, real: Any) -> None:
        """Tell the next worker what smtpd would not, should this one die."""
        by = self._members[self.bypassed - 1].key if self.bypassed <= len(self._members) else ""
        real.memo = b"%d,%b" % (self.junk_session, _on_the_wire(by))
        if calls.page is not None:  # there is a supervisor
            calls.answers.send(_control.KEEP + memo_report(real) + b"\n")

    def restore(self, kept: bytes) -> None:
        """Go on from what another worker has kept, perhaps of another version of the chain."""
        is_junk, _, by = kept.partition(b",")
        self.junk_session = is_junk == b"1"
        for member in self._members:
            if by and _on_the_wire(member.key) == by:
                self.bypassed = member.number + 1


def _on_the_wire(name: str) -> bytes:
    return name.replace("\n", " ").encode("utf-8", "surrogateescape")
