"""What is left in the page: whose code runs, at every moment."""

import os
import socket
import threading

import gevent
import pytest
from greenlet import gettrace

from greenfilter import Filter
from greenfilter._process import mark
from greenfilter._runtime import Runtime

from .driving import until

SIDS = [b"%016x" % number for number in range(1, 9)]


@pytest.fixture
def page():
    fd = mark.make()
    page = mark.take(fd)
    os.close(fd)
    return page


@pytest.fixture
def start(page):
    running = []

    def start(app):
        ours, theirs = socket.socketpair()
        runtime = Runtime(app, theirs, page)
        runtime.start()
        ours.setblocking(True)
        ours.sendall(b"config|smtpd-version|7.8.0\nconfig|protocol|0.7\nconfig|ready\n")
        running.append((runtime, ours))
        return ours

    yield start
    for runtime, ours in running:
        ours.close()
        assert runtime.join(5)


def request(sid, phase="noop"):
    return b"filter|0.7|1.0|smtp-in|%b|%b|0123456789abcdef|\n" % (phase.encode(), sid)


def test_the_page_names_who_runs_and_follows_each_switch(start, page):
    app, seen = Filter("mark"), []

    def look(ctx, when):
        seen.append((ctx.session.id.encode(), when, list(mark.marked(page))))

    @app.filter.noop
    def noop(ctx):
        for when in ("called", "resumed", "again"):
            look(ctx, when)
            gevent.sleep(0.01)

    @app.filter.quit
    def quit(ctx):
        look(ctx, "short")

    sock = start(app)
    sock.sendall(b"".join(request(sid) for sid in SIDS))
    gevent.sleep(0.005)
    sock.sendall(request(b"f" * 16, "quit"))
    until(lambda: len(seen) == 3 * len(SIDS) + 1)
    for sid, when, marked in seen:
        assert marked == [(sid, None)], when
    until(lambda: gettrace() is None)  # nobody is blocked any more
    assert list(mark.marked(page)) == []


def test_handlers_that_never_block_are_not_traced(start, page):
    app, traced = Filter("mark"), []

    @app.filter.noop
    def noop(ctx):
        traced.append((gettrace(), list(mark.marked(page))))

    start(app).sendall(request(SIDS[0]) + request(SIDS[1]))
    until(lambda: len(traced) == 2)
    assert traced == [(None, [(SIDS[0], None)]), (None, [(SIDS[1], None)])]
    assert list(mark.marked(page)) == []


def test_each_thread_has_a_slot_of_its_own(start, page):
    app, go = Filter("mark", threads=4), threading.Event()

    @app.filter.noop(thread=True)
    def noop(ctx):
        go.wait(5)

    start(app).sendall(b"".join(request(sid) for sid in SIDS[:3]))
    until(lambda: sorted(mark.marked(page)) == [(sid, None) for sid in SIDS[:3]])
    go.set()
    until(lambda: list(mark.marked(page)) == [])


def test_a_report_is_named(start, page):
    app, seen = Filter("mark"), []

    @app.report.link_identify
    def identify(ctx, method, identity):
        seen.append(list(mark.marked(page)))
        gevent.sleep(0.01)
        seen.append(list(mark.marked(page)))

    line = b"report|0.7|1.0|smtp-in|link-identify|%b|EHLO|x\n" % SIDS[0]
    start(app).sendall(line)
    until(lambda: len(seen) == 2)
    assert seen == [[(SIDS[0], "link-identify")]] * 2


def test_a_greenlet_that_the_author_has_started_is_nobodys(start, page):
    app, seen = Filter("mark"), []

    @app.filter.noop
    def noop(ctx):
        gevent.spawn(lambda: seen.append(list(mark.marked(page)))).join()
        seen.append(list(mark.marked(page)))

    start(app).sendall(request(SIDS[0]))
    until(lambda: len(seen) == 2)
    assert seen == [[], [(SIDS[0], None)]]
