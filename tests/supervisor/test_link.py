"""A socket with a buffer on its way out."""

import os
import selectors
import socket

from greenfilter._supervisor.link import Link


def test_what_the_other_end_takes_in_small_pieces_arrives_whole_and_is_not_copied_each_time():
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    theirs.setblocking(False)
    fd = ours.detach()
    with selectors.DefaultSelector() as selector:
        link = Link(selector, (fd, fd), lambda data: None, lambda: None)
        sent = os.urandom(1 << 20)
        link.send(sent)
        link.flush()
        assert link.stuck
        whole = link._stuck.obj
        link.send(b"behind")
        got = b""
        while link.pending:
            got += theirs.recv(4096)
            link.on_event(selectors.EVENT_WRITE)
            assert not link.stuck or link._stuck.obj in (whole, b"behind")
        theirs.setblocking(True)
        while len(got) < len(sent) + len(b"behind"):
            got += theirs.recv(65536)
        link.close()
    theirs.close()
    assert got == sent + b"behind"
