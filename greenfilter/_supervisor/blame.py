"""What a worker had in its hands when it ended, of which one may be the reason."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .._process.log import session_logger
from ..protocol import PHASES, Call, Stream
from .message import passage_of
from .poison import Key, Poison, message_key, report_key, request_key
from .sessions import SupervisedSession

if TYPE_CHECKING:
    from .process import WorkerProcess

_COMMIT = PHASES["commit"]
_MAX_TOLD = 100


class Suspect:
    """Something that a worker may have ended of.

    Attributes:
        session: the session that it belongs to.
        call: the request that the worker owed.
        stream: the message that it was at.
        report: the report whose handler ran.
        ran: its code ran when the worker ended; else it only was in hand.
    """

    __slots__ = ("call", "ran", "report", "session", "stream")

    def __init__(
        self, session: SupervisedSession, call: Call | None, stream: Stream | None
    ) -> None:
        self.session = session
        self.call = call
        self.stream = stream
        self.report: str | None = None
        self.ran = False


def suspects(worker: WorkerProcess) -> list[Suspect]:
    """Return whose code ran in a worker that has ended; if nobody's, all that it had in hand."""
    marks = dict(worker.marked())
    in_hand = list(_in_hand(worker))
    if not marks:
        return in_hand
    found = [suspect for suspect in in_hand if suspect.session.sid in marks]
    known = {suspect.session.sid for suspect in found}
    for session, call in reversed(worker.departed):
        if session.sid in marks and session.sid not in known:
            known.add(session.sid)
            found.append(Suspect(session, call, session.last_stream))
    for sid, session in worker.sessions.items():
        if marks.get(sid) is not None and sid not in known:
            found.append(Suspect(session, None, None))
    for suspect in found:
        suspect.ran = True
        suspect.report = marks[suspect.session.sid]
    return found


def _in_hand(worker: WorkerProcess) -> Iterator[Suspect]:
    for session in worker.sessions.values():
        stream = session.last_stream
        passage = passage_of(stream)
        if passage is not None and (not stream.open or passage.worker is None):  # type: ignore[union-attr]
            passage = None
        owed = session.owed
        if owed is not None and session.asked_at >= worker.bytes_read():
            owed = None  # it has not begun with that
        if owed is not None or passage is not None:
            yield Suspect(session, owed, stream)


def blame(poison: Poison, worker: WorkerProcess, found: list[Suspect]) -> None:
    """Suspect each. It takes its time: first answer what waits."""
    for number, suspect in enumerate(found):
        alone = suspect.ran or len(found) == 1
        what = _blame_one(poison, suspect, alone)
        if what and number < _MAX_TOLD:
            how = "running" if suspect.ran else "in its hands"
            session_logger(suspect.session.id).error(
                "worker %d ended with %s %s; %s",
                *(worker.pid, what, how),
                "its handler is not called for a while"
                if suspect.report
                else "the next try is made in quarantine",
            )


def _blame_one(poison: Poison, suspect: Suspect, alone: bool) -> str:
    state = suspect.session.state()
    if suspect.report is not None:
        poison.condemn(report_key(suspect.report, state))
        return f"a handler of report {suspect.report}"
    passage = passage_of(suspect.stream)
    if passage is not None and (suspect.call is None or suspect.call.hook is _COMMIT):
        if passage.header_ended:
            poison.suspect([message_key(state, passage.header)], alone=alone)
        else:  # what comes of it goes another way, but tells how to know it again
            passage.suspected = True
        return "message"
    if suspect.call is None:
        return ""
    poison.suspect([request_key(suspect.call, state)], alone=alone)
    return suspect.call.hook.wire


def key_of(call: Call) -> Key:
    """Return what makes a request the same when the client comes again."""
    session: Any = call.session
    return request_key(call, session.state())
