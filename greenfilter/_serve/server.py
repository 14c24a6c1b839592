"""The server: a listening socket, and a greenlet for each client.

Not on aiosmtpd, which answers much itself before a handler sees it (long lines, parameters that it
does not know) and in its own words: here the testing kit's model of smtpd answers.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gevent
import gevent.server
import gevent.socket

from ..errors import UsageError
from ..testing import OracleError
from ..testing._model import Listener, Peer
from ..testing._wire import Wire, parse_version
from .address import UNKNOWN, reverse_dns, shown
from .connection import Connection
from .deliver import Maildir
from .filter import FilterKeeper, RunningFilter, Source
from .relay import Relay, RelayError
from .session import ServedSession
from .tls import throw_away_context

if TYPE_CHECKING:
    from ..testing import Message
    from .transcript import Transcript

_NO_FILTER = b"421 4.3.0 The filter does not run\r\n"


@dataclass(frozen=True, slots=True)
class Options:
    """How to serve.

    Args:
        source: the filter.
        listen: address and port; port 0 takes a free one.
        version: protocol version.
        hostname: smtpd's name.
        src: address that clients seem to come from; None: where they do come from.
        rdns: reverse DNS name that clients seem to have; None: what DNS says.
        users: password by user name; without any, AUTH is not offered.
        maildir: where accepted messages are stored.
        smtp_out: server where accepted messages are relayed: host and port.
        session_timeout: seconds that a client may be silent.
        max_message_bytes: SIZE.
        auth_required: take no mail without TLS and AUTH.
        starttls: offer STARTTLS.
    """

    source: Source
    listen: tuple[str, int] = ("127.0.0.1", 2525)
    version: str = "0.7"
    hostname: str = "mx.example.org"
    src: str | None = None
    rdns: str | None = None
    users: Mapping[str, str] = field(default_factory=dict)
    maildir: Path | None = None
    smtp_out: tuple[str, int] | None = None
    session_timeout: int = 300
    max_message_bytes: int = 36_700_160
    auth_required: bool = False
    starttls: bool = True


class Server:
    """Serves clients, many at once.

    Args:
        options: how.
        transcript: told all that happens.

    Raises:
        OSError: the Maildir cannot be made.
        ValueError: unknown protocol version.
    """

    def __init__(self, options: Options, transcript: Transcript) -> None:
        self._options = options
        self._transcript = transcript
        self._version = parse_version(options.version)
        self._context = self._tls() if options.starttls else None
        self._listener = Listener(
            options.hostname,
            starttls=self._context is not None,
            auth=bool(options.users),
            max_message_bytes=options.max_message_bytes,
            auth_required=options.auth_required,
            check_header=True,
        )
        self._maildir = Maildir(options.maildir) if options.maildir else None
        subsystems = ("smtp-in", "smtp-out") if options.smtp_out else ("smtp-in",)
        config = Wire(self._version).config(subsystems, options.session_timeout, options.hostname)
        self._filters = FilterKeeper(options.source, self._version, config, transcript)
        self._server = gevent.server.StreamServer(options.listen, self._accept)

    @property
    def address(self) -> tuple[str, int]:
        """Where clients can connect, once it has started."""
        host, port = self._server.socket.getsockname()[:2]
        return str(host), int(port)

    def start(self) -> None:
        """Start the filter, then listen. Switches greenlets.

        Raises:
            UsageError: the filter cannot be started, or the address cannot be used.
        """
        self._filters.start()
        try:
            self._server.start()
        except OSError as error:
            self._filters.stop()
            reason = str(error.strerror).partition(": (")[0]  # gevent adds the address
            raise UsageError(f"{shown(self._options.listen)}: {reason}") from error
        self._filters.watch()
        self._transcript.listening(shown(self.address), self._options.version)

    def stop(self) -> None:
        """Close all connections and end the filter. Switches greenlets."""
        self._server.stop(timeout=0)
        self._filters.stop()

    def _tls(self) -> ssl.SSLContext | None:
        try:
            return throw_away_context(self._options.hostname)
        except ImportError:
            what = "STARTTLS and AUTH" if self._options.users else "STARTTLS"
            self._transcript.note(f"no {what}: pip install cryptography")
            return None

    def _accept(self, sock: gevent.socket.socket, address: tuple[Any, ...]) -> None:
        with sock:
            running = self._filters.acquire()
            if running is None:
                sock.sendall(_NO_FILTER)
                return
            try:
                self._serve(running, sock, address)
            finally:
                self._filters.release(running)

    def _serve(
        self, running: RunningFilter, sock: gevent.socket.socket, address: tuple[Any, ...]
    ) -> None:
        sock.settimeout(self._options.session_timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        smtp = ServedSession(
            running,
            self._version,
            self._listener,
            self._peer(address, sock.getsockname()),
            self._options.users,
            partial(self._deliver, running),
            self._transcript,
        )
        Connection(sock, smtp, running.link, self._context, self._transcript).serve()

    def _peer(self, address: tuple[Any, ...], ours: tuple[Any, ...]) -> Peer:
        host, port = self._options.src or address[0], address[1]
        rdns, fcrdns = self._options.rdns, "pass"
        if rdns is None:
            rdns, fcrdns = reverse_dns(host)
        elif rdns == UNKNOWN:
            fcrdns = "fail"
        return Peer(shown((host, port)), shown(ours), rdns, fcrdns)

    def _deliver(self, running: RunningFilter, session_id: str, message: Message) -> None:
        path = None
        if self._maildir:
            try:
                path = str(self._maildir.store(message))
            except OSError as error:
                self._transcript.failed(session_id, f"not stored: {error}")
        self._transcript.accepted(session_id, message, path)
        if self._options.smtp_out:
            greenlet = gevent.Greenlet(self._relay, running, message, *self._options.smtp_out)
            running.users.add(greenlet)
            greenlet.start()

    def _relay(self, running: RunningFilter, message: Message, host: str, port: int) -> None:
        relay = Relay(running.link, self._transcript, self._options.hostname, message)
        try:
            relay.run(host, port)
        except (OSError, RelayError) as error:
            self._transcript.failed(relay.id, f"{message.message_id} not relayed: {error}")
        except OracleError:
            return  # told by the link
        finally:
            self._filters.release(running)
