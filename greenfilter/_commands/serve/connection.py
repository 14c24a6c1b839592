"""One client: bytes of its socket to command lines, replies back."""

from __future__ import annotations

import ssl
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import gevent.socket

from ..._smtpd import texts
from ..._smtpd.oracle import ClientCut, OracleError
from ..._smtpd.smtp_in import MAX_LINE_BYTES
from ..._smtpd.wire import decode

if TYPE_CHECKING:
    from ..._smtpd.link import FilterLink
    from .served_session import ServedSession
    from .transcript import Transcript

_READ_BYTES = 65_536


class Connection:
    """Serves a client until one of the two leaves, as ``smtp_io()`` of smtpd does.

    Args:
        sock: to the client; its timeout is smtpd's session timeout.
        smtp: the session.
        link: to the filter.
        context: for STARTTLS, None where it is not offered.
        transcript: told of what goes wrong.
    """

    def __init__(
        self,
        sock: gevent.socket.socket,
        smtp: ServedSession,
        link: FilterLink,
        context: ssl.SSLContext | None,
        transcript: Transcript,
    ) -> None:
        self._sock = sock
        self._smtp = smtp
        self._link = link
        self._context = context
        self._transcript = transcript
        # Complete lines without LF, and what came after the last of them.
        self._lines: deque[bytes] = deque()
        self._rest = b""
        self._said = ""

    def serve(self) -> None:
        """Run the session. Switches greenlets."""
        try:
            self._converse()
        except OracleError:
            pass  # told by the link; smtpd would not go on with this session
        finally:
            self._transcript.disconnected(self._smtp.id)
            self._sock.close()

    def _converse(self) -> None:
        try:
            self._do(self._smtp.begin)
            while not self._smtp.ending and (line := self._read_line()) is not None:
                self._take(line)
        except TimeoutError:
            self._smtp.report("timeout")
        except ssl.SSLError as error:
            self._transcript.failed(self._smtp.id, f"TLS: {error}")
        except ConnectionError:
            pass
        except OSError as error:
            self._transcript.failed(self._smtp.id, str(error))
        self._smtp.free()
        # As smtpd sees to it: the filter has it all before the client sees the end.
        self._link.flush()

    def _take(self, raw: bytes) -> None:
        # smtpd reads C strings: a NUL ends the line.
        line = raw.removesuffix(b"\r").split(b"\0", 1)[0]
        smtp = self._smtp
        if smtp.in_data and line != b".":
            smtp.data_line(raw)
            self._reply()
        elif self._lines or self._rest:
            self._do(smtp.bad_input, texts.PIPELINING)
        elif smtp.in_data:
            self._do(smtp.end_of_data)
        else:
            self._do(smtp.execute, decode(line), "ok")
            if self._tls_is_next(line):
                self._start_tls()

    def _do(self, step: Callable[..., None], *arguments: str) -> None:
        # A client that is cut is told of by the link; its reply says 421.
        with suppress(ClientCut):
            step(*arguments)
        self._reply()

    def _reply(self) -> None:
        lines, self._smtp.lines = self._smtp.lines, []
        if lines:
            self._said = lines[-1]
            text = "".join(f"{line}\r\n" for line in lines)
            self._sock.sendall(text.encode("utf-8", "surrogateescape"))

    def _read_line(self) -> bytes | None:
        """Wait for the next line; None when the client has left."""
        while not self._lines:
            if len(self._rest) >= MAX_LINE_BYTES:
                self._do(self._smtp.bad_input, texts.LINE_TOO_LONG)
                return None
            # A filter that reads slowly makes the client wait, not this process grow.
            self._link.flush()
            chunk = self._sock.recv(_READ_BYTES)
            if not chunk:
                return None
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            self._lines.extend(lines)
        return self._lines.popleft()

    def _tls_is_next(self, line: bytes) -> bool:
        return line.upper().startswith(b"STARTTLS") and self._said.startswith("220 ")

    def _start_tls(self) -> None:
        assert self._context is not None, "STARTTLS was not offered"
        self._sock = self._context.wrap_socket(self._sock, server_side=True)
        cipher = self._sock.cipher()
        assert cipher is not None, "the handshake is over"
        name, _, bits = cipher
        self._do(self._smtp.tls_started, f"{self._sock.version()}:{name}:{bits}")
