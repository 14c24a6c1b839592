"""What ends a worker alone, in quarantine, is not tried again; what only was near is."""

import pytest

from greenfilter._supervisor._poison import ALONE, FREE, IN_COMPANY, REFUSED, Poison
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
    smtpd = run("doom.py")
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
    smtpd = run("doom.py")
    session = smtpd.client()
    for number in (1, 2, 2):
        assert session.mail_from("segv@example.net").code == 451
        wait_for_death(smtpd, number)
    smtpd.wait_for_log(f"mail-from {SKIPPED}")
    assert session.mail_from("fine@example.net").ok


def test_requests_that_only_were_in_hand_are_tried_again_and_again(run):
    smtpd = run("doom.py")
    for number in (1, 2, 3):
        bystander = smtpd.client()
        waiting = smtpd.start(bystander.mail_from, "slow@example.net")
        smtpd.client().mail_from("fine@example.net" if number == 3 else "kill@example.net")
        if number < 3:
            assert waiting.get(timeout=5).code == 451
            wait_for_death(smtpd, number)
    assert not waiting.ready()  # the worker has it, and not the policy
    waiting.kill()
    assert not any(f"mail-from {SKIPPED}" in line for line in smtpd.log)


def test_what_was_in_hand_when_workers_were_killed_is_free_again_once_it_was_dealt_with(run):
    smtpd = run("doom.py")
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
app = Filter("blocks", deadline=10.0)
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
        waiting.get(timeout=15)
        attacking.get(timeout=15)
        wait_for_death(smtpd, number)
        assert smtpd.client("bystander.example.net").rset().ok
        assert smtpd.client("bystander.example.net").noop().ok
    assert smtpd.client("bystander.example.net").mail_from("fine@example.net").ok
    smtpd.wait_for_log(SKIPPED)


def test_kills_from_outside_put_nobody_on_a_list(run, write):
    smtpd = run(
        write("""
app = Filter("slow", deadline=5.0)
@app.filter.mail_from
def mail_from(ctx, sender): time.sleep(1.0)
""")
    )
    sessions = [smtpd.client() for _ in range(20)]
    for _ in range(3):
        pending = [
            smtpd.start(session.mail_from, f"a{number}@example.net")
            for number, session in enumerate(sessions)
        ]
        assert smtpd.client().noop().ok  # behind them
        old = smtpd.signal_workers()
        assert {each.get(timeout=5).code for each in pending} == {451}
        until(lambda old=old: bool(smtpd.workers() - old), "the next worker")
    pending = [
        smtpd.start(session.mail_from, f"a{number}@example.net")
        for number, session in enumerate(sessions)
    ]
    assert {each.get(timeout=10).code for each in pending} == {250}
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


def test_a_client_that_leaves_before_its_request_kills_is_blamed_all_the_same(run, write):
    smtpd = run(
        write("""
app = Filter("leaves")
@app.filter.mail_from
def mail_from(ctx, sender):
    if sender.startswith("killer"):
        while not ctx.session.closed: time.sleep(0.01)
        os.abort()
""")
    )
    for number in (1, 2, 2):
        killer = smtpd.client()
        asking = smtpd.start(killer.mail_from, "killer@example.net")
        if number == 2 and deaths(smtpd) == 2:
            assert asking.get(timeout=5).code == 451
            break
        assert smtpd.client().noop().ok
        killer.disconnect()
        asking.kill()
        wait_for_death(smtpd, number)
    smtpd.wait_for_log(SKIPPED)


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
app = Filter("waits", deadline=1.5)
@app.filter.mail_from
def mail_from(ctx, sender): time.sleep(1.0)
""")
    )
    old = smtpd.workers()
    sessions = [smtpd.client() for _ in range(3)]
    pending = [smtpd.start(each.mail_from, "a@example.net") for each in sessions]
    assert smtpd.client().noop().ok
    smtpd.signal_workers()
    assert {each.get(timeout=5).code for each in pending} == {451}
    until(lambda: bool(smtpd.workers() - old), "the next worker")
    # All three are the same request, which was one in hand: each is tried alone.
    begun = [smtpd.start(each.mail_from, "a@example.net") for each in sessions]
    codes = sorted(each.get(timeout=5).code for each in begun)
    assert codes[0] == 250
    assert set(codes) <= {250, 451}


def test_a_reload_forgets_what_has_ended_workers(run):
    smtpd = run("doom.py")
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
