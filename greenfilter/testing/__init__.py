"""Test a filter without a mail server.

:class:`FakeSmtpd` plays smtpd over the real protocol, to an app in this process or to a command,
and fails the test wherever real smtpd would die, hang, or cut the client. With pytest, the
fixtures of :mod:`greenfilter.testing.plugin` are there without an import.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .._smtpd.model import Message as Message
    from .._smtpd.oracle import ClientCut as ClientCut
    from .._smtpd.oracle import LoopBlocked as LoopBlocked
    from .._smtpd.oracle import OracleError as OracleError
    from .._smtpd.oracle import SmtpdWouldDie as SmtpdWouldDie
    from .._smtpd.oracle import SmtpdWouldHang as SmtpdWouldHang
    from .._smtpd.smtp_out import OutSession as OutSession
    from ._fake_smtpd import FakeSmtpd as FakeSmtpd
    from ._session import Reply as Reply
    from ._session import Session as Session
    from ._time import Clock as Clock

__all__ = [
    "ClientCut",
    "Clock",
    "FakeSmtpd",
    "LoopBlocked",
    "Message",
    "OracleError",
    "OutSession",
    "Reply",
    "Session",
    "SmtpdWouldDie",
    "SmtpdWouldHang",
]

# pytest imports this package for its plugin in every run: gevent only where it is wanted.
_HOMES = {
    "ClientCut": ".._smtpd.oracle",
    "Clock": "._time",
    "FakeSmtpd": "._fake_smtpd",
    "LoopBlocked": ".._smtpd.oracle",
    "Message": ".._smtpd.model",
    "OracleError": ".._smtpd.oracle",
    "OutSession": ".._smtpd.smtp_out",
    "Reply": "._session",
    "Session": "._session",
    "SmtpdWouldDie": ".._smtpd.oracle",
    "SmtpdWouldHang": ".._smtpd.oracle",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)
