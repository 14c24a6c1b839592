"""Every error that greenfilter raises.

GreenfilterError
├── ProtocolError
│   ├── RemoteProtocolError   smtpd sent a line that makes no sense; it was skipped
│   └── DecisionError         a decision that this phase or this server does not allow
├── RegistrationError         a handler or an option of the filter is wrong (file and line given)
├── NeedError                 a field was read that ``needs=`` did not ask for
├── HandlerTimeout            raised inside a callback that passed its deadline
├── WaitError                 a callback wanted to wait in a way that cannot work in a filter
├── SessionClosed             raised inside a callback whose client left (``cancel_on_close=True``)
├── MessageError
│   ├── MessageTooBig         the message passed a limit (bytes, header block, parts)
│   └── SpoolError            the message could not be kept (disk full, no temporary directory)
└── UsageError                the command line, or the filter file, is wrong
"""

from __future__ import annotations


class GreenfilterError(Exception):
    """Base of every error below."""


class ProtocolError(GreenfilterError):
    """Something on the wire is not legal, in either direction."""


class RemoteProtocolError(ProtocolError):
    """A line from smtpd makes no sense. It is logged and skipped, never fatal."""


class DecisionError(ProtocolError):
    """A decision was refused before a byte of it was queued.

    Raised when the phase or the server's protocol version does not allow the decision, or when
    its text cannot be sent. The handler's ``on_error`` policy answers instead.
    """


class RegistrationError(GreenfilterError):
    """A handler or an option given to the filter is wrong.

    Args:
        text: what is wrong and what to do.
        where: ``file:line`` of the handler, or None if there is none.
    """

    def __init__(self, text: str, where: str | None = None) -> None:
        super().__init__(f"{where}: {text}" if where else text)
        self.text = text
        self.where = where


class NeedError(GreenfilterError):
    """A field of the session or transaction was read that ``needs=`` did not ask for."""


class HandlerTimeout(GreenfilterError):
    """Raised inside a callback that passed its deadline. The request has been answered by then."""


class WaitError(GreenfilterError):
    """A callback tried to wait in a way that cannot work in a filter. The text says what can."""


class SessionClosed(GreenfilterError):
    """Raised inside a callback whose client left, where ``cancel_on_close=True`` asks for it."""


class MessageError(GreenfilterError):
    """A message could not be kept whole, or not be read within limits."""


class MessageTooBig(MessageError):
    """The message passed ``max_message_bytes``, or a limit of its header block or its parts.

    One that a handler raises makes commit refuse the message with 552 where ``on_error`` is
    tempfail: the client's next try would fail as well.
    """


class SpoolError(MessageError):
    """The temporary file of a message could not be written or read."""


class UsageError(GreenfilterError):
    """The command line or the filter file is wrong.

    Args:
        text: what is wrong, where, and what to do.
        exit_code: status that the command ends with.
    """

    def __init__(self, text: str, exit_code: int = 2) -> None:
        super().__init__(text)
        self.exit_code = exit_code
