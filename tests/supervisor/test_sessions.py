"""What a session's next worker knows of it, and what it does not do again."""

import pytest

from tests.supervisor.conftest import until


def replace_workers(smtpd):
    old = smtpd.signal_workers()
    until(lambda: bool(smtpd.workers() - old), "the next worker")


def facts(session):
    return session.noop().text


@pytest.mark.parametrize("version", ["0.4", "0.5", "0.6", "0.7"])
def test_session_and_transaction_are_known_to_the_next_worker(run, version):
    smtpd = run("doom.py", version=version)
    session = smtpd.connect(src="[2001:db8::1]:4711", rdns="out.example.net", fcrdns="fail")
    session.ehlo("one.example.net")
    session.starttls("TLSv1.3:TLS_AES_128_GCM_SHA256:128")
    session.ehlo("two.example.net")
    session.auth("bob the |builder", "secret")
    session.mail_from("fine@example.net")
    session.rcpt_to("first@example.org")
    session.rcpt_to("refused@example.org", result="permfail")
    session.rcpt_to("second@example.org")
    before = facts(session)
    for fact in ("one.example.net", "TLS_AES_128", "bob the |builder", "'first@example.org', 'sec"):
        assert fact.replace("one", "two") in before
    replace_workers(smtpd)
    assert facts(session) == before
    session.rset()
    without_transaction = facts(session)
    assert "mail_from" not in without_transaction
    replace_workers(smtpd)
    assert facts(session) == without_transaction


def test_addresses_are_known_as_they_were_rewritten(run, write):
    smtpd = run(
        write("""
app = Filter("rewrites")
@app.filter.mail_from
def mail_from(ctx, sender): return rewrite("changed-" + sender)
@app.filter.rcpt_to
def rcpt_to(ctx, recipient):
    return rewrite("changed-" + recipient) if recipient[0] == "a" else None
@app.filter.noop
def noop(ctx): return reject(550, f"{ctx.tx.mail_from} {ctx.tx.rcpt_to}")
""")
    )
    session = smtpd.client()
    session.mail_from("x@example.net")
    for recipient in ("a1@example.org", "b@example.org", "a2@example.org"):
        session.rcpt_to(recipient)
    before = facts(session)
    recipients = ["changed-a1@example.org", "b@example.org", "changed-a2@example.org"]
    assert before == f"changed-x@example.net {recipients}"
    replace_workers(smtpd)
    assert facts(session) == before


def test_no_callback_runs_twice_for_one_event(run, write, tmp_path):
    trace = tmp_path / "trace"
    trace.touch()
    smtpd = run(
        write(f"""
app = Filter("traces")
def note(*what):
    with open({str(trace)!r}, "a") as file:
        print(*what, file=file)
@app.report.link_connect
def connect(ctx, *fields): note("link-connect")
@app.report.link_identify
def identify(ctx, *fields): note("link-identify")
@app.report.tx_begin
def begin(ctx, *fields): note("tx-begin")
@app.report.tx_mail
def mail(ctx, *fields): note("tx-mail")
@app.report.tx_rcpt
def rcpt(ctx, *fields): note("tx-rcpt")
@app.report.link_disconnect
def disconnect(ctx, *fields): note("link-disconnect", ctx.session.identity)
@app.filter.rcpt_to
def rcpt_to(ctx, recipient): note("rcpt-to")
app.local_session(lambda: note("create"), lambda local: note("delete"))
""")
    )
    session = smtpd.client()
    session.mail_from("a@example.net")
    session.rcpt_to("b@example.org")
    until(lambda: "tx-rcpt" in trace.read_text(), "the reports")
    replace_workers(smtpd)
    session.rcpt_to("c@example.org")
    until(lambda: trace.read_text().count("tx-rcpt") == 2, "the reports")
    session.quit()
    until(lambda: "delete" in trace.read_text(), "the end of the session")
    lines = trace.read_text().split("\n")
    counts = {line: lines.count(line) for line in lines if line}
    assert counts == {
        "create": 2,  # one in each process
        "link-connect": 1,
        "link-identify": 1,
        "tx-begin": 1,
        "tx-mail": 1,
        "tx-rcpt": 2,
        "rcpt-to": 2,
        "link-disconnect client.example.net": 1,
        "delete": 1,
    }


def test_a_session_that_begins_while_there_is_no_worker_gets_one_later(run, write):
    code = "if os.path.exists(__file__ + '.down'): sys.exit('no database')\napp = Filter('x')\n"
    path = write(code + "@app.filter.noop\ndef noop(ctx): return reject(550, 'alive')")
    down = path.with_name(path.name + ".down")
    smtpd = run(path)
    down.touch()
    smtpd.signal_workers()
    smtpd.wait_for_log("every request is answered by policy")
    session = smtpd.client()
    assert session.noop().code == 451
    down.unlink()
    until(lambda: session.noop().code == 550, "a worker that has loaded")


def test_messages_that_end_at_once_are_all_answered(run, write):
    smtpd = run(
        write("""
import gevent.event
app, all_there, waiting = Filter("at-once"), gevent.event.Event(), []
@app.message
def message(ctx, message):
    waiting.append(ctx)
    if len(waiting) == 10:
        all_there.set()
    all_there.wait()
    return b""  # so that each writes nothing but its final dot, all in one piece
""")
    )
    sessions = [smtpd.connect() for _ in range(10)]
    for session in sessions:
        session.ehlo("client.example.net")
        session.mail_from("alice@example.net")
        session.rcpt_to("bob@example.org")
    replies = [smtpd.start(session.data, b"Subject: x\r\n\r\nx\r\n") for session in sessions]
    assert [reply.get(timeout=20).code for reply in replies] == [250] * 10
