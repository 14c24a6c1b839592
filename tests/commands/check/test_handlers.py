"""What ``check`` finds in the source of handlers."""

from __future__ import annotations

import pytest

from .checking import told

# Errors

ERRORS = {
    "a need that is not named": (
        """
        app.needs = Need.RDNS
        @app.filter.connect
        def look(ctx, rdns, address):
            return ctx.session.src
        """,
        "9: filter.connect: reads src, but needs= does not name Need.SRC",
    ),
    "a need behind authenticated": (
        """
        app.needs = Need.RDNS
        @app.report.tx_begin
        def look(ctx, message_id):
            if ctx.session.authenticated: print()
        """,
        "9: report.tx_begin: reads authenticated, but needs= does not name Need.USERNAME",
    ),
    "a need in a function that is called": (
        """
        app.needs = Need.RDNS
        def helper(name, session): return session.identity
        @app.filter.rcpt_to
        def look(ctx, recipient):
            session = ctx.session
            if helper("x", session=session): return
        """,
        "7: filter.rcpt_to: reads identity, but needs= does not name Need.IDENTITY",
    ),
    "a need of the transaction": (
        """
        app.needs = Need.RDNS
        @app.lines
        def look(ctx, lines):
            yield from lines
            print(ctx.tx.mail_from)
        """,
        "10: lines: reads mail_from, but needs= does not name Need.MAIL_FROM",
    ),
    "a generator that answers": (
        """
        @app.filter.ehlo
        def answer(ctx, identity):
            yield reject(550, "no")
        """,
        "7: filter.ehlo: answer is a generator, whose body never runs; return, not yield",
    ),
    "lines that yields nothing": (
        """
        @app.lines
        def eat(ctx, lines):
            for line in lines: print(line)
        """,
        "7: lines: eat yields no lines, so that every message is answered by on_error; yield them, "
        "or use @app.tap to look at them only",
    ),
    "lines that returns them": (
        """
        @app.lines
        def eat(ctx, lines):
            if b"x" in lines: return reject(550, "no")
            return [line for line in lines] if ctx else None
        """,
        "7: lines: eat yields no lines, so that every message is answered by on_error; yield them, "
        "or use @app.tap to look at them only",
    ),
    "something that is not a decision": (
        """
        @app.filter.ehlo
        def answer(ctx, identity):
            return True
        """,
        "8: filter.ehlo: returns True, which is not a decision",
    ),
    "a decision that is not legal": (
        """
        @app.filter.commit
        def answer(ctx):
            return junk()
        """,
        "8: filter.commit: junk is not legal here (legal: disconnect, proceed, reject, report)",
    ),
    "a report that decides": (
        """
        @app.report.tx_rcpt
        def answer(ctx, message_id, result, recipient):
            return reject(550, "no")
        """,
        "8: report.tx_rcpt: returns reject, but a report cannot decide; use app.filter",
    ),
    "a lambda": (
        """
        app.filter.data(lambda ctx: rewrite("x"))
        """,
        "6: filter.data: rewrite is not legal here "
        "(legal: disconnect, junk, proceed, reject, report)",
    ),
    "a decision of one case": (
        """
        @app.filter.starttls
        def answer(ctx):
            return None if ctx.session.closed else ctx or rewrite("x")
        """,
        "8: filter.starttls: rewrite is not legal here (legal: disconnect, junk, proceed, reject)",
    ),
    "a decision that cannot wait for commit": (
        """
        @app.message
        def answer(ctx, message):
            return rewrite("a@b")
        """,
        "8: message: rewrite is not legal here (legal: disconnect, junk, proceed, reject)",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_what_cannot_work_is_an_error_with_file_and_line(name, check):
    text, problem = ERRORS[name]
    done = check(text)
    assert told(done) == [problem]
    assert done.returncode == 1
    assert "smtpd.conf:" in done.stdout


# Warnings

WARNINGS = {
    "work that takes long": (
        """
        @app.filter.auth
        def look(ctx, credentials):
            hashlib.scrypt(b"", salt=b"", n=2, r=1, p=1)
        """,
        "8: warning: filter.auth: hashlib.scrypt computes, and holds up all sessions; "
        "register with thread=True",
    ),
    "under another name, in a function that is called": (
        """
        from hashlib import pbkdf2_hmac as stretch
        def helper(): return stretch("sha256", b"", b"", 1)
        @app.filter.auth
        def look(ctx, credentials):
            helper()
        """,
        "7: warning: filter.auth: hashlib.pbkdf2_hmac computes, and holds up all sessions; "
        "register with thread=True",
    ),
    "a connection that was made before": (
        """
        db = sqlite3.connect(":memory:")
        @app.report.tx_begin
        def look(ctx, message_id):
            db.execute("select 1")
        """,
        "9: warning: report.tx_begin: sqlite3.connect waits inside C code, and holds up all "
        "sessions; register with thread=True",
    ),
    "below a decorator": (
        """
        import functools
        def same(fn): return functools.wraps(fn)(lambda *args: fn(*args))
        @app.filter.ehlo
        @same
        def look(ctx, identity):
            hashlib.scrypt(b"", salt=b"", n=2, r=1, p=1)
        """,
        "11: warning: filter.ehlo: hashlib.scrypt computes, and holds up all sessions; "
        "register with thread=True",
    ),
    "where there are no threads": (
        """
        @app.lines
        def look(ctx, lines):
            yield from lines
            hashlib.scrypt(b"", salt=b"", n=2, r=1, p=1)
        """,
        "9: warning: lines: hashlib.scrypt computes, and holds up all sessions; "
        "use @app.message(thread=True) instead",
    ),
    "a coroutine that nobody awaits": (
        """
        async def work(): ...
        @app.filter.ehlo
        def look(ctx, identity):
            work()
        """,
        "9: warning: filter.ehlo: calls work, which is async: its body never runs",
    ),
    "a greenlet in a thread": (
        """
        import gevent
        @app.filter.ehlo(thread=True)
        def look(ctx, identity):
            gevent.spawn(print)
        """,
        "9: warning: filter.ehlo: gevent.spawn in a thread of the pool: the greenlet may never "
        "run there",
    ),
    "the transaction before there is one": (
        """
        @app.filter.mail_from
        def look(ctx, sender):
            print(ctx.tx.message_id)
        """,
        "8: warning: filter.mail_from: reads ctx.tx.message_id, but ctx.tx is None: "
        "a transaction begins later",
    ),
}


@pytest.mark.parametrize("name", WARNINGS)
def test_what_looks_wrong_is_a_warning_and_an_error_if_strict(name, check):
    text, problem = WARNINGS[name]
    done = check(text)
    assert told(done) == [problem]
    assert done.returncode == 0
    assert check(text, "--strict").returncode == 1


GOOD = {
    "cooperative waiting": """
        @app.filter.connect
        def look(ctx, rdns, address):
            time.sleep(1)
            return disconnect(550, "no")
    """,
    "long work in a thread": """
        @app.message(thread=True)
        def look(ctx, message):
            hashlib.scrypt(b"", salt=b"", n=2, r=1, p=1)
            return reject(550, "no")
    """,
    "a transaction that is looked for": """
        @app.filter.mail_from
        def look(ctx, sender):
            tx = ctx.tx
            if tx is not None:
                print(tx.message_id, ctx.tx and ctx.tx.mail_from)
    """,
    "another thing of the same name": """
        class Own:
            def scrypt(self): ...
        def other(hashlib): return hashlib.scrypt()
        @app.filter.ehlo
        def look(ctx, identity):
            src = Own().scrypt(), other(Own())
    """,
    "fields that are named": """
        app.needs = Need.SRC | Need.USERNAME
        @app.filter.rcpt_to
        def look(ctx, recipient):
            return None if ctx.session.authenticated or ctx.session.src.ip else None
    """,
    "a decision that a decorator makes": """
        import functools
        def deciding(fn):
            @functools.wraps(fn)
            def wrapper(ctx, identity):
                return None if fn(ctx, identity) else reject(550, "no")
            return wrapper
        @app.filter.ehlo
        @deciding
        def look(ctx, identity):
            return True
    """,
    "a function that is made elsewhere": """
        import functools
        app.filter.ehlo(functools.partial(lambda word, ctx, identity: word, None))
        exec("def made(ctx, identity): return True")
        app.filter.helo(made)
    """,
}


@pytest.mark.parametrize("name", GOOD)
def test_nothing_is_said_of_a_good_filter(name, check):
    done = check(GOOD[name], "--strict")
    assert (done.stderr, done.returncode) == ("", 0)
