"""The socket to smtpd: whole lines out, pieces in, and what a slow or gone smtpd does."""

from __future__ import annotations

import os
import socket
import threading

import gevent
import gevent.event
import pytest

from greenfilter import Filter
from greenfilter._runtime import channel
from greenfilter._runtime.channel import Channel
from greenfilter._runtime.vital import Vital

from .driving import Pipe, request, until


class End:
    """smtpd's end of a wire."""

    def __init__(self):
        self.sock, theirs = socket.socketpair()
        self.sock.setblocking(False)
        self.received, self.ended = [], []
        fd = theirs.detach()
        self.wire = Channel((fd, fd), self.received.append, lambda: self.ended.append(True))
        self.wire.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.wire.close()
        self.sock.close()

    def read(self):
        data = b""
        while True:
            try:
                data += self.sock.recv(1 << 20)
            except BlockingIOError:
                return data


def test_input_is_given_on_in_pieces():
    with End() as end:
        end.sock.send(b"one\ntw")
        until(lambda: end.received == [b"one\ntw"])
        end.sock.send(b"o\n")
        until(lambda: end.received == [b"one\ntw", b"o\n"])


def test_everything_of_a_turn_leaves_in_order_in_one_write(monkeypatch):
    writes = []
    write = os.write
    with End() as end:
        monkeypatch.setattr(
            channel, "_write", lambda fd, data: writes.append(data) or write(fd, data)
        )
        for number in range(100):
            end.wire.send(b"%d\n" % number)
        until(lambda: writes)
        monkeypatch.undo()
        assert end.read() == b"".join(b"%d\n" % number for number in range(100))
    assert len(writes) == 1


def test_threads_may_send():
    with End() as end:
        threads = [
            threading.Thread(target=end.wire.send_threadsafe, args=(b"%d" % number * 1000 + b"\n",))
            for number in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        got = []
        until(lambda: got.append(end.read()) or len(b"".join(got)) == 8008)
    assert sorted(b"".join(got).split()) == [b"%d" % number * 1000 for number in range(8)]


def test_while_smtpd_does_not_read_nothing_is_read_and_writers_wait():
    with End() as end:
        written = []

        def produce():
            for number in range(200):
                end.wire.send(b"x" * 99_999 + b"\n")
                end.wire.wait_room()
                written.append(number)

        producer = gevent.spawn(produce)
        until(lambda: not end.wire._drained.is_set())
        end.sock.send(b"more\n")
        gevent.idle()
        assert end.received == []
        assert len(written) < 20
        got = []
        until(lambda: got.append(end.read()) or sum(map(len, got)) == 200 * 100_000)
        until(lambda: end.received == [b"more\n"])
        producer.join(5)
        assert len(written) == 200


@pytest.mark.parametrize("how", [socket.SHUT_WR, socket.SHUT_RDWR])
def test_the_end_of_smtpd_is_told_once(how):
    with End() as end:
        end.sock.shutdown(how)
        until(lambda: end.ended)
        end.wire.send(b"late\n")
        end.wire.send_threadsafe(b"late\n")
        end.wire.flush()
        gevent.idle()
        assert end.ended == [True]
        assert end.wire.closed


def test_a_writer_does_not_wait_for_an_smtpd_that_has_gone():
    with End() as end:
        end.wire.send(b"x" * (8 << 20) + b"\n")
        waiting = gevent.spawn(end.wire.wait_room)
        until(lambda: not end.wire._drained.is_set())
        end.sock.close()
        waiting.get(timeout=5)
        assert end.ended == [True]


def test_paused_reading_goes_on_after_resume():
    with End() as end:
        end.wire.pause()
        end.sock.send(b"one\n")
        gevent.idle()
        assert end.received == []
        end.wire.resume()
        until(lambda: end.received == [b"one\n"])


def test_two_descriptors_are_both_closed():
    (ours_in, theirs_in), (theirs_out, ours_out) = os.pipe()[::-1], os.pipe()
    ended = []
    wire = Channel(
        (theirs_in, ours_out), lambda data: wire.send(data.upper()), lambda: ended.append(1)
    )
    wire.start()
    os.write(ours_in, b"echo\n")
    until(lambda: not wire._out)
    assert gevent.get_hub().threadpool.apply(os.read, (theirs_out, 100)) == b"ECHO\n"
    os.close(ours_in)
    until(lambda: ended)
    assert os.read(theirs_out, 1) == b""
    os.close(theirs_out)


def test_a_socket_that_is_always_ready_starves_nobody():
    app, ticks = Filter("busy"), []
    app.filter.noop(lambda ctx: None)

    def tick():
        while True:
            ticks.append(1)
            gevent.sleep(0)

    with Pipe(app) as pipe:
        other = gevent.spawn(tick)
        pipe.send(*(request("noop", number % 50) for number in range(20_000)))
        until(lambda: len(pipe.lines) == 20_000)
        other.kill()
    assert len(ticks) > 5


def test_without_a_supervisor_reading_goes_on_after_an_error_in_the_loop(caplog):
    ours, theirs = socket.socketpair()
    received = []

    def receive(data):
        received.append(data)
        if len(received) == 1:
            raise MemoryError

    fd = theirs.detach()
    wire = Channel((fd, fd), receive, lambda: None, Vital(supervised=False))
    wire.start()
    ours.send(b"one\n")
    until(lambda: received)
    ours.send(b"two\n")
    until(lambda: received == [b"one\n", b"two\n"])
    assert "MemoryError in the loop" in caplog.text
    wire.close()
    ours.close()


def test_a_wire_knows_whether_it_listens():
    with End() as end:
        assert end.wire.listens()
        end.wire.pause()
        assert end.wire.listens()
        end.wire.resume()
        end.wire._read.stop()
        assert not end.wire.listens()
        end.wire.listen()
        assert end.wire.listens()
