"""Test a filter without a mail server.

:class:`FakeSmtpd` plays smtpd over the real protocol, to an app in this process or to a command,
and fails the test wherever real smtpd would die, hang, or cut the client.
"""

from ._model import Message as Message
from ._oracle import ClientCut as ClientCut
from ._oracle import OracleError as OracleError
from ._oracle import SmtpdWouldDie as SmtpdWouldDie
from ._oracle import SmtpdWouldHang as SmtpdWouldHang
from ._session import Reply as Reply
from ._session import Session as Session
from ._smtp_out import OutSession as OutSession
from ._smtpd import FakeSmtpd as FakeSmtpd

__all__ = [
    "ClientCut",
    "FakeSmtpd",
    "Message",
    "OracleError",
    "OutSession",
    "Reply",
    "Session",
    "SmtpdWouldDie",
    "SmtpdWouldHang",
]
