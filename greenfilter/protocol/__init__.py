"""The smtpd filter protocol, without I/O, threads, greenlets or a clock.

:class:`Connection` turns smtpd's bytes into calls, :class:`Guard` turns decisions into bytes, and
the catalogue (:data:`PHASES`, :data:`EVENTS`) names everything. Nothing here imports from the
rest of greenfilter but its errors.
"""

from ._call import Call, Chunk, Stream
from ._catalogue import (
    EVENTS,
    NEED_EVENTS,
    NEWEST,
    OLDEST,
    PHASES,
    Event,
    Field,
    Need,
    Phase,
    Status,
)
from ._config import Config
from ._connection import LONGEST_MESSAGE, MAX_LINE_BYTES, Connection
from ._decision import (
    BYPASS,
    DROP,
    JUNK,
    MAX_REPLY_BYTES,
    PROCEED,
    Decision,
    bypass,
    disconnect,
    junk,
    proceed,
    reject,
    report,
    rewrite,
)
from ._fields import Address, at_version, text
from ._guard import LINE_TOO_LONG, TEMPFAIL, Guard, last_resort
from ._registration import registration
from ._session import EVERYTHING, Session, Transaction, memo_report

__all__ = [
    "BYPASS",
    "DROP",
    "EVENTS",
    "EVERYTHING",
    "JUNK",
    "LINE_TOO_LONG",
    "LONGEST_MESSAGE",
    "MAX_LINE_BYTES",
    "MAX_REPLY_BYTES",
    "NEED_EVENTS",
    "NEWEST",
    "OLDEST",
    "PHASES",
    "PROCEED",
    "TEMPFAIL",
    "Address",
    "Call",
    "Chunk",
    "Config",
    "Connection",
    "Decision",
    "Event",
    "Field",
    "Guard",
    "Need",
    "Phase",
    "Session",
    "Status",
    "Stream",
    "Transaction",
    "at_version",
    "bypass",
    "disconnect",
    "junk",
    "last_resort",
    "memo_report",
    "proceed",
    "registration",
    "reject",
    "report",
    "rewrite",
    "text",
]
