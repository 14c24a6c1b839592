"""What is known of a session and of its transaction, rebuilt from smtpd's reports.

Theory of operation: reports are kept as they came, and read only when somebody asks for a field
(most filters ask for few). Whoever feeds a Session sees to it that reports arrive in order and
that none is added while a callback of the session runs, so a callback sees the state of its own
event, not of what smtpd said since.

Rules that smtpd imposes (each seen in a recording):
1. tx-mail, tx-rcpt and tx-data echo the last reply, so they repeat and contradict: ``ok`` adds,
   nothing else takes away.
2. After a rewrite they still name the original address; the new one was in the filter-response
   just before.
3. tx-begin comes after mail-from was answered; a MAIL that failed may report message id 00000000.
4. A transaction ends at tx-reset. In smtp-out the same message may go on after it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import NeedError, RemoteProtocolError
from ._catalogue import EVENTS, Event, Need, Status
from ._fields import Address, parse_report, version_of

if TYPE_CHECKING:
    from ._call import Stream

EVERYTHING = sum(need.value for need in Need)
_TX_NEEDS = (Need.MESSAGE_ID | Need.MAIL_FROM | Need.RCPT_TO | Need.ENVELOPE_IDS).value
_NO_MESSAGE = "00000000"
_MEMO = b"greenfilter-memo-"
_NO_MEMOS: dict[bytes, bytes] = {}
# Reports wait unread up to this number, so that a session that nobody asks about stays small.
_MAX_UNREAD = 32


class Transaction:
    """One mail transaction (RFC 5321, 3.3): from MAIL until it is committed or given up.

    Attributes:
        local: the filter's own object for this message (``app.local_message``), else None.
    """

    __slots__ = (
        "_begun",
        "_envelope_ids",
        "_mail_from",
        "_message_id",
        "_needs",
        "_rcpt_to",
        "_session",
        "local",
    )

    def __init__(self, session: Session, message_id: str) -> None:
        self._session: Session | None = session
        self._needs = session._needs
        self._message_id = message_id
        self._mail_from: str | None = None
        self._rcpt_to: list[str] = []
        self._envelope_ids: list[str] = []
        self.local: Any = None
        self._begun = False  # local has been made

    @property
    def message_id(self) -> str:
        """smtpd's message id: 8 hex digits."""
        self._know(Need.MESSAGE_ID)
        return self._message_id

    @property
    def mail_from(self) -> str | None:
        """Sender without brackets, after rewrites; empty for the null sender."""
        self._know(Need.MAIL_FROM)
        return self._mail_from

    @property
    def rcpt_to(self) -> list[str]:
        """Accepted recipients, after rewrites."""
        self._know(Need.RCPT_TO)
        return self._rcpt_to

    @property
    def envelope_ids(self) -> list[str]:
        """One id per accepted recipient; in smtp-out one per RCPT sent."""
        self._know(Need.ENVELOPE_IDS)
        return self._envelope_ids

    def _know(self, need: Need) -> None:
        _check_need(self._needs, need)
        if self._session is not None:
            self._session._read()


class Session:
    """What is known of one SMTP session of smtpd, and what those who deal with it share.

    Attributes:
        id: smtpd's id of the session: 16 hex digits.
        incoming: False for smtp-out.
        closed: the client has left. True at once, also while a callback of the session runs.
        local: the filter's own object for this session (``app.local_session``), else None.
    """

    __slots__ = (
        "_begun",
        "_ciphers",
        "_dst",
        "_fcrdns",
        "_greeting",
        "_identity",
        "_last_tx",
        "_method",
        "_needs",
        "_rdns",
        "_rewritten",
        "_src",
        "_tx",
        "_unread",
        "_username",
        "born",
        "closed",
        "extra",
        "incoming",
        "last_stream",
        "local",
        "memos",
        "queue",
        "queued",
        "seen",
        "sid",
        "stream",
        "view",
        "worker",
    )

    def __init__(self, sid: bytes, incoming: bool = True, needs: int = EVERYTHING) -> None:
        self.sid = sid
        self.incoming = incoming
        self.closed = False
        self.local: Any = None
        self._begun = False  # local has been made
        # What the parser, the guard and whoever works on the session share:
        self.queue: deque[Any] = deque()  # Call, Chunk, bytes; what else is up to who works on it
        self.queued = False  # in somebody's hands, or about to be
        self.worker: Any = None  # who has it in hand
        self.extra: Any = None  # what greenfilter.osmtpd or a chain keeps with it
        # What a chain has to know of it in the next worker too, see :func:`memo_report`.
        self.memos: dict[bytes, bytes] = _NO_MEMOS
        self.view: Any = None  # what authors see of it
        self.born = self.seen = 0  # the parser's generation when it first, and last, saw a line
        self.stream: Stream | None = None  # the message whose lines are coming in
        self.last_stream: Stream | None = None  # the message that commit is about
        self._needs = needs
        self._unread: list[bytes] = []
        self._tx: Transaction | None = None
        self._last_tx: Transaction | None = None
        self._rewritten: str | None = None
        self._src: Address | None = None
        self._dst: Address | None = None
        self._rdns: str | None = None
        self._fcrdns: Status | None = None
        self._greeting: str | None = None
        self._identity: str | None = None
        self._method: str | None = None
        self._ciphers: str | None = None
        self._username: str | None = None

    @property
    def id(self) -> str:
        """smtpd's id of the session: 16 hex digits."""
        return self.sid.decode("ascii")

    @property
    def src(self) -> Address | None:
        """The client's end of the connection."""
        self._know(Need.SRC)
        return self._src

    @property
    def dst(self) -> Address | None:
        """The server's end of the connection."""
        self._know(Need.DST)
        return self._dst

    @property
    def rdns(self) -> str | None:
        """Reverse DNS name of the client, or ``<unknown>``."""
        self._know(Need.RDNS)
        return self._rdns

    @property
    def fcrdns(self) -> Status | None:
        """Whether that name leads back to the address: ok, permfail or tempfail."""
        self._know(Need.FCRDNS)
        return self._fcrdns

    @property
    def greeting(self) -> str | None:
        """Host name in the server's greeting."""
        self._know(Need.GREETING)
        return self._greeting

    @property
    def identity(self) -> str | None:
        """What HELO or EHLO said, after rewrites."""
        self._know(Need.IDENTITY)
        return self._identity

    @property
    def method(self) -> str | None:
        """``HELO``, ``EHLO`` or (smtp-out) ``LHLO``."""
        self._know(Need.METHOD)
        return self._method

    @property
    def ciphers(self) -> str | None:
        """Version and cipher of TLS, or None without TLS."""
        self._know(Need.CIPHERS)
        return self._ciphers

    @property
    def username(self) -> str | None:
        """User name after a successful AUTH, decoded."""
        self._know(Need.USERNAME)
        return self._username

    @property
    def authenticated(self) -> bool:
        """Whether AUTH succeeded."""
        return self.username is not None

    @property
    def tx(self) -> Transaction | None:
        """The open transaction, or None outside of one.

        Raises:
            NeedError: needs= names no field of transactions.
        """
        if not self._needs & _TX_NEEDS:
            raise NeedError("tx was read, but needs= names no field of transactions")
        return self.open_tx()

    def open_tx(self) -> Transaction | None:
        """Return what is known of the open transaction, whatever ``needs=`` says."""
        self._read()
        return self._tx

    def add_report(self, line: bytes) -> None:
        """Keep a report line of this session, to be read when a field is asked for."""
        self._unread.append(line)
        if len(self._unread) > _MAX_UNREAD:
            self._read()

    def add_memo(self, key: bytes, value: bytes) -> None:
        """Keep what a chain wants to know later, in place of the last one of this key."""
        if self.memos is _NO_MEMOS:  # most sessions have none
            self.memos = {}
        self.memos[key] = value

    def _know(self, need: Need) -> None:
        _check_need(self._needs, need)
        self._read()

    def _read(self) -> None:
        if not self._unread:
            return
        unread, self._unread = self._unread, []
        for line in unread:
            parts = line.split(b"|", 6)
            event = _EVENTS.get(parts[4])
            if event is None:
                if parts[4].startswith(_MEMO) and len(parts) > 6:
                    self.add_memo(parts[4].removeprefix(_MEMO), parts[6])
                continue
            try:
                rest = parts[6] if len(parts) > 6 else None
                values = parse_report(event, version_of(parts[1]), rest)
            except RemoteProtocolError:
                continue  # the parser has told smtpd's mistake already, where it is worth telling
            _APPLY[parts[4]](self, *values)

    # One method for each report that says something of the session or its transaction.

    def _link_connect(self, rdns: str, fcrdns: Status, src: Address, dst: Address) -> None:
        self._rdns, self._fcrdns, self._src, self._dst = rdns, fcrdns, src, dst

    def _link_greeting(self, hostname: str) -> None:
        self._greeting = hostname

    def _link_identify(self, method: str, identity: str) -> None:
        self._method, self._identity = method, identity

    def _link_tls(self, ciphers: str) -> None:
        self._ciphers = ciphers

    def _link_auth(self, result: Status, username: str) -> None:
        if result is Status.OK:
            self._username = username

    def _filter_response(self, phase: str, response: str, parameter: str | None) -> None:
        if phase in ("mail-from", "rcpt-to"):
            self._rewritten = _without_brackets(parameter) if response == "rewrite" else None

    def _tx_begin(self, message_id: str) -> None:
        self._end_tx()
        self._tx = Transaction(self, message_id)

    def _tx_mail(self, message_id: str, result: Status, sender: str) -> None:
        tx = self._tx_of(message_id)
        if tx is not None and result is Status.OK:
            tx._mail_from = sender if self._rewritten is None else self._rewritten
        self._rewritten = None

    def _tx_rcpt(self, message_id: str, result: Status, recipient: str) -> None:
        tx = self._tx_of(message_id)
        if tx is not None and result is Status.OK:
            tx._rcpt_to.append(recipient if self._rewritten is None else self._rewritten)
        self._rewritten = None

    def _tx_envelope(self, message_id: str, envelope_id: str) -> None:
        tx = self._tx_of(message_id)
        if tx is not None:
            tx._envelope_ids.append(envelope_id)

    def _tx_goes_on(self, message_id: str, _: object) -> None:
        self._tx_of(message_id)

    def _tx_reset(self, message_id: str | None) -> None:
        self._last_tx = self._tx
        self._end_tx()

    def _tx_of(self, message_id: str) -> Transaction | None:
        """Return the transaction of a report, opened again if smtp-out goes on after tx-reset."""
        tx, last = self._tx, self._last_tx
        if tx is not None or message_id == _NO_MESSAGE:
            return tx if tx is not None and tx._message_id == message_id else None
        self._tx = tx = Transaction(self, message_id)
        if last is not None and last._message_id == message_id:
            tx._mail_from = last._mail_from
            tx._rcpt_to, tx._envelope_ids = list(last._rcpt_to), list(last._envelope_ids)
        return tx

    def _end_tx(self) -> None:
        if self._tx is not None:
            self._tx._session = None
            self._tx = None


def memo_report(session: Session, key: bytes) -> bytes:
    """Return one of ``session.memos`` as a report, which no smtpd writes, for another process."""
    return b"report|0.7|0|smtp-in|%b%b|%b|%b" % (_MEMO, key, session.sid, session.memos[key])


def _check_need(needs: int, need: Need) -> None:
    if not needs & need._value_:  # need.value is a call: 0.1 us for each field that is read
        field = str(need.name).lower()
        raise NeedError(f"{field} was read, but needs= does not name it")


def _without_brackets(parameter: str | None) -> str | None:
    if parameter is None:
        return None
    start, end = parameter.find("<"), parameter.find(">")
    return parameter[start + 1 : end] if 0 <= start < end else parameter


_APPLY: dict[bytes, Callable[..., None]] = {
    b"link-connect": Session._link_connect,
    b"link-greeting": Session._link_greeting,
    b"link-identify": Session._link_identify,
    b"link-tls": Session._link_tls,
    b"link-auth": Session._link_auth,
    b"filter-response": Session._filter_response,
    b"tx-begin": Session._tx_begin,
    b"tx-mail": Session._tx_mail,
    b"tx-rcpt": Session._tx_rcpt,
    b"tx-envelope": Session._tx_envelope,
    b"tx-data": Session._tx_goes_on,
    b"tx-commit": Session._tx_goes_on,
    b"tx-reset": Session._tx_reset,
}
_EVENTS: dict[bytes, Event] = {
    event.wire.encode(): event for event in EVENTS.values() if event.wire.encode() in _APPLY
}
