"""Requests, messages and reports that have ended workers, or may have.

Theory of operation: when a worker dies, hangs, or eats all memory, either one of the requests and
messages that it had is the reason, or none is, as when somebody has killed it. All that it owed is
answered by policy. Suspects are those whose code ran at that moment (``_process/mark.py``) or, if
no code was marked, all that it had in hand (``blame.py``).

A suspect is not refused anything. But when the same request or message comes again, it is tried in
quarantine (``quarantine.py``), in a worker of its own, where it cannot hurt others.

* If it is answered there, it was innocent, and is forgotten here.
* If it ends that worker too, and was alone in it, it is poison: for five minutes it is answered by
  policy at once. After that it is tried in quarantine again; if it fails, it is refused for twice
  as long, up to 40 minutes.
* Suspects that were only in hand may share a quarantine, so that one kill from outside does not
  make a queue of hundreds. If their worker ends as well, each is tried alone.
* SIGKILL and SIGTERM that end the worker in quarantine while no code is marked come from outside,
  and prove nothing.

A report has no answer, so it cannot be seen that its handler has done well. If a report's handler
ran at a death, the next worker learns the report as history, without calling the handler, for as
long as poison is refused.

A reload clears everything, since the new code may be mended code.

These make an input the same when it comes again. For a request: its phase and parameter, the
client's address, its HELO or EHLO, its user name, and the sender; where the phase has no parameter,
also the recipients. For a message: its sender and its header but for trace fields, whoever sends
it. Of parameters only a digest is kept, since at auth they are passwords.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

from cachetools import TTLCache

from ..protocol import Call, Session

Key = tuple[object, ...]

FREE, IN_COMPANY, ALONE, REFUSED = range(4)
MESSAGE = "message"

_MAX_KEYS = 4096
# A sender whose mail was refused for now comes again within this time.
_SECONDS = 3600.0
_FIRST_SECONDS, _LONGEST_SECONDS = 300.0, 2400.0
_BEFORE_IDENTITY = ("link-connect", "link-greeting")
# These differ each time that the same message comes.
_CHANGING = (b"received:", b"x-spam:", b"\t", b" ")


class _Record:
    """What is known of one key."""

    __slots__ = ("refused_until", "times", "verdict")

    def __init__(self) -> None:
        self.verdict = IN_COMPANY
        self.times = 0  # it has ended a worker alone
        self.refused_until = 0.0


class Poison:
    """Remembers suspects, and what has killed alone.

    Args:
        clock: gives the time (monotonic seconds).

    Attributes:
        kinds: what the keys are of (phases, reports, ``message``). For others no key needs to be
            made.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._records: TTLCache[Key, _Record] = TTLCache(_MAX_KEYS, _SECONDS, clock)
        self.kinds: set[object] = set()

    def suspect(self, keys: Iterable[Key], *, alone: bool) -> None:
        """Try what may have ended a worker in quarantine.

        Args:
            keys: of all that may have.
            alone: not even in company with others.
        """
        for key in keys:
            record = self._records.get(key) or _Record()
            if alone:
                record.verdict = ALONE
            self._records[key] = record  # its time begins again
        self._note()

    def condemn(self, key: Key) -> float:
        """Refuse what has ended a worker alone.

        Returns:
            The seconds that it is refused for.
        """
        record = self._records.get(key) or _Record()
        seconds = min(_FIRST_SECONDS * 2.0**record.times, _LONGEST_SECONDS)
        record.times += 1
        record.verdict = ALONE
        record.refused_until = self._clock() + seconds
        self._records[key] = record
        self._note()
        return seconds

    def absolve(self, key: Key) -> None:
        """Note that a worker has dealt with this and lives."""
        if self._records.pop(key, None) is not None:
            self._note()

    def clear(self) -> None:
        """Forget everything."""
        self._records.clear()
        self._note()

    def expire(self) -> None:
        """Forget what is too old, so that nothing more needs to be compared with it."""
        if self.kinds and self._records.expire():
            self._note()

    def verdict(self, key: Key) -> int:
        """Return how this is to be tried: FREE, IN_COMPANY, ALONE, or REFUSED: not at all."""
        record = self._records.get(key)
        if record is None:
            return FREE
        return REFUSED if self._clock() < record.refused_until else record.verdict

    def _note(self) -> None:
        self.kinds = {key[0] for key in self._records}


def request_key(call: Call, state: Session) -> Key:
    """Return what makes a request the same when the client comes again.

    Args:
        call: the request.
        state: what is known of its session.
    """
    wire, parameter = call.hook.wire, call.line[call.body :]
    if not parameter:
        return (wire, *_history(state))
    tx = state.open_tx()
    sender = tx.mail_from if tx is not None else None
    # Not the parameter itself: at auth that is the password.
    return (wire, hashlib.sha256(parameter).digest(), *_client(state), sender)


def report_key(wire: str, state: Session) -> Key:
    """Return what makes a report the same when the client comes again.

    Args:
        wire: its name.
        state: what is known of its session, with this report. More may be known by the time that
            its handler ends a worker, since smtpd does not wait for it.
    """
    if wire in _BEFORE_IDENTITY:
        return (report_kind(wire), str(state.src))
    tx = state.open_tx()
    return (report_kind(wire), *_client(state), tx.mail_from if tx is not None else None)


def report_kind(wire: str) -> str:
    """Name the kind of a report's keys."""
    return f"report {wire}"


def message_key(state: Session, header: list[bytes]) -> Key:
    """Return what makes a message the same: its sender, and its header but for trace fields."""
    digest = hashlib.sha256()
    telling = [line for line in header if not line.lower().startswith(_CHANGING)]
    for line in telling:
        digest.update(line + b"\n")
    tx = state.open_tx()
    sender = tx.mail_from if tx is not None else None
    # Without a header, all messages of a sender are alike.
    return (MESSAGE, digest.digest(), sender, *(() if telling else _history(state)))


def _history(state: Session) -> Key:
    tx = state.open_tx()
    envelope = (tx.mail_from, *tx.rcpt_to) if tx is not None else ()
    return (*_client(state), *envelope)


def _client(state: Session) -> Key:
    return (str(state.src), state.identity, state.username)
