"""FakeSmtpd: smtpd for a test."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import gevent

from .._smtpd.link import FilterLink
from .._smtpd.model import Listener, Message, Peer
from .._smtpd.oracle import OracleError
from .._smtpd.smtp_out import OutSession
from .._smtpd.target import Process, Target
from .._smtpd.wire import Wire, parse_version
from ._in_memory import InMemory
from ._session import Session
from ._time import Clock
from ._transcript import transcript

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType

    from .. import Filter

_Result = TypeVar("_Result")
_POLL_SECONDS = 0.002


class FakeSmtpd:
    """Plays smtpd over the real protocol, and is a strict oracle of what the filter writes.

    Use it as a context manager. Leaving the block stops smtpd (end of file for the filter), waits
    for the filter to end, and raises what the oracle found that no call has raised yet in the
    greenlet that entered the block::

        with FakeSmtpd(app) as smtpd:
            session = smtpd.connect(src="192.0.2.10:4711")
            session.ehlo("client.example.net")
            assert session.mail_from("spammer@example.net").code == 550

    Args:
        app: a ``Filter`` (it runs in this process, in the hub of this thread), or a command.
        version: protocol version, ``"0.4"`` to ``"0.7"``.
        subsystems: where smtpd.conf names the filter, ``smtp-in`` and ``smtp-out``.
        session_timeout: seconds, told to the filter.
        hostname: smtpd's name.
        timeout: seconds to wait for each answer.
        starttls: offer STARTTLS.
        auth: offer AUTH after STARTTLS.
        received: begin each message with smtpd's own ``Received:`` header.
        max_message_bytes: SIZE.
        read_bytes: how much smtpd reads of the filter at once; little makes a slow reader.

    Attributes:
        messages: what was delivered, in order.
        trace: every line, ``("<", line)`` from smtpd and ``(">", line)`` from the filter.
        errors: what the oracle found, in order.
    """

    def __init__(
        self,
        app: Filter | list[str],
        version: str = "0.7",
        subsystems: Sequence[str] = ("smtp-in",),
        session_timeout: int = 300,
        hostname: str = "mx.example.org",
        timeout: float = 10.0,
        *,
        starttls: bool = True,
        auth: bool = True,
        received: bool = True,
        max_message_bytes: int = 36_700_160,
        read_bytes: int = 65_536,
    ) -> None:
        self.messages: list[Message] = []
        self.trace: list[tuple[str, bytes]] = []
        self._version = parse_version(version)
        self._config = Wire(self._version).config(tuple(subsystems), session_timeout, hostname)
        self._listener = Listener(hostname, starttls, auth, received, max_message_bytes)
        self._clock = Clock()
        self._process: Process | None = None
        self._in_memory: InMemory | None = None
        if isinstance(app, list):
            self._process = Process(app)
        else:
            self._in_memory = InMemory(app, self._clock)
        target: Target = self._process or self._in_memory  # type: ignore[assignment]
        self._link = FilterLink(target, self._version, timeout, self._observe, read_bytes)
        self._unseen: list[OracleError] | None = None

    def __repr__(self) -> str:
        version = ".".join(map(str, self._version))
        return f"<FakeSmtpd {version}, {len(self.trace)} lines, {len(self.messages)} messages>"

    @property
    def clock(self) -> Clock:
        """The time that deadlines go by: ``smtpd.clock.advance(30.0)``.

        Raises:
            RuntimeError: the filter is a command, and has a time of its own.
        """
        if self._process is not None:
            raise RuntimeError("only an app in this process goes by the test's clock")
        return self._clock

    @property
    def errors(self) -> list[OracleError]:
        """What the oracle found, in order."""
        return self._link.errors

    @property
    def log(self) -> list[str]:
        """What a command wrote to its standard error, line by line."""
        return self._link.target.log

    @property
    def registered(self) -> set[tuple[str, str, str]]:
        """What the filter registered: ``(kind, subsystem, name)``, names as on the wire."""
        return self._link.oracle.registered

    def __enter__(self) -> FakeSmtpd:
        try:
            self._link.open(self._config)
        except OracleError:
            self._link.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        unseen = self.stop()
        if error is None and unseen:
            raise unseen[0]
        for hidden in unseen:
            if hidden is not error and error is not None:
                error.add_note(f"{type(hidden).__name__}: {hidden}")

    def transcript(self, last: int | None = None) -> str:
        """Return the trace as text, a line each, without the credentials of AUTH.

        Args:
            last: how many lines at most, the last ones; None for all.
        """
        return transcript(self.trace, last)

    def stop(self) -> list[OracleError]:
        """Stop smtpd, whatever its clients are doing: end of file for the filter. Switches.

        Returns:
            What the oracle found that no call has raised. Leaving the block raises it too.
        """
        if self._unseen is None:
            self._unseen = self._link.close()
        return self._unseen

    def kill(self) -> None:
        """Kill the command with SIGKILL. Real smtpd ends with its filter: what follows raises.

        Raises:
            RuntimeError: the filter is not a command.
        """
        self._command().signal(signal.SIGKILL)

    def kill_worker(self) -> None:
        """Kill what the command has started: the worker processes of ``greenfilter run``.

        smtpd and its sessions live on, as the supervisor answers what the worker owed.

        Raises:
            RuntimeError: the filter is not a command, or it has started no process.
        """
        if not self._command().kill_children():
            raise RuntimeError("the command has no process of its own")

    @contextmanager
    def not_reading(self) -> Iterator[None]:
        """Make smtpd read nothing of what the filter writes, within the block.

        A call that waits for an answer would wait in vain there: :meth:`start` it.
        """
        self._link.pause()
        try:
            yield
        finally:
            self._link.resume()

    def connect(
        self,
        src: str = "192.0.2.10:4711",
        rdns: str | None = None,
        fcrdns: str = "pass",
        dst: str = "192.0.2.25:25",
        *,
        smtps: bool = False,
    ) -> Session:
        """Connect a client; ``session.reply`` is the banner, or what came instead.

        Args:
            src: ``address:port``, ``[v6-address]:port``, or ``unix:path`` for mail that is
                submitted on this machine.
            rdns: reverse DNS name, ``<unknown>`` for none. By default client.example.net, or
                smtpd's own name for mail that is submitted on this machine.
            fcrdns: ``pass``, ``fail`` or ``error``.
            dst: as ``src``.
            smtps: TLS begins with the connection.

        Raises:
            OracleError: instead of an answer. Switches greenlets.
        """
        if src.startswith("unix:"):
            peer = Peer(src, src, rdns or self._listener.hostname, fcrdns)
        else:
            peer = Peer(src, dst, rdns or "client.example.net", fcrdns, smtps)
        session = Session(self._link, self._version, self._listener, peer, self.messages.append)
        session.connect()
        return session

    def connect_out(
        self,
        dst: str = "192.0.2.80:25",
        rdns: str = "mx.example.com",
        fcrdns: str = "pass",
        src: str = "192.0.2.25:38000",
        *,
        server: str | None = None,
    ) -> OutSession:
        """Connect to another server; the filter sees the reports of it. Switches greenlets.

        Args:
            dst: ``address:port`` of the other server.
            rdns: its name in DNS.
            fcrdns: ``pass``, ``fail`` or ``error``.
            src: ``address:port`` of our end.
            server: what it calls itself, by default its name in DNS.
        """
        hostname = self._listener.hostname
        session = OutSession(self._link, self._version, hostname, server or rdns)
        session.connect(src, dst, rdns, fcrdns)
        return session

    def start(
        self, call: Callable[..., _Result], *args: Any, **kwargs: Any
    ) -> gevent.Greenlet[..., _Result]:
        """Run a call in a greenlet of its own; ``.get(timeout=...)`` has its result.

        For example ``pending = smtpd.start(session.mail_from, "a@example.net")``. Never switches.
        """
        return gevent.spawn(call, *args, **kwargs)

    def settle(self, timeout: float | None = None) -> None:
        """Wait until the app has dealt with all that smtpd has said: reports have no answer.

        A message that is not at its end, and a request that is answered later by ``ctx.reply()``,
        are not waited for. Switches greenlets.

        Args:
            timeout: seconds; by default those that smtpd waits for each answer.

        Raises:
            RuntimeError: the filter is a command: :meth:`stop` waits for all of it.
            TimeoutError: a handler still runs.
        """
        if self._in_memory is None:
            raise RuntimeError("only an app in this process can be seen to have done its work")
        self._link.flush()
        seconds = self._link.timeout if timeout is None else timeout
        with gevent.Timeout(seconds, TimeoutError(f"a handler still runs after {seconds:g} s")):
            gevent.idle()
            while not self._in_memory.is_at_rest():
                gevent.sleep(_POLL_SECONDS)
                gevent.idle()
        self._link.check()

    def send_raw(self, data: bytes) -> None:
        """Write bytes to the filter that smtpd would never write. Switches greenlets."""
        self._link.send_raw(data)
        self._link.flush()

    def _command(self) -> Process:
        if self._process is None:
            raise RuntimeError("the filter is an app in this process, not a command")
        return self._process

    def _observe(self, direction: str, line: bytes) -> None:
        self.trace.append((direction, line))
