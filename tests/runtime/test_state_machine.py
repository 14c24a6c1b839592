"""Random clients and random handlers: the oracle stays silent, and every request is answered."""

from __future__ import annotations

import gevent
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from greenfilter import DROP, Filter, disconnect, junk, reject, report, rewrite
from greenfilter.testing import FakeSmtpd


def _raise(error):
    raise error


def _later(ctx):
    gevent.spawn(ctx.reply, reject(550, "later"))
    return ctx.defer()


def _pause(ctx):
    gevent.sleep(0)


def _twice(ctx):
    ctx.reply(reject(450, "first"))
    ctx.reply(disconnect(550, "second"))
    return junk()


ACTS = {
    "none": lambda ctx: None,
    "reject": lambda ctx: reject(550, "no\r\nno"),
    "disconnect": lambda ctx: disconnect(421, "bye"),
    "junk": lambda ctx: junk(),
    "rewrite": lambda ctx: rewrite("new@example.org"),
    "report": lambda ctx: report("text"),
    "raise": lambda ctx: _raise(RuntimeError("x")),
    "exit": lambda ctx: _raise(SystemExit(1)),
    "greenlet": lambda ctx: _raise(gevent.GreenletExit()),
    "number": lambda ctx: 5,
    "text": lambda ctx: "550 no",
    "pause": _pause,
    "later": _later,
    "never": lambda ctx: ctx.defer(),
    "twice": _twice,
}
EDITS = {
    "keep": lambda line: [line],
    "drop": lambda line: [],
    "double": lambda line: [line, line],
    "dot": lambda line: [b"."],
    "pause": lambda line: gevent.sleep(0) or [line],
    "raise": lambda line: _raise(ValueError("x")),
    "text": lambda line: ["text"],
    "two": lambda line: [b"a\nb"],
    "nul": lambda line: [b"\0"],
    "long": lambda line: [b"x" * 70_000],
}
PHASES = ["connect", "ehlo", "mail_from", "rcpt_to", "data", "commit", "noop", "rset", "quit"]
acts = st.dictionaries(st.sampled_from(PHASES), st.sampled_from(sorted(ACTS)), max_size=3)
contents = st.lists(st.sampled_from([b"", b".", b"..", b"text", b"Subject: x", b"\xff\r"]))


def _app(mode, plan, edits):
    app = Filter("random", deadline=0.15)

    def handler(phase):
        def handle(ctx, *arguments):
            return ACTS[plan.get(phase, "none")](ctx)

        getattr(app.filter, phase)(handle)

    for phase in PHASES:
        handler(phase)

    @app.report.tx_reset
    def tx_reset(ctx, message_id):
        ACTS[plan.get("rset", "none")](ctx) if plan.get("rset") in ("raise", "pause") else None

    def edited(line):
        result = EDITS[edits[0]](line)
        edits.append(edits.pop(0))
        return result

    if mode == "data_line":

        @app.filter.data_line
        def data_line(ctx, line):
            return edited(line) or DROP

    elif mode == "lines":

        @app.lines
        def lines(ctx, lines):
            for line in lines:
                yield from edited(line)

    elif mode == "message":

        @app.message
        def message(ctx, message):
            return b"\n".join(new for line in message.raw.split(b"\n") for new in edited(line))

    else:

        @app.tap
        def tap(ctx, lines):
            for line in lines:
                edited(line)

    return app


class Clients(RuleBasedStateMachine):
    """Up to three clients of one filter, which do what they like."""

    @initialize(
        mode=st.sampled_from(["data_line", "lines", "message", "tap"]),
        edits=st.lists(st.sampled_from(sorted(EDITS)), min_size=1, max_size=4),
        version=st.sampled_from(["0.4", "0.5", "0.6", "0.7"]),
    )
    def start(self, mode, edits, version):
        self.plan = {}
        self.sessions = []
        app = _app(mode, self.plan, edits)
        self.smtpd = FakeSmtpd(app, version=version, timeout=5.0).__enter__()

    def teardown(self):
        if hasattr(self, "smtpd"):
            self.smtpd.__exit__(None, None, None)
            assert self.smtpd.errors == []

    @rule(plan=acts)
    def connect(self, plan):
        self._decide(plan)
        if len(self.sessions) < 3:
            self._keep(self.smtpd.connect())

    @precondition(lambda self: self.sessions)
    @rule(plan=acts, command=st.sampled_from(["ehlo", "mail", "rcpt", "noop", "rset", "quit"]))
    def command(self, plan, command):
        self._decide(plan)
        session = self.sessions[0]
        argument = {"ehlo": " x.example.net", "mail": " FROM:<a@b.c>", "rcpt": " TO:<d@e.f>"}
        session.command(command.upper() + argument.get(command, ""))
        self._next(session)

    @precondition(lambda self: self.sessions)
    @rule(plan=acts, content=contents, parts=st.integers(1, 3), leaves=st.booleans())
    def message(self, plan, content, parts, leaves):
        self._decide(plan)
        session = self.sessions[0]
        for step in (
            lambda: session.ehlo("client.example.net"),
            lambda: session.mail_from("a@example.net"),
            lambda: session.rcpt_to("b@example.org"),
            session.data_begin,
        ):
            if not session.closed:
                reply = step()
        if not session.closed and reply.code == 354:
            for part in range(parts):
                if not session.closed:
                    session.data_lines(content[part::parts])
            if leaves and not session.closed:
                session.disconnect()
            elif not session.closed:
                session.data_end()
        self._next(session)

    @precondition(lambda self: self.sessions)
    @rule(how=st.sampled_from(["disconnect", "timeout"]))
    def leave(self, how):
        session = self.sessions[0]
        getattr(session, how)()
        self._next(session)

    def _decide(self, plan):
        self.plan.clear()
        self.plan.update(plan)

    def _keep(self, session):
        if not session.closed:
            self.sessions.append(session)

    def _next(self, session):
        self.sessions.remove(session)
        self._keep(session)


TestClients = Clients.TestCase
TestClients.settings = settings(
    max_examples=40,
    stateful_step_count=15,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
