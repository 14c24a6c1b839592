"""A filter that blocks in C, longer in all than a worker may be silent, is not taken to hang."""

from __future__ import annotations

import time

import gevent
import pytest

BLOCKING = """
import ctypes
C = ctypes.CDLL(None)
app = Filter("blocks", deadline=60{option})
@app.filter.mail_from
def look_up(ctx, sender):
    C.usleep(300000)
    return reject(550, "done")
@app.filter.noop
def noop(ctx):
    return None
"""


@pytest.mark.parametrize("option", ["", ", auto_thread=False"], ids=["moved", "in the loop"])
def test_many_sessions_are_answered_each_when_it_is_done(run, write, option):
    smtpd = run(write(BLOCKING.format(option=option)), options=("--hang-timeout", "2"))
    workers = smtpd.workers()
    sessions = [smtpd.client() for _ in range(16)]
    started, times = time.monotonic(), []

    def ask(session):
        reply = session.mail_from("alice@example.net")
        times.append(time.monotonic() - started)
        return str(reply.lines[-1])

    asked = [smtpd.start(ask, session) for session in sessions]
    gevent.joinall(asked, timeout=50)
    assert [each.value for each in asked] == ["550 done"] * 16
    assert times[0] < times[-1] / 4  # not all at the end
    assert smtpd.workers() == workers
    told = [line for line in smtpd.log if "runs in a thread" in line]
    assert len(told) == (0 if option else 1)
    if not option:
        started = time.monotonic()
        (waits,) = [smtpd.start(each.mail_from, "alice@example.net") for each in sessions[:1]]
        assert sessions[1].noop().ok  # the loop is free
        assert not waits.ready()
        assert waits.get(timeout=10).code == 550


DATA = {
    "data_line": "@app.filter.data_line\ndef edit(ctx, line):\n    C.usleep(200000)\n",
    "lines": "@app.lines\ndef edit(ctx, lines):\n    for line in lines:\n"
    "        C.usleep(200000)\n        yield line\n",
    "tap": "@app.tap\ndef edit(ctx, lines):\n    for line in lines:\n        C.usleep(200000)\n",
}


@pytest.mark.parametrize("kind", DATA)
def test_a_message_whose_lines_block_one_by_one_passes(run, write, kind):
    code = (
        "import ctypes\nC = ctypes.CDLL(None)\napp = Filter('blocks', deadline=60)\n" + DATA[kind]
    )
    smtpd = run(write(code), options=("--hang-timeout", "2"))
    workers = smtpd.workers()
    lines = b"".join(b"line %d\r\n" % number for number in range(20))
    session = smtpd.client()
    assert smtpd.message(session, b"Subject: x\r\n\r\n" + lines).ok
    assert session.delivered[0].data.endswith(b"Subject: x\r\n\r\n" + lines)
    assert smtpd.workers() == workers
    smtpd.wait_for_log(r"edit \(.*C.usleep\(200000\)")
