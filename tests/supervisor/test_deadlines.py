"""Each on_error policy in each phase, whoever keeps the deadline, and answers that come late."""

import pytest

from greenfilter import Filter, disconnect
from greenfilter._control import format_hello, parse_hello
from tests.supervisor.conftest import until

PHASES = ["connect", "helo", "ehlo", "starttls", "auth", "mail_from", "rcpt_to", "data", "rset"]
PHASES += ["noop", "quit", "commit"]
POLICIES = {
    '"tempfail"': ("reject|451 4.3.0", "disconnect|451 4.3.0"),
    '"proceed"': ("proceed",),
    '"junk"': ("junk",),
    'reject(550, "policy")': ("reject|550 policy", "disconnect|550 policy"),
    'disconnect(421, "policy")': ("disconnect|421 policy",),
}
FAULTS = {
    "raises": "raise RuntimeError(ctx.phase)",
    "waits": "time.sleep(600)",
    "computes": "while True: pass",
    "sits in a thread": "import gevent.monkey; gevent.monkey.get_original('time', 'sleep')(1.0)",
    "ends": "os._exit(1)",
}


ARGUMENTS = dict.fromkeys(("helo", "ehlo", "auth", "mail_from", "rcpt_to"), ", x")
ARGUMENTS["connect"] = ", rdns, address"


def walk(smtpd, rdns="client.example.net"):
    """Go through all phases once, and give the answers of the filter."""
    session = smtpd.connect(rdns=rdns)
    steps = [
        lambda: session.helo("client.example.net"),
        lambda: session.ehlo("client.example.net"),
        session.starttls,
        lambda: session.ehlo("client.example.net"),
        lambda: session.auth("alice", "secret"),
        session.noop,
        session.rset,
        lambda: session.mail_from("a@example.net"),
        lambda: session.rcpt_to("b@example.org"),
        lambda: session.data(b"Subject: policy\n\nbody\n"),
        session.quit,
    ]
    for step in steps:
        if not session.closed:
            step()
    return dict(session.decisions)


def failing_at(phases, fault, policy):
    """A filter that fails at the phase that the client's name says, and only there."""
    thread = ", thread=True" if fault == "sits in a thread" else ""
    code = "app = Filter('fails')\n"
    for phase in phases:
        code += (
            f"@app.filter.{phase}(deadline=0.3, on_error={policy}{thread})\n"
            f"def {phase}(ctx{ARGUMENTS.get(phase, '')}):\n"
            f"    if ctx.session.rdns == '{phase}.example.net':\n"
            f"        {FAULTS[fault]}\n"
        )
    return code


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("fault", FAULTS)
def test_the_policy_of_each_phase_answers_a_handler_that(run, write, fault, policy):
    phases = {"raises": PHASES, "waits": ("connect", "mail_from", "commit")}
    phases["ends"] = ("connect", "starttls", "auth", "mail_from", "data", "commit")
    tried = [
        phase
        for phase in phases.get(fault, ("mail_from",))
        if not (phase == "commit" and policy == '"junk"')
    ]
    # A filter that ends is blamed for the next client too: so there is a new one for each phase.
    filters = [[phase] for phase in tried] if fault == "ends" else [tried]
    for phases_of_one in filters:
        smtpd = run(write(failing_at(phases_of_one, fault, policy)))
        for phase in phases_of_one:
            answer = walk(smtpd, f"{phase}.example.net")[phase.replace("_", "-")]
            expected = POLICIES[policy]
            if phase == "auth" and policy not in ('"junk"', '"proceed"'):
                expected = ("rewrite|PLAIN =",)  # which leaves no password in smtpd's log
            assert answer.startswith(expected), (phase, answer)


@pytest.mark.parametrize("policy", ['"tempfail"', '"proceed"', 'reject(554, "policy")'])
@pytest.mark.parametrize("fault", ["raises", "waits", "ends"])
def test_the_policy_of_a_data_handler_answers_at_commit(run, write, fault, policy):
    smtpd = run(
        write(f"""
app = Filter("fails")
@app.message(deadline=0.3, on_error={policy})
def message(ctx, message):
    {FAULTS[fault]}
""")
    )
    reply = smtpd.message(smtpd.client(), b"Subject: policy\n\n.body\n")
    if fault == "ends":  # what the worker had done to it, nobody knows
        assert reply.code == 451
    elif policy == '"proceed"':
        assert reply.ok
        assert reply.message.endswith(b"Subject: policy\r\n\r\n.body\r\n")
    else:
        assert reply.text.startswith("4.3.0" if "tempfail" in policy else "policy")
        assert smtpd.messages == []


def test_the_apps_own_policy_and_deadline_hold_for_handlers_without_one(run, write):
    smtpd = run(
        write("""
app = Filter("app", deadline=0.3, on_error="proceed")
@app.filter.mail_from
def mail_from(ctx, sender): time.sleep(600)
""")
    )
    assert smtpd.client().mail_from("a@example.net").ok


def test_an_answer_that_the_deadline_has_overtaken_is_dropped_and_told_once(run, write):
    smtpd = run(
        write("""
app = Filter("late")
kept = []
@app.filter.mail_from(deadline=0.2)
def mail_from(ctx, sender):
    kept.append(ctx)
    return ctx.defer()
@app.filter.noop
def noop(ctx):
    return reject(550, str([each.reply(reject(550, "late")) for each in kept]))
""")
    )
    session = smtpd.client()
    for _ in range(3):
        assert session.mail_from("a@example.net").code == 451
    assert session.noop().text == "[False, False, False]"
    smtpd.wait_for_log("answered a request that had been answered")
    smtpd.stop()
    late = [line for line in smtpd.log if "answered a request that had been answered" in line]
    assert len(late) == 1


def test_the_answer_of_a_busy_loop_that_ends_late_is_dropped_and_its_session_goes_on(run, write):
    smtpd = run(
        write("""
app = Filter("late")
@app.filter.mail_from(deadline=0.2)
def mail_from(ctx, sender):
    end = time.monotonic() + 1.5
    while sender[0] == "b" and time.monotonic() < end: pass
    return reject(550, "late " + sender[0])
""")
    )
    session = smtpd.client()
    for _ in range(2):
        assert session.mail_from("busy@example.net").code == 451
        # While the worker still is at the first request, the second is not given to it.
        assert session.mail_from("next@example.net").code == 451
        until(lambda: session.mail_from("free@example.net").text == "late f", "the worker")
    late = [line for line in smtpd.log if "late and was dropped" in line]
    assert len(late) == 1


def test_a_message_is_passed_by_policy_while_its_worker_is_at_an_overtaken_request(run, write):
    smtpd = run(
        write("""
app = Filter("late")
@app.filter.mail_from(deadline=0.2, on_error="proceed")
def mail_from(ctx, sender):
    end = time.monotonic() + 2.0
    while time.monotonic() < end: pass
@app.lines(on_error="proceed")
def lines(ctx, lines):
    yield from lines
    yield b"edited"
""")
    )
    session = smtpd.client()
    reply = smtpd.message(session, b"Subject: passed\n\n.body\n")
    assert reply.ok
    assert reply.message.endswith(b"\r\n.body\r\n")


@pytest.mark.parametrize(
    ("of_tap", "of_commit", "applied"),
    [
        ("tempfail", "proceed", "reject"),
        ("proceed", "proceed", "proceed"),
        ("proceed", disconnect(421, "bye"), "disconnect"),
        ("tempfail", disconnect(421, "bye"), "disconnect"),
    ],
)
def test_commit_that_a_tap_may_hold_up_gets_no_milder_policy_than_the_tap(
    of_tap, of_commit, applied
):
    app = Filter("tapped")
    app.tap(on_error=of_tap)(lambda ctx, lines: None)
    app.filter.commit(on_error=of_commit)(lambda ctx: None)
    assert parse_hello(format_hello(app).strip()).policy("commit").kind == applied
