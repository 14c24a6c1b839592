"""Nobody is blamed for time in which the supervisor could not listen."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import gevent

from greenfilter._supervisor import listening
from greenfilter._supervisor.listening import ListeningTime
from tests.supervisor.conftest import until

if TYPE_CHECKING:
    from greenfilter.testing import Session
    from tests.supervisor.conftest import Supervised

REFUSES = """
app = Filter("refuses", deadline=1.0, on_error="proceed")
@app.filter.ehlo
def ehlo(ctx, identity):
    open(BEGUN, "a").write("x")
    time.sleep(0.5)
    open(DONE, "a").write("x")
    return reject(550, "no")
"""
HANGS = """
app = Filter("hangs", deadline=20.0)
@app.filter.mail_from
def mail_from(ctx, sender):
    if sender == "hang@example.net":
        signal.pause()  # in C: the worker does nothing else from now on
@app.filter.noop
def noop(ctx):
    return reject(550, str(os.getpid()))
@app.filter.data_line
def data_line(ctx, line): pass
"""


def requests(smtpd: Supervised, parameter: bytes) -> int:
    asked = (line for direction, line in smtpd.trace if direction == "<")
    return sum(line.startswith(b"filter|") and parameter in line for line in asked)


def test_answers_that_came_while_the_supervisor_was_stopped_count(run, write, tmp_path):
    begun, done = tmp_path / "begun", tmp_path / "done"
    names = f"BEGUN, DONE = {str(begun)!r}, {str(done)!r}\n"
    smtpd = run(write(names + REFUSES), options=("--hang-timeout", "2"))
    before = smtpd.workers()
    sessions = [smtpd.connect() for _ in range(100)]
    asked = [smtpd.start(session.ehlo, "client.example.net") for session in sessions]
    until(lambda: begun.exists() and len(begun.read_text()) == 100, "the handlers to begin")
    os.kill(smtpd.pid, signal.SIGSTOP)
    until(lambda: done.exists() and len(done.read_text()) == 100, "the handlers to be done")
    gevent.sleep(2.5)  # deadline, grace and hang timeout pass
    os.kill(smtpd.pid, signal.SIGCONT)
    gevent.joinall(asked, timeout=10)
    assert [each.value.code for each in asked] == [550] * 100
    assert smtpd.workers() == before


def test_a_hung_worker_does_not_stop_the_others_and_goes_when_much_waits_for_it(run, write):
    smtpd = run(write(HANGS), options=("--workers", "2", "--hang-timeout", "60"))
    homes: dict[str, list[Session]] = {}
    while len(homes) < 2 or any(len(each) < 2 for each in homes.values()):
        session = smtpd.client()
        homes.setdefault(session.noop().text, []).append(session)
    (hung, sending, *_), (other, *_) = homes.values()
    assert sending.mail_from("a@example.net").ok
    assert sending.rcpt_to("b@example.org").ok
    asked = smtpd.start(hung.mail_from, "hang@example.net")
    until(lambda: requests(smtpd, b"hang@") == 1, "the client")
    sent = smtpd.start(sending.data, (b"x" * 900 + b"\r\n") * 45_000)
    until(lambda: sum(b"|data-line|" in line for _, line in smtpd.trace) > 9_000, "the lines")
    assert other.noop().code == 550
    assert not asked.ready()
    assert asked.get(timeout=20).code == 451
    assert other.noop().code == 550
    assert sent.get(timeout=20).code in (451, 421)
    smtpd.wait_for_log("it hangs: no sign of life for [234]")


def test_the_time_that_counts_goes_by_for_a_part_of_a_long_turn_only(monkeypatch):
    real = [100.0]
    monkeypatch.setattr(listening.time, "monotonic", lambda: real[0])
    clock = ListeningTime()
    begun = clock()
    real[0] += 0.1
    clock.turn()
    assert round(clock() - begun, 6) == 0.1
    real[0] += 60  # stopped
    clock.turn()
    assert clock() - begun <= 0.1 + listening._LONGEST_TURN
    before = clock()
    clock.set_listening(False)
    for _ in range(100):
        real[0] += 0.1
        clock.turn()
    assert clock() == before
    clock.set_listening(True)
    real[0] += 0.1
    assert round(clock() - before, 6) == 0.1
