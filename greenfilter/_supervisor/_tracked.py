"""A session as the supervisor sees it: its reports, kept for the next worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from ..protocol import Session

if TYPE_CHECKING:
    from ..protocol import Call
    from ._process import WorkerProcess

# smtpd takes 1,000 recipients for a message by default, and each makes three reports.
_MAX_KEPT = 10_000


class Tracked(Session):
    """A session with what a new worker would have to be told of it.

    Attributes:
        worker: whose hands it is in; None while there is no worker.
        kept: its reports, but those of transactions that are over.
        owed: the request that smtpd waits for.
        overflowed: too many reports to keep, so that a new worker could not know the truth.
        stale: requests that were answered here while the worker still works on them. Until it has
            answered those too, nothing else of the session is given to it: all have one token.
    """

    assign: ClassVar[Callable[[Tracked], WorkerProcess | None]]

    __slots__ = ("kept", "overflowed", "owed", "stale")

    def __init__(self, sid: bytes, incoming: bool, needs: int) -> None:
        super().__init__(sid, incoming, needs)
        self.kept: list[bytes] = []
        self.owed: Call | None = None
        self.overflowed = False
        self.stale = 0
        self.worker = type(self).assign(self)

    def add_report(self, line: bytes) -> None:
        """Keep a report for the next worker, and pass it on to the present one."""
        super().add_report(line)
        worker = self.worker
        if worker is not None:
            worker.link.send(line + b"\n")
        event = line.split(b"|", 5)[4]
        if event == b"tx-reset":
            self.kept = [kept for kept in self.kept if not _is_of_transaction(kept)]
            self.overflowed = False
        elif event == b"filter-response" and b"|rewrite|" not in line:
            pass  # says nothing of the state
        elif len(self.kept) < _MAX_KEPT:
            self.kept.append(line)
        else:
            self.overflowed = True


def _is_of_transaction(line: bytes) -> bool:
    return line.split(b"|", 5)[4].startswith((b"tx-", b"filter-response"))
