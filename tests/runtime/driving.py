"""smtpd's end of a runtime's socket, and what the tests of the runtime do again and again."""

from __future__ import annotations

import socket
import time

import gevent
import gevent.socket

from greenfilter._runtime import Runtime
from greenfilter.testing import FakeSmtpd
from greenfilter.testing._time import Clock

TEMPFAIL = "451 4.3.0 Temporary failure, please try again later"
MESSAGE = b"Subject: hello\r\n\r\none\r\ntwo\r\n"
TOKEN = "b" * 16


def until(condition, timeout=10.0):
    """Wait, letting all else run, until ``condition()`` is true."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout} s"
        gevent.sleep(0.001)


def greeted(smtpd: FakeSmtpd):
    session = smtpd.connect()
    assert session.ehlo("client.example.net").ok
    return session


def in_transaction(smtpd: FakeSmtpd):
    session = greeted(smtpd)
    assert session.mail_from("alice@example.net").ok
    assert session.rcpt_to("bob@example.org").ok
    return session


def in_data(smtpd: FakeSmtpd):
    session = in_transaction(smtpd)
    assert session.data_begin().code == 354
    return session


def runtime_of(smtpd: FakeSmtpd) -> Runtime:
    return smtpd._link.target._runtime


def sid(number: int) -> str:
    return f"{number:016x}"


class Output:
    """Takes what is written to smtpd.

    Args:
        written: where to put it.
    """

    def __init__(self, written):
        self.send = self.send_threadsafe = written.append

    def wait_room(self):
        """There is room."""

    def run_soon(self, fn, *args):
        """Call it now."""
        fn(*args)


class Pipe:
    """Writes to a runtime what a test wants, in the order and in the pieces that it wants.

    Attributes:
        runtime: the other end.
        lines: what the filter has written, without the registration.
        reading: whether smtpd reads.
        clock: the time that the runtime goes by.
    """

    def __init__(self, app, reading=True):
        self._sock, theirs = gevent.socket.socketpair()
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        self.clock = Clock()
        self.runtime = Runtime(app, socket.socket(fileno=theirs.detach()), clock=self.clock)
        self.clock.attach(self.runtime.tick)
        self.runtime.start()
        self.lines: list[str] = []
        self.reading = True
        self._rest = b""
        self._reader = gevent.spawn(self._read)
        self.send("config|ready")
        until(lambda: "register|ready" in self.lines)
        self.lines.clear()
        self.reading = reading

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send(self, *lines):
        """Write lines as one piece."""
        data = [line.encode() if isinstance(line, str) else line for line in lines]
        self.send_raw(b"".join(line + b"\n" for line in data))

    def send_raw(self, data):
        self._sock.sendall(data)

    def close(self):
        """End of file; wait for the runtime's end."""
        self.reading = True
        self._sock.shutdown(socket.SHUT_WR)
        try:
            assert self.runtime.join(5)
        finally:
            self.clock.detach()
        self._reader.join(5)
        self._sock.close()

    def results(self, number=1):
        """What the requests of a session were answered."""
        head = f"filter-result|{sid(number)}|{TOKEN}|"
        return [line.removeprefix(head) for line in self.lines if line.startswith(head)]

    def data(self, number=1):
        """The lines written for a session's message."""
        head = f"filter-dataline|{sid(number)}|{TOKEN}|"
        return [line.removeprefix(head) for line in self.lines if line.startswith(head)]

    def _read(self):
        while True:
            if not self.reading:
                gevent.sleep(0.005)
                continue
            data = self._sock.recv(1 << 16)
            if not data:
                return
            *lines, self._rest = (self._rest + data).split(b"\n")
            self.lines += [line.decode("latin-1") for line in lines]


def request(phase, number=1, parameter="", version="0.7"):
    return f"filter|{version}|1.000000|smtp-in|{phase}|{sid(number)}|{TOKEN}|{parameter}"


def report(event, number=1, *fields, subsystem="smtp-in"):
    return "|".join(["report", "0.7", "1.000000", subsystem, event, sid(number), *fields])


def link_connect(number=1):
    return report(
        "link-connect", number, "client.example.net", "pass", "192.0.2.10:4711", "192.0.2.25:25"
    )


def begin(number=1, message_id="0000abcd"):
    """The reports of a transaction with one recipient."""
    return [
        report("tx-begin", number, message_id),
        report("tx-mail", number, message_id, "ok", "alice@example.net"),
        report("tx-rcpt", number, message_id, "ok", "bob@example.org"),
    ]
