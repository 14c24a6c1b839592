"""Every filter phase and report event: fields, versions, legal decisions.

This is the one place that knows the names of the protocol. Registration, parsing, validation, the
``osmtpd`` module and the tables of the documentation all derive from it. Sources: smtpd-filters(7)
and, where smtpd differs from its manual, what was recorded from smtpd 6.8.0p2 and 7.8.0.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Flag, StrEnum, auto

OLDEST = (0, 4)
NEWEST = (0, 7)
# Below this version, answers name the token before the session.
TOKEN_FIRST_BEFORE = (0, 5)
KNOWN_VERSIONS = tuple((0, minor) for minor in range(OLDEST[1], NEWEST[1] + 1))


class Status(StrEnum):
    """Result of a command, of the reverse DNS check, or of an authentication."""

    OK = "ok"
    TEMPFAIL = "tempfail"
    PERMFAIL = "permfail"


class Need(Flag):
    """What a filter wants to know of sessions and transactions (``Filter(needs=...)``)."""

    SRC = auto()
    DST = auto()
    RDNS = auto()
    FCRDNS = auto()
    GREETING = auto()
    IDENTITY = auto()
    METHOD = auto()
    CIPHERS = auto()
    USERNAME = auto()
    MESSAGE_ID = auto()
    MAIL_FROM = auto()
    RCPT_TO = auto()
    ENVELOPE_IDS = auto()


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a request or report.

    Args:
        name: as a handler's parameter is called in the documentation.
        kind: what the bytes mean: ``text``, ``status``, ``address``, ``vis``, ``size`` or ``line``.
        optional: smtpd may leave it out; the handler then gets None.
    """

    name: str
    kind: str = "text"
    optional: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Phase:
    """A filter request (smtpd-filters(7), "FILTERS").

    Args:
        wire: name on the wire.
        fields: what follows SID and TOKEN; only the last may hold ``|``.
        decisions: what may answer it, on a server that knows the decision at all.
    """

    wire: str
    fields: tuple[Field, ...]
    decisions: frozenset[str]

    @property
    def name(self) -> str:
        """The wire name as a Python name."""
        return self.wire.replace("-", "_")


@dataclass(frozen=True, slots=True, eq=False)
class Event:
    """A report (smtpd-filters(7), "REPORTS").

    Args:
        wire: name on the wire.
        fields: what follows SID, in the order of the newest version; only the last may hold ``|``.
        swapped_before: below this version the last two fields stood in the other order, so that
            the one that may hold ``|`` was not the last.
        ends: what is over with it: ``message`` (no more lines of it come), ``transaction`` or
            ``session``, each with those before it; nothing where it is empty.
        state: whose state it tells, which another process has to be told to go on with it:
            ``session`` or ``transaction``; neither where it is empty.
    """

    wire: str
    fields: tuple[Field, ...]
    swapped_before: tuple[int, int] = OLDEST
    ends: str = ""
    state: str = ""

    @property
    def name(self) -> str:
        """The wire name as a Python name."""
        return self.wire.replace("-", "_")


_ANSWERS = frozenset({"proceed", "reject", "disconnect"})
# junk at commit kills smtpd. At rset and quit it is accepted and changes nothing.
_JUNK = _ANSWERS | {"junk"}
# rewrite elsewhere is an error to the client, and at commit it hangs the session.
_REWRITE = _JUNK | {"rewrite"}
# report elsewhere replaces the argument of the command.
_REPORT = frozenset({"report"})

PHASES: dict[str, Phase] = {
    phase.name: phase
    for phase in (
        Phase("connect", (Field("rdns"), Field("address", "address")), _JUNK | _REPORT),
        Phase("helo", (Field("identity"),), _REWRITE),
        Phase("ehlo", (Field("identity"),), _REWRITE),
        Phase("starttls", (), _JUNK),
        Phase("auth", (Field("credentials"),), _REWRITE),
        Phase("mail-from", (Field("sender"),), _REWRITE),
        Phase("rcpt-to", (Field("recipient"),), _REWRITE),
        Phase("data", (), _JUNK | _REPORT),
        Phase("data-line", (Field("line", "line"),), frozenset()),
        Phase("rset", (), _JUNK),
        Phase("quit", (), _JUNK),
        Phase("noop", (), _JUNK),
        Phase("help", (), _ANSWERS),
        Phase("wiz", (), _ANSWERS),
        Phase("commit", (), _ANSWERS | _REPORT),
    )
}

_MESSAGE_ID = Field("message_id")
_RESULT = Field("result", "status")

EVENTS: dict[str, Event] = {
    event.name: event
    for event in (
        Event(
            "link-connect",
            (
                Field("rdns"),
                Field("fcrdns", "status"),
                Field("src", "address"),
                Field("dst", "address"),
            ),
            state="session",
        ),
        Event("link-greeting", (Field("hostname"),), state="session"),
        Event("link-identify", (Field("method"), Field("identity")), state="session"),
        Event("link-tls", (Field("ciphers"),), state="session"),
        Event("link-auth", (_RESULT, Field("username", "vis")), (0, 7), state="session"),
        Event("link-disconnect", (), ends="session"),
        Event("tx-reset", (Field("message_id", optional=True),), ends="transaction"),
        Event("tx-begin", (_MESSAGE_ID,), state="transaction"),
        Event("tx-mail", (_MESSAGE_ID, _RESULT, Field("sender")), (0, 6), state="transaction"),
        Event("tx-rcpt", (_MESSAGE_ID, _RESULT, Field("recipient")), (0, 6), state="transaction"),
        Event("tx-envelope", (_MESSAGE_ID, Field("envelope_id")), state="transaction"),
        Event("tx-data", (_MESSAGE_ID, _RESULT), state="transaction"),
        Event("tx-commit", (_MESSAGE_ID, Field("size", "size")), state="transaction"),
        Event("tx-rollback", (_MESSAGE_ID,), ends="message"),
        Event("protocol-client", (Field("command"),)),
        Event("protocol-server", (Field("response"),)),
        Event("filter-report", (Field("kind"), Field("filter_name"), Field("message"))),
        Event(
            "filter-response",
            (Field("phase"), Field("response"), Field("parameter", optional=True)),
        ),
        Event("timeout", ()),
    )
}

# The same facts as sets of names on the wire.
STATE_OF_SESSION = frozenset(e.wire.encode() for e in EVENTS.values() if e.state == "session")
STATE_OF_TRANSACTION = frozenset(
    e.wire.encode() for e in EVENTS.values() if e.state == "transaction"
)
ENDS_TRANSACTION = frozenset(
    e.wire.encode() for e in EVENTS.values() if e.ends in ("transaction", "session")
)

# Which reports keep each field of the session and the transaction true.
NEED_EVENTS: dict[Need, tuple[str, ...]] = {
    Need.SRC: ("link-connect",),
    Need.DST: ("link-connect",),
    Need.RDNS: ("link-connect",),
    Need.FCRDNS: ("link-connect",),
    Need.GREETING: ("link-greeting",),
    Need.IDENTITY: ("link-identify",),
    Need.METHOD: ("link-identify",),
    Need.CIPHERS: ("link-tls",),
    Need.USERNAME: ("link-auth",),
    Need.MESSAGE_ID: ("tx-begin", "tx-reset"),
    Need.MAIL_FROM: ("tx-begin", "tx-mail", "filter-response", "tx-reset"),
    Need.RCPT_TO: ("tx-begin", "tx-rcpt", "filter-response", "tx-reset"),
    Need.ENVELOPE_IDS: ("tx-begin", "tx-envelope", "tx-reset"),
}

# smtpd 7.6 added the report decision; before, it ends the server. Protocol 0.7 is older, of 7.4.
DECISION_SINCE: dict[str, tuple[int, int]] = {"report": (0, 7)}
DECISION_SINCE_RELEASE: dict[str, tuple[int, int]] = {"report": (7, 6)}
