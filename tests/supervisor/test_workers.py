"""Several workers share the sessions."""

from tests.supervisor.conftest import until

COUNT = """
app = Filter("counts", deadline=20.0)
@app.filter.mail_from
def mail_from(ctx, sender):
    ctx.session.local = [sender]
    return reject(550, str(os.getpid()))
@app.filter.noop
def noop(ctx):
    begun = time.process_time()
    while time.process_time() < begun + 0.2: pass
"""


def wait_for_all(smtpd, sender):
    """Wait until all workers have loaded: before that, the others get their sessions."""

    def answering():
        return {smtpd.client().mail_from(sender).text for _ in range(16)}

    until(lambda: answering() >= set(map(str, smtpd.workers())), "all workers")


def test_sessions_are_shared_and_each_stays_where_it_is(run, write):
    smtpd = run(write(COUNT), options=("--workers", "4"))
    wait_for_all(smtpd, "a@example.net")
    homes = {}
    for _ in range(64):
        session = smtpd.client()
        homes[session] = session.mail_from("a@example.net").text
    assert set(homes.values()) == set(map(str, smtpd.workers()))
    for session, home in homes.items():
        assert session.mail_from("a@example.net").text == home


def test_the_order_within_a_session_holds(run, write):
    smtpd = run(
        write("""
app = Filter("order")
@app.report.tx_rcpt
def tx_rcpt(ctx, message_id, result, recipient):
    time.sleep(0.001)
    ctx.session.local = (ctx.session.local or "") + recipient[0]
@app.filter.noop
def noop(ctx): return reject(550, ctx.session.local)
@app.lines
def lines(ctx, lines):
    yield from lines
    yield ctx.session.local.encode()
"""),
        options=("--workers", "3"),
    )

    def client():
        session = smtpd.client()
        session.mail_from("a@example.net")
        for letter in "abcdefgh":
            assert session.rcpt_to(f"{letter}@example.org").ok
        assert session.noop().text == "abcdefgh"
        assert session.data(b"Subject: order\n\nbody\n").message.endswith(b"\r\nabcdefgh\r\n")

    for each in [smtpd.start(client) for _ in range(12)]:
        each.get(timeout=30)


def test_a_worker_that_dies_takes_only_its_own_requests_with_it(run):
    smtpd = run("doom.py", options=("--workers", "2"))
    wait_for_all(smtpd, "pid@example.net")
    sessions = [smtpd.client() for _ in range(32)]
    homes = {session: session.mail_from("pid@example.net").text for session in sessions}
    victim, *_ = sessions

    def new_workers():
        answering = {smtpd.client().mail_from("pid@example.net").text for _ in range(8)}
        return answering - set(homes.values())

    other = next(session for session in sessions if homes[session] != homes[victim])
    pending = smtpd.start(other.mail_from, "slow@example.net")
    assert victim.mail_from("segv@example.net").code == 451
    until(lambda: len(smtpd.workers()) == 2, "the next worker")
    assert not pending.ready()
    pending.kill()
    # At once it goes on in the worker that is there; the next one gets sessions when it has loaded.
    assert victim.mail_from("pid@example.net").text in {homes[other], *new_workers()}
    until(lambda: len(new_workers()) > 0, "a session in the next worker")


def test_a_busy_loop_in_one_worker_holds_up_no_session_of_another(run, write):
    smtpd = run(write(COUNT), options=("--workers", "2"))
    wait_for_all(smtpd, "a@example.net")
    sessions = [smtpd.client() for _ in range(16)]
    homes = {session: session.mail_from("a@example.net").text for session in sessions}
    busy = sessions[0]
    free = next(session for session in sessions if homes[session] != homes[busy])
    pending = smtpd.start(busy.noop)
    for _ in range(3):
        assert free.mail_from("a@example.net").text == homes[free]
    assert not pending.ready()
    assert pending.get(timeout=10).ok
