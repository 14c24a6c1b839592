"""Write OpenSMTPD filters in plain, blocking Python.

Make a :class:`Filter`, decorate functions, and start the file with ``greenfilter run FILE`` from
smtpd.conf. Importing this package does not import gevent.
"""

from ._chain.chain import Chain as Chain
from ._filter.app import Filter as Filter
from ._filter.context import Context as Context
from ._filter.context import Session as Session
from ._mail.headers import Headers as Headers
from ._mail.message import Message as Message
from .errors import DecisionError as DecisionError
from .errors import GreenfilterError as GreenfilterError
from .errors import HandlerTimeout as HandlerTimeout
from .errors import MessageError as MessageError
from .errors import MessageTooBig as MessageTooBig
from .errors import NeedError as NeedError
from .errors import RegistrationError as RegistrationError
from .errors import SessionClosed as SessionClosed
from .errors import SpoolError as SpoolError
from .errors import WaitError as WaitError
from .protocol import DROP as DROP
from .protocol import Address as Address
from .protocol import Config as Config
from .protocol import Decision as Decision
from .protocol import Need as Need
from .protocol import Status as Status
from .protocol import Transaction as Transaction
from .protocol import bypass as bypass
from .protocol import disconnect as disconnect
from .protocol import junk as junk
from .protocol import proceed as proceed
from .protocol import reject as reject
from .protocol import report as report
from .protocol import rewrite as rewrite

__all__ = [
    "DROP",
    "Address",
    "Chain",
    "Config",
    "Context",
    "Decision",
    "DecisionError",
    "Filter",
    "GreenfilterError",
    "HandlerTimeout",
    "Headers",
    "Message",
    "MessageError",
    "MessageTooBig",
    "Need",
    "NeedError",
    "RegistrationError",
    "Session",
    "SessionClosed",
    "SpoolError",
    "Status",
    "Transaction",
    "WaitError",
    "bypass",
    "disconnect",
    "junk",
    "proceed",
    "reject",
    "report",
    "rewrite",
]

__version__ = "0.1.0"
