"""What ends a worker alone, in quarantine, is not tried again; what only was near is."""

import pytest

from greenfilter._supervisor.poison import ALONE, FREE, IN_COMPANY, REFUSED, Poison
from tests.supervisor.conftest import until

POISON = b"Subject: poison\nMessage-ID: <1@example.net>\n\ndoom: segv\n"
HARMLESS = b"Subject: harmless\nMessage-ID: <2@example.net>\n\nhello\n"
SKIPPED = "has ended workers before"


def deaths(smtpd):
    return sum("ended (SIG" in line for line in smtpd.log)


def wait_for_death(smtpd, number):
    """Wait for the ``number``-th death, and the worker that comes after it."""
    until(lambda: deaths(smtpd) == number and bool(smtpd.workers()), f"death {number}")


def test_a_message_that_ends_workers_is_tried_twice_and_others_of_its_sender_always(run):
    smtpd = run("doom.py", "20")
    for number in (1, 2):
        assert smtpd.message(smtpd.client(), POISON).code == 451
        wait_for_death(smtpd, number)
        assert smtpd.message(smtpd.client(), HARMLESS).ok
    # The third time comes with another trace header.
    assert smtpd.message(smtpd.client(), b"Received: again\n" + POISON).code == 451
    smtpd.wait_for_log(SKIPPED)
    assert smtpd.message(smtpd.client(), HARMLESS).ok
    assert deaths(smtpd) == 2
    assert len(smtpd.messages) == 3


def test_a_command_that_ends_workers_is_tried_twice(run):
    smtpd = run("doom.py", "20")
    session = smtpd.client()
    for number in (1, 2, 2):
        assert session.mail_from("segv@example.net").code == 451
        wait_for_death(smtpd, number)
    smtpd.wait_for_log(f"mail-from {SKIPPED}")
    assert session.mail_from("fine@example.net").ok


def test_requests_that_only_were_in_hand_are_answered_once_and_then_left_in_peace(run):
    smtpd = run("doom.py", "20")
    bystander, killer = smtpd.client(), smtpd.client()
    waiting = smtpd.start(bystander.mail_from, "slow@example.net")
    assert killer.mail_from("kill@example.net").code == 451
    assert waiting.get(timeout=5).code == 451
    wait_for_death(smtpd, 1)
    waiting = smtpd.start(bystander.mail_from, "slow@example.net")
    assert killer.mail_from("kill@example.net").code == 451
    smtpd.wait_for_log("in quarantine, ended")
    assert killer.mail_from("kill@example.net").code == 451
    assert sum(SKIPPED in line for line in smtpd.log) == 1
    assert not waiting.ready()  # its worker has it still
    waiting.kill()


def test_what_was_in_hand_when_workers_were_killed_is_free_again_once_it_was_dealt_with(run):
    smtpd = run("doom.py", "20")
    for _ in range(4):
        session, old = smtpd.client(), smtpd.workers()
        session.mail_from("fine@example.net")
        session.rcpt_to("bob@example.org")
        session.data_begin()
        session.data_lines(HARMLESS.split(b"\n")[:3])
        smtpd.signal_workers()
        until(lambda old=old: bool(smtpd.workers() - old), "the next worker")
        assert session.data_end().code == 451
        assert smtpd.message(session, HARMLESS).ok
    assert not any(SKIPPED in line for line in smtpd.log)


def test_a_message_that_ends_workers_at_commit_is_tried_twice(run, write):
    smtpd = run(
        write("""
app = Filter("commits")
@app.tap
def tap(ctx, lines):
    ctx.session.local = b"".join(lines)
@app.filter.commit
def commit(ctx):
    if b"poison" in ctx.session.local: os.abort()
""")
    )
    for number in (1, 2, 2):
        assert smtpd.message(smtpd.client(), POISON).code == 451
        wait_for_death(smtpd, number)
    assert smtpd.message(smtpd.client(), HARMLESS).ok
    smtpd.wait_for_log(SKIPPED)


# Who is blamed

BLOCKS = """
import ctypes, threading, gevent
from gevent.monkey import get_original
app = Filter("blocks", deadline=20.0)
sleep = get_original("time", "sleep")
def die(): os.kill(os.getpid(), signal.SIGSEGV)
@app.filter.{phase}{options}
def handler(ctx{arguments}):
    if "killer" in (ctx.session.identity or ""):
        {death}
@app.filter.noop
def noop(ctx):
    time.sleep(0.4)
"""
DEATHS = {
    "after it has waited": ("", "time.sleep(0.2); die()"),
    "in a thread": ("(thread=True)", "sleep(0.2); die()"),
    "in a greenlet of its own": ("", "gevent.spawn_later(0.2, die); return ctx.defer()"),
}


@pytest.mark.parametrize("phase", ["mail_from", "rset", "connect"])
@pytest.mark.parametrize("death", DEATHS)
def test_the_client_whose_code_kills_is_refused_and_those_beside_it_are_not(
    run, write, phase, death
):
    options, code = DEATHS[death]
    arguments = {"mail_from": ", sender", "connect": ", rdns, address"}.get(phase, "")
    code = BLOCKS.format(phase=phase, options=options, arguments=arguments, death=code)
    if phase == "connect":
        code = code.replace("ctx.session.identity or", "rdns or")
    smtpd = run(write(code))

    def attack():
        killer = smtpd.connect(rdns="killer.example.net")
        if phase != "connect":
            killer.ehlo("killer.example.net")
        if phase == "mail_from":
            killer.mail_from("fine@example.net")
        elif phase == "rset":
            killer.rset()

    for number in (1, 2, 2, 2):
        # From the same address, and in the worker's hands while the other's handler is blocked.
        bystander = smtpd.client("bystander.example.net")
        attacking = smtpd.start(attack)
        waiting = smtpd.start(bystander.noop)
        waiting.get(timeout=25)
        attacking.get(timeout=25)
        wait_for_death(smtpd, number)
        assert smtpd.client("bystander.example.net").rset().ok
        assert smtpd.client("bystander.example.net").noop().ok
    assert smtpd.client("bystander.example.net").mail_from("fine@example.net").ok
    smtpd.wait_for_log(SKIPPED)


def test_kills_from_outside_put_nobody_on_a_list(run, write):
    smtpd = run(
        write("""
app = Filter("slow", deadline=20.0)
@app.filter.mail_from
def mail_from(ctx, sender): time.sleep(1.0)
@app.filter.noop
def noop(ctx): pass
""")
    )

    def ask():
        sessions = [smtpd.client() for _ in range(20)]
        pending = [
            smtpd.start(session.mail_from, f"a{number}@example.net")
            for number, session in enumerate(sessions)
        ]
        assert smtpd.client().noop().ok  # behind them
        return pending

    def kill():
        old = smtpd.signal_workers()
        until(lambda: bool(smtpd.workers() - old), "the next worker")

    pending = ask()
    kill()
    assert {each.get(timeout=5).code for each in pending} == {451}
    pending = ask()  # all together in quarantine, as soon as its worker is there
    until(lambda: len(smtpd.workers()) == 2, "the worker in quarantine")
    kill()
    assert {each.get(timeout=25).code for each in pending} <= {250, 451}
    assert {each.get(timeout=25).code for each in ask()} == {250}
    assert not any(SKIPPED in line for line in smtpd.log)


def test_a_report_whose_handler_kills_is_not_given_to_it_again(run, write):
    smtpd = run(
        write("""
app = Filter("reports")
@app.report.link_identify
def identify(ctx, method, identity):
    time.sleep(0.05)
    if identity.startswith("killer"): os.abort()
@app.filter.noop
def noop(ctx): return reject(550, ctx.session.identity)
""")
    )
    smtpd.connect().ehlo("killer.example.net")
    wait_for_death(smtpd, 1)
    smtpd.wait_for_log("a handler of report link-identify running")
    until(lambda: smtpd.client("killer.example.net").noop().code == 550, "the handler to be left")
    assert smtpd.client("killer.example.net").noop().text == "killer.example.net"
    assert smtpd.client("fine.example.net").noop().text == "fine.example.net"
    assert deaths(smtpd) <= 2


def test_a_report_of_a_session_that_has_ended_is_blamed_too(run, write):
    smtpd = run(
        write("""
app = Filter("leaves")
@app.report.link_disconnect
def disconnect(ctx):
    time.sleep(0.05)
    if ctx.session.identity.startswith("killer"): os.abort()
@app.filter.noop
def noop(ctx): time.sleep(0.3)
""")
    )
    for _ in range(2):
        bystander = smtpd.start(smtpd.client("fine.example.net").noop)
        smtpd.client("killer.example.net").disconnect()
        bystander.get(timeout=5)
        smtpd.wait_for_log("a handler of report link-disconnect running")
        until(lambda: bool(smtpd.workers()), "the next worker")
    smtpd.wait_for_log("handler of report link-disconnect has ended workers before: not called")
    assert smtpd.client("fine.example.net").noop().ok
    assert deaths(smtpd) == 1
    assert not any("in its hands" in line for line in smtpd.log)


def test_a_message_that_kills_before_its_header_is_known_is_known_again(run, write):
    smtpd = run(
        write("""
app = Filter("early")
@app.lines
def lines(ctx, lines):
    for line in lines:
        if line == b"X-Kill: yes": os.abort()
        yield line
""")
    )
    for number in (1, 2, 2):
        session = smtpd.client()
        session.mail_from("fine@example.net")
        session.rcpt_to("bob@example.org")
        session.data_begin()
        session.data_lines([b"Subject: early", b"X-Kill: yes"])
        if number == 1:
            wait_for_death(smtpd, 1)
        session.data_lines([b"X-More: later", b"", b"body"])
        assert session.data_end().code == 451
        wait_for_death(smtpd, number)
    smtpd.wait_for_log(SKIPPED)
    assert smtpd.message(smtpd.client(), HARMLESS).ok


def test_who_would_wait_for_quarantine_past_its_deadline_is_answered_by_policy(run, write):
    smtpd = run(
        write("""
app = Filter("waits", deadline=6.0)
@app.filter.mail_from
def mail_from(ctx, sender): time.sleep(2.5)
@app.filter.noop
def noop(ctx): pass
""")
    )
    old, sessions = smtpd.workers(), [smtpd.client() for _ in range(4)]
    # The only one in hand, so it will be tried alone.
    pending = smtpd.start(sessions[0].mail_from, "a@example.net")
    assert smtpd.client().noop().ok
    smtpd.signal_workers()
    assert pending.get(timeout=5).code == 451
    until(lambda: bool(smtpd.workers() - old), "the next worker")
    pending = [smtpd.start(each.mail_from, "a@example.net") for each in sessions]
    codes = sorted(each.get(timeout=15).code for each in pending)
    assert set(codes) <= {250, 451}
    assert codes[-1] == 451 or codes.count(250) == 4  # innocent: then it waits no more
    assert smtpd.client().mail_from("a@example.net").ok


def test_a_reload_forgets_what_has_ended_workers(run):
    smtpd = run("doom.py", "20")
    session = smtpd.client()
    for number in (1, 2):
        assert session.mail_from("segv@example.net").code == 451
        wait_for_death(smtpd, number)
    assert session.mail_from("segv@example.net").code == 451
    smtpd.wait_for_log(SKIPPED)
    smtpd.reload()
    smtpd.wait_for_log("new sessions go to the new code")
    assert smtpd.client().mail_from("segv@example.net").code == 451
    wait_for_death(smtpd, 3)


def test_what_has_killed_alone_is_refused_for_minutes_that_grow():
    now = [0.0]
    poison, key = Poison(lambda: now[0]), ("mail-from", b"x", "192.0.2.1", None)
    minutes = []
    for _ in range(6):
        minutes.append(poison.condemn(key) / 60)
        assert poison.verdict(key) == REFUSED
        now[0] += minutes[-1] * 60
        assert poison.verdict(key) == ALONE
    assert minutes == [5, 10, 20, 40, 40, 40]
    poison.absolve(key)
    assert poison.verdict(key) == FREE
    assert not poison.kinds


def test_what_nobody_asks_for_again_is_forgotten_within_the_hour():
    now = [0.0]
    poison = Poison(lambda: now[0])
    poison.suspect([("mail-from", b"x", "192.0.2.1", None), ("message", b"y", None)], alone=False)
    assert poison.verdict(("message", b"y", None)) == IN_COMPANY
    now[0] = 3000.0
    poison.expire()
    assert poison.kinds == {"mail-from", "message"}
    now[0] = 3700.0
    poison.expire()
    assert not poison.kinds
