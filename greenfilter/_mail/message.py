"""One whole message: what an ``app.message`` handler receives and edits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..errors import MessageTooBig
from .headers import Headers
from .spool import CRLF, Content

if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Iterator
    from email.message import EmailMessage

_FIRST_READ_BYTES: Final = 16384


class Message:
    """A message, exact to the byte, as its handler edits it.

    The bytes stay in the spool: nothing is read before it is asked for, headers are parsed when
    they are first used, and a body that is not replaced is streamed. Nothing here switches
    greenlets but :meth:`as_email`, and everything may be used from a thread.

    Args:
        spool: the message as it came.
        max_header_bytes: the largest header block that is parsed.
        compute: calls a function that computes for long, with its arguments, where it delays
            nobody else; None calls it right here.
    """

    __slots__ = ("_body", "_compute", "_headers", "_max_header_bytes", "_parts", "_spool")

    def __init__(
        self,
        spool: Content,
        *,
        max_header_bytes: int = 1 << 20,
        compute: Callable[..., Any] | None = None,
    ) -> None:
        self._compute = compute
        self._spool = spool
        self._max_header_bytes = max_header_bytes
        self._parts: _Parts | None = None
        self._headers: Headers | None = None
        self._body: bytes | None = None

    @property
    def headers(self) -> Headers:
        """The header fields, to read and to edit.

        Raises:
            MessageTooBig: the header block has more than ``max_header_bytes``.
            SpoolError: the message cannot be read, or its transaction is over.
        """
        if self._headers is None:
            self._headers = Headers(self._split().block)
        return self._headers

    @property
    def body(self) -> bytes:
        """The bytes after the blank line that ends the headers; b"" if there is none.

        Set it to any bytes: lines may end in CRLF or LF, and all will end in CRLF, the last one
        too. Errors as :attr:`headers`, and TypeError where it is set to anything but bytes.
        """
        return self._spool.read(self._split().body) if self._body is None else self._body

    @body.setter
    def body(self, data: bytes) -> None:
        self._split()
        self._body = CRLF.join((*split_lines(data), b""))

    @property
    def edited(self) -> bool:
        """Whether a header was edited or the body was set."""
        return self._body is not None or (self._headers is not None and self._headers.edited)

    @property
    def raw(self) -> bytes:
        """The message as edited, lines ended by CRLF. Loads all of it; see :meth:`open`."""
        return self._content().read()

    @property
    def size(self) -> int:
        """Bytes of the message as edited, line ends included."""
        return self._content().size

    def open(self) -> io.BufferedReader:
        """Return a file object over the message as edited now: read only and seekable.

        The body is not loaded unless it was set. Reading raises SpoolError when the message's
        transaction is over.
        """
        return self._content().open()

    def lines(self) -> Iterator[list[bytes]]:
        """Yield the lines of the message as edited now, without their ends, in batches.

        Returns:
            Batches of lines of about 64 KiB, read as they are asked for. Where nothing was edited
            these are exactly the lines that came.

        Raises:
            SpoolError: the message cannot be read, or its transaction is over.
        """
        return self._content().batches()

    def as_email(self) -> EmailMessage:
        """Return the message as edited, parsed by the standard library (``email.policy.SMTP``).

        The whole message is loaded, and parsed in the thread pool, so that it holds up no other
        session. Changes of the result do not reach this message: return its ``as_bytes()`` from
        the handler. Fields that are not changed keep their lines there. A field that is too
        malformed for the standard library is plain text, without attributes.

        Raises:
            MessageTooBig: there are more than 50 parts within each other, 1,000 parts, a million
                lines (of less than 40 bytes on average), 8,192 characters in a MIME field, or
                262,144 in all of them and in other long fields: that would take too long.
            SpoolError: the message cannot be read, or its transaction is over.

        Switches greenlets.
        """
        # Takes 10 ms to import, and most filters never ask.
        from .email import parse_email

        raw = self.raw
        email: EmailMessage
        email = parse_email(raw) if self._compute is None else self._compute(parse_email, raw)
        return email

    def _content(self) -> Content:
        if not self.edited:
            return self._spool
        parts = self._split()
        head = parts.block if self._headers is None else bytes(self._headers)
        if parts.has_blank_line or self._body:
            head += CRLF
        if self._body is None:
            return _Edited(head, self._spool, parts.body)
        return _Edited(head + self._body, self._spool, self._spool.size)

    def _split(self) -> _Parts:
        if self._parts is None:
            self._parts = _find_parts(self._spool, self._max_header_bytes)
        return self._parts


class _Parts(NamedTuple):
    """Where a message is cut.

    Attributes:
        block: the header block as it came, lines ended by CRLF.
        has_blank_line: whether a blank line ends it; without one there is no body.
        body: position of the body in the spool.
    """

    block: bytes
    has_blank_line: bool
    body: int


class _Edited(Content):
    """Bytes of our own, then the spool from a position on. Later edits do not change it."""

    __slots__ = ("_head", "_spool", "_start")

    def __init__(self, head: bytes, spool: Content, start: int) -> None:
        self._head = head
        self._spool = spool
        self._start = start

    @property
    def size(self) -> int:
        return len(self._head) + self._spool.size - self._start

    def read(self, start: int = 0, end: int | None = None) -> bytes:
        shift = self._start - len(self._head)
        data = self._head[start:end]
        if end is not None and end <= len(self._head):
            return data
        rest = self._spool.read(max(start + shift, self._start), end and end + shift)
        return data + rest if data else rest


def split_lines(data: bytes) -> list[bytes]:
    r"""Return the lines of mail that a handler made, without their ends.

    Args:
        data: lines ended by LF or CRLF. The last one needs no end. One CR before an LF belongs to
            the end of the line, any other CR to the line: ``b"a\r\r\nb"`` is ``b"a\r", b"b"``.

    Returns:
        The lines, none where ``data`` is empty.

    Raises:
        TypeError: ``data`` is not bytes.
    """
    if not isinstance(data, bytes | bytearray | memoryview):
        raise TypeError(f"mail is bytes, not {type(data).__name__}: encode it first")
    lines = bytes(data).replace(CRLF, b"\n").split(b"\n")
    if not lines[-1]:
        lines.pop()
    return lines


def mark_as_spam(message: Message) -> Iterator[list[bytes]]:
    """Mark a message as smtpd marks junk, and yield its lines in batches.

    That is ``X-Spam: Yes`` on top, unless smtpd has put it there already.

    Raises:
        MessageTooBig, SpoolError: see :attr:`Message.headers`.
    """
    if "yes" not in (value.strip().lower() for value in message.headers.get_all("X-Spam")):
        message.headers.prepend("X-Spam", "Yes")
    return message.lines()


def _find_parts(spool: Content, max_header_bytes: int) -> _Parts:
    """Find the blank line. Any line before it belongs to the header block, well-formed or not."""
    window = _FIRST_READ_BYTES
    while True:
        data = spool.read(0, window)
        if data.startswith(CRLF):
            return _Parts(b"", True, len(CRLF))
        end = data.find(CRLF + CRLF)
        if end >= 0 or len(data) < window or window > max_header_bytes + len(CRLF):
            break
        window *= 4
    block = data[: end + len(CRLF)] if end >= 0 else data
    if len(block) > max_header_bytes:
        raise MessageTooBig(f"the header block is above the limit of {max_header_bytes} bytes")
    return _Parts(block, end >= 0, len(block) + len(CRLF) if end >= 0 else len(block))
