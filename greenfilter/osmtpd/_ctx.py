"""``struct osmtpd_ctx``, and what it knows of its session's requests and message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from .._filter.context import Context
from ..errors import NeedError
from ..protocol import PHASES, Address, Phase, Status, Transaction
from ._names import (
    OSMTPD_PHASE_EHLO,
    OSMTPD_PHASE_HELO,
    OSMTPD_STATUS_OK,
    OSMTPD_STATUS_PERMFAIL,
    OSMTPD_STATUS_TEMPFAIL,
    OSMTPD_TYPE_FILTER,
    OSMTPD_TYPE_REPORT,
)

STATUSES: Final = {
    Status.OK: OSMTPD_STATUS_OK,
    Status.TEMPFAIL: OSMTPD_STATUS_TEMPFAIL,
    Status.PERMFAIL: OSMTPD_STATUS_PERMFAIL,
}
# The reports that C knows, in the order of enum osmtpd_phase, which the phases begin.
_EVENTS = (
    *("link_connect", "link_disconnect", "link_greeting", "link_identify", "link_tls"),
    *("tx_begin", "tx_mail", "tx_rcpt", "tx_envelope", "tx_data", "tx_commit", "tx_rollback"),
    *("protocol_client", "protocol_server", "filter_response", "timeout"),
)
_PHASES = {name: number for number, name in enumerate((*PHASES, *_EVENTS))}

Write = Callable[[bytes], bool]


class Timespec(NamedTuple):
    """``struct timespec``.

    Attributes:
        tv_sec: seconds since the epoch.
        tv_nsec: nanoseconds.
    """

    tv_sec: int
    tv_nsec: int


class Greeting(NamedTuple):
    """``struct greeting``.

    Attributes:
        identity: host name in the server's greeting, or None.
    """

    identity: str | None


def _read(owner: Any, name: str) -> Any:
    """Return a field; None where it was not asked for, or is not known yet."""
    try:
        return getattr(owner, name, None)
    except NeedError:
        return None


def _of_session(name: str, doc: str) -> Any:
    return property(lambda ctx: _read(ctx._call.session, name), doc=doc)


class osmtpd_ctx:
    """One event, with its session and its message. Reading never switches greenlets.

    Args:
        context: the event.
        request: the same, where a callback of the filter has to answer it.
        write: takes the lines of the message that the event is about.
    """

    __slots__ = ("_call", "_context", "_request", "_write")

    def __init__(
        self, context: Context, request: Context | None = None, write: Write | None = None
    ) -> None:
        self._context = context
        self._call = context._call
        self._request = request
        self._write = write

    src: Address | None = _of_session("src", "Source of the connection, or None.")
    dst: Address | None = _of_session("dst", "Destination of the connection, or None.")
    rdns: str | None = _of_session("rdns", "Reverse DNS name of the connection, or None.")
    ciphers: str | None = _of_session("ciphers", "Version and cipher of TLS, or None.")

    @property
    def type(self) -> int:
        """OSMTPD_TYPE_FILTER or OSMTPD_TYPE_REPORT."""
        return OSMTPD_TYPE_FILTER if isinstance(self._call.hook, Phase) else OSMTPD_TYPE_REPORT

    @property
    def phase(self) -> int:
        """OSMTPD_PHASE_*; -1 in a delete hook at an event that C has no name for."""
        return _PHASES.get(self._call.hook.name, -1)

    @property
    def version_major(self) -> int:
        """Major version of the protocol."""
        return self._call.version[0]

    @property
    def version_minor(self) -> int:
        """Minor version of the protocol."""
        return self._call.version[1]

    @property
    def tm(self) -> Timespec:
        """When smtpd wrote the event."""
        seconds, _, fraction = self._call.line.split(b"|", 3)[2].partition(b".")
        try:
            return Timespec(int(seconds), int(fraction.ljust(9, b"0")[:9]))
        except ValueError:
            return Timespec(0, 0)

    @property
    def incoming(self) -> int:
        """1 for smtp-in, 0 for smtp-out."""
        return int(self._context.incoming)

    @property
    def reqid(self) -> int:
        """Id of the session."""
        return int(self._call.session.sid, 16)

    @property
    def token(self) -> int:
        """Token of the request; 0 in a report."""
        return int(self._call.line.split(b"|", 7)[6], 16) if self.type == OSMTPD_TYPE_FILTER else 0

    @property
    def fcrdns(self) -> int:
        """Whether that name is forward confirmed: OSMTPD_STATUS_*; TEMPFAIL if not known."""
        return STATUSES[_read(self._call.session, "fcrdns") or Status.TEMPFAIL]

    @property
    def identity(self) -> str | None:
        """What HELO or EHLO said, or None."""
        try:
            known = self._call.session.identity
        except NeedError:
            return None
        if self.phase in (OSMTPD_PHASE_HELO, OSMTPD_PHASE_EHLO):
            return str(self._call.values()[0])  # before smtpd reports it, as in C
        return known

    @property
    def greeting(self) -> Greeting:
        """``greeting.identity``: host name in the server's greeting, or None."""
        return Greeting(_read(self._call.session, "greeting"))

    @property
    def _tx(self) -> Transaction | None:
        return _read(self._context, "tx")  # type: ignore[no-any-return]

    @property
    def msgid(self) -> int:
        """Id of the message, or 0."""
        return int(_read(self._tx, "message_id") or "0", 16)

    @property
    def mailfrom(self) -> str | None:
        """Sender, "" for the null sender, or None."""
        sender: str | None = _read(self._tx, "mail_from")
        return sender

    @property
    def rcptto(self) -> list[str]:
        """Recipients."""
        return list(_read(self._tx, "rcpt_to") or ())

    @property
    def evpid(self) -> int:
        """Id of the newest envelope, or 0."""
        return int((_read(self._tx, "envelope_ids") or ["0"])[-1], 16)

    @property
    def local_session(self) -> Any:
        """The filter's own object of the session."""
        return self._call.session.local

    @local_session.setter
    def local_session(self, value: Any) -> None:
        self._call.session.local = value

    @property
    def local_message(self) -> Any:
        """The filter's own object of the message; None outside of a transaction."""
        return _read(self._tx, "local")

    @local_message.setter
    def local_message(self, value: Any) -> None:
        if self._tx is None:
            raise AttributeError("local_message cannot be set outside of a transaction")
        self._tx.local = value


class Pending:
    """What a session waits for.

    Attributes:
        requests: those whose callback has not answered yet, oldest first.
        write: takes the lines of its newest message.
    """

    __slots__ = ("requests", "write")

    def __init__(self) -> None:
        self.requests: dict[Context, None] = {}
        self.write: Write | None = None


def pending_of(context: Context) -> Pending:
    """Return what the session of an event waits for."""
    session = context._call.session
    if session.extra is None:
        session.extra = Pending()
    return session.extra  # type: ignore[no-any-return]
