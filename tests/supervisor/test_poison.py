"""What ends a worker twice is not tried a third time; what only was near is."""

from greenfilter._supervisor._poison import Poison
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


def test_after_hours_nothing_is_compared_with_what_once_ended_a_worker():
    now = [0.0]
    poison = Poison(lambda: now[0])
    poison.blame([("mail-from", b"x", "192.0.2.1", None), ("message", b"y", (), "z", None)])
    now[0] = 5 * 3600.0
    poison.expire()
    assert poison.kinds == {"mail-from", "message"}
    now[0] = 7 * 3600.0
    poison.expire()
    assert not poison.kinds
    assert not poison.suspects(((), "z", None))
