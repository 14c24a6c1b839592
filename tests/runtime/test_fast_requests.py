"""The short way of a request answers as the careful one does, whatever is asked and returned."""

from __future__ import annotations

import logging

import gevent
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from greenfilter import Filter, disconnect, junk, proceed, reject, rewrite

from .driving import Pipe, report, request, until

OUTCOMES = {
    "nothing": lambda: None,
    "proceed": proceed,
    "reject": lambda: reject(550, "no", enhanced="5.7.1"),
    "disconnect": lambda: disconnect(421, "go"),
    "junk": junk,
    "rewrite": lambda: rewrite("other"),
    "text": lambda: "550 no",
    "long": lambda: reject(550, "x" * 20_000),
    "split": lambda: rewrite("a\nb"),
}
PARAMETERS = {
    "connect": "client.example.net|192.0.2.10:4711",
    "helo": "client.example.net",
    "mail-from": "alice@example.net",
    "noop": "",
    "commit": "",
    "help": "",
    "quit": "|odd|",
}
STEPS = st.lists(
    st.tuples(
        st.sampled_from([*PARAMETERS, "link-identify", "unknown"]),
        st.sampled_from([*OUTCOMES, "error", "exit", "wait", "defer", "answer", "twice"]),
        st.integers(1, 3),
    ),
    min_size=1,
    max_size=25,
)


def filter_of(steps):
    """Return a filter whose handlers do, for each session, what the steps say."""
    app = Filter("both")
    due = {
        number: [what for phase, what, own in steps if own == number and phase in PARAMETERS]
        for number in (1, 2, 3)
    }

    def handle(ctx, *values):
        what = due[int(ctx.session.id, 16)].pop(0)
        if what == "error":
            raise ValueError(f"{values}")
        if what == "exit":
            raise SystemExit(3)
        if what == "wait":
            gevent.sleep(0)
            return reject(451, ctx.session.identity or "nobody")
        if what == "defer":
            gevent.spawn(ctx.reply, reject(450, "later"))
            return ctx.defer()
        if what in ("answer", "twice"):
            assert ctx.reply(reject(552, "first"))
            return ctx.defer() if what == "answer" else reject(553, "second")
        return OUTCOMES[what]()

    for phase in PARAMETERS:
        register = getattr(app.filter, phase.replace("-", "_"))
        count = {"connect": 2, "helo": 1, "mail-from": 1}.get(phase, 0)
        handlers = [
            lambda ctx: handle(ctx),
            lambda ctx, one: handle(ctx, one),
            lambda ctx, one, two: handle(ctx, one, two),
        ]
        register(handlers[count])
    return app


def answers(steps, version, fast, caplog):
    """Return what each session is answered, in its order, and what is logged of each."""
    caplog.clear()
    with Pipe(filter_of(steps)) as pipe:
        if not fast:
            pipe.runtime._dispatcher._fast._plain.clear()
        lines = []
        for phase, _, number in steps:
            if phase == "link-identify":
                lines.append(report("link-identify", number, "EHLO", f"host{len(lines)}"))
            elif phase == "unknown":
                lines.append(request("bogus", number, "x", version))
            else:
                lines.append(request(phase, number, PARAMETERS[phase], version))
        asked = sum(phase != "link-identify" for phase, _, _ in steps)
        pipe.send(*lines)
        until(lambda: len(pipe.lines) == asked)
    found = {}
    for line in pipe.lines:
        ids = tuple(line.split("|")[1:3])
        found.setdefault(ids, []).append(line)
    # A traceback and the order among sessions are not the same, and need not be.
    told = sorted(each.getMessage() for each in caplog.records if each.levelno > logging.DEBUG)
    return found, told


@pytest.mark.parametrize("version", ["0.4", "0.7"])
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=STEPS)
def test_both_ways_answer_the_same(caplog, version, steps):
    fast = answers(steps, version, True, caplog)
    assert fast == answers(steps, version, False, caplog)


def test_plain_requests_take_the_short_way_and_others_do_not():
    app = Filter("ways")
    app.filter.noop(lambda ctx: None)
    app.filter.helo(thread=True)(lambda ctx, identity: None)
    app.filter.commit(lambda ctx: None)
    app.message(lambda ctx, message: None)
    with Pipe(app) as pipe:
        assert [phase.wire for phase in pipe.runtime._dispatcher._fast._plain] == ["noop"]
