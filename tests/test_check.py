"""``greenfilter check``: what it finds before a filter starts."""

from __future__ import annotations

import getpass
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HEAD = """\
import asyncio, hashlib, sqlite3, time
from greenfilter import Filter, Need, disconnect, junk, reject, rewrite

app = Filter("guard")
"""
EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def check(tmp_path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Check a filter whose text is given."""

    def run(text: str, *options: object) -> subprocess.CompletedProcess[str]:
        path = tmp_path / "guard.py"
        path.write_text(HEAD + textwrap.dedent(text))
        return call(*options, path)

    return run


def call(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "greenfilter", "check", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def told(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What it says, without the path of the file."""
    return [line.rpartition("guard.py:")[2] for line in done.stderr.splitlines()]


# Handlers: errors

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
    "something that is no decision": (
        """
        @app.filter.ehlo
        def answer(ctx, identity):
            return True
        """,
        "8: filter.ehlo: returns True, which is no decision",
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
            return junk()
        """,
        "8: message: junk is not legal here (legal: disconnect, proceed, reject)",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_what_cannot_work_is_an_error_with_file_and_line(name, check):
    text, problem = ERRORS[name]
    done = check(text)
    assert told(done) == [problem]
    assert done.returncode == 1
    assert "smtpd.conf:" in done.stdout


# Handlers: warnings

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
    "an event loop": (
        """
        async def work(): ...
        @app.filter.ehlo
        def look(ctx, identity):
            uvloop.run(work())
        """,
        "9: warning: filter.ehlo: uvloop.run runs an event loop of its own, which only one "
        "session at a time can have; register with thread=True",
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


@pytest.mark.parametrize("options", [["rbl.py", "--zone", "example.org"]])
def test_nothing_is_said_of_the_examples(options):
    done = call("--strict", EXAMPLES / options[0], *options[1:])
    assert (done.stderr, done.returncode) == ("", 0)


@pytest.mark.parametrize(("more", "status"), [("", 0), ("1 / 0", 1)])
def test_a_thread_of_the_filters_does_not_hold_up_the_end(more, status, check):
    done = check(
        f"""
        import threading
        threading.Thread(target=time.sleep, args=(3600,)).start()
        app.filter.noop(lambda ctx: None)
        print("printed")
        {more}
        """
    )
    assert done.returncode == status
    assert done.stdout.startswith("printed\n")


def test_the_lines_for_smtpd_conf_name_the_whole_path_of_one_filter_of_a_file(tmp_path):
    path = tmp_path / "guard.py"
    path.write_text(f"{HEAD}app.filter.noop(lambda ctx: None)\n")
    done = call(f"{os.path.relpath(path)}:app")
    assert f' run {path}:app"' in done.stdout


# smtpd.conf

BOTH = """
    @app.filter.ehlo
    def look(ctx, identity): ...
    @app.report.tx_commit(outgoing=True)
    def count(ctx, message_id, size): ...
"""
ME = getpass.getuser()


@pytest.fixture
def check_conf(check, tmp_path):
    """Check a filter with hooks for both directions against the text of a smtpd.conf."""

    def run(conf: str, text: str = BOTH, *options: str) -> list[str]:
        program = f"{sys.executable} -m greenfilter run {tmp_path / 'guard.py'}"
        path = tmp_path / "smtpd.conf"
        conf = textwrap.dedent(conf).lstrip("\n")
        path.write_text(conf.replace("PROGRAM", program).replace("HERE", str(tmp_path)))
        done = check(text, "--smtpd-conf", path, "--user", ME, *options)
        lines = done.stderr.splitlines()
        assert done.returncode == bool(lines)
        return [line.removeprefix(f"{tmp_path}/") for line in lines]

    return run


GOOD_CONF = """
    filter guard proc-exec "PROGRAM --option"
    listen on 127.0.0.1 port 2525 filter guard
    action "out" relay host smtp://127.0.0.1:2526 filter guard
    match from any for any action "out"
"""


def test_a_configuration_that_names_the_filter_twice_is_good(check_conf):
    assert check_conf(GOOD_CONF) == []


def test_a_filter_is_found_in_a_chain_a_macro_and_an_included_file(check_conf, tmp_path):
    (tmp_path / "more.conf").write_text(
        "# the filter's own \\\n comment, still\n"
        'filter "both" chain { other, "guard" }\n'
        "listen on 127.0.0.1 \\\n\tport 2525 tag x filter $name # comment\n"
    )
    conf = """
        name = both
        proc shared "PROGRAM"
        filter other proc-exec "/bin/cat"
        filter guard proc shared
        include "HERE/more.conf"
        action "out" relay filter "guard"
        match from any for any action "out"
    """
    assert check_conf(conf) == []


def test_a_filter_that_listens_nowhere_is_told(check_conf):
    conf = GOOD_CONF.replace("2525 filter guard", "2525")
    assert check_conf(conf) == [
        'smtpd.conf:1: filter "guard" has hooks for smtp-in, but no line names it: '
        'listen on ... filter "guard"'
    ]


def test_each_of_two_filters_that_run_the_same_file_has_to_be_named_somewhere(check_conf):
    conf = GOOD_CONF.replace("2526 filter guard", "2526 filter other")
    conf = '    filter other proc-exec "PROGRAM --other"\n' + conf.lstrip("\n")
    assert check_conf(conf) == []
    conf = '    filter third proc-exec "PROGRAM --third"\n' + conf
    assert check_conf(conf) == [
        'smtpd.conf:1: filter "third" runs it too, but no line names it: '
        'listen on ... filter "third"'
    ]


def test_outgoing_reports_without_a_filter_on_the_relay_action_are_told(check_conf):
    conf = GOOD_CONF.replace("2526 filter guard", "2526")
    assert check_conf(conf) == [
        'smtpd.conf:1: filter "guard" has hooks for smtp-out, but no line names it: '
        'action ... relay ... filter "guard"'
    ]


def test_a_filter_without_outgoing_reports_needs_no_relay_action(check_conf):
    text = "app.filter.ehlo(lambda ctx, identity: None)\n"
    assert check_conf(GOOD_CONF.replace("2526 filter guard", "2526"), text) == []


def test_a_configuration_that_never_runs_the_filter_is_told(check_conf, tmp_path):
    conf = """
        filter guard proc-exec "/bin/cat" # PROGRAM
        listen on 127.0.0.1 port 2525 filter guard
        action "out" relay filter guard
        match from any for any action "out"
    """
    assert check_conf(conf) == [
        f"smtpd.conf:1: no filter runs {tmp_path}/guard.py; write: filter NAME proc-exec COMMAND"
    ]


def test_a_command_without_its_path_is_told(check_conf):
    conf = GOOD_CONF.replace("PROGRAM", "greenfilter run HERE/guard.py")
    assert check_conf(conf) == [
        "smtpd.conf:1: 'greenfilter' does not begin with a slash, so smtpd looks for it in its "
        "own libexec directory only; write the whole path"
    ]


@pytest.mark.parametrize("target", ["guard.py", "guard.py:app"])
def test_a_relative_path_is_told(target, check_conf, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    conf = GOOD_CONF.replace("PROGRAM", f"/bin/env greenfilter run {target}")
    assert check_conf(conf) == [
        f"smtpd.conf:1: '{target}' is relative to where smtpd was started; write the whole path"
    ]


def test_an_included_file_that_is_missing_is_told(check_conf):
    lines = check_conf(GOOD_CONF + '    include "HERE/gone.conf"\n')
    assert lines[0].startswith("smtpd.conf:5: include ")
    assert lines[0].endswith("gone.conf: No such file or directory")


def test_smtpd_itself_reads_the_configuration(require_smtpd, check_conf):
    lines = check_conf(GOOD_CONF + "    listen nowhere\n")
    assert lines == ["smtpd.conf:5: smtpd -n: syntax error"]


def test_a_configuration_that_is_not_there_is_told(check, tmp_path):
    done = check(BOTH, "--smtpd-conf", tmp_path / "gone.conf")
    assert done.returncode == 1
    assert done.stderr.endswith("gone.conf: No such file or directory\n")


# Permissions

NEED_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root is not nobody's equal here")


@pytest.fixture
def nobodys() -> Iterator[Path]:
    """A filter that everybody may read, in a directory that everybody may enter.

    Not below pytest's own directory, which another run of pytest closes to all others again.
    """
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o755)
    path = directory / "open.py"
    path.write_text(
        "from greenfilter import Filter\n"
        "app = Filter('open')\n"
        "app.filter.ehlo(lambda ctx, identity: None)\n"
    )
    path.chmod(0o644)
    yield path
    shutil.rmtree(directory)


def about(path: Path, done: subprocess.CompletedProcess[str]) -> list[str]:
    """The lines about a path and what is below it; Python's own files are where they are."""
    return [line for line in done.stderr.splitlines() if line.startswith(str(path))]


@NEED_ROOT
def test_a_file_that_the_user_cannot_read_is_told(nobodys):
    assert about(nobodys.parent, call("--user", "nobody", nobodys)) == []
    nobodys.chmod(0o600)
    done = call("--user", "nobody", nobodys)
    (line,) = about(nobodys, done)
    assert line == f"{nobodys}:1: user nobody cannot read this file (-rw-------, owner {ME})"
    assert done.returncode == 1


@NEED_ROOT
def test_a_directory_on_the_way_that_the_user_cannot_enter_is_told(nobodys):
    nobodys.parent.chmod(0o700)
    (line,) = about(nobodys.parent, call("--user", "nobody", nobodys))
    assert line.startswith(f"{nobodys.parent}:1: user nobody cannot search this directory")


@NEED_ROOT
def test_a_module_of_the_filters_that_the_user_cannot_read_is_told(nobodys):
    module = nobodys.with_name("module_of_mine.py")
    module.write_text("")
    module.chmod(0o600)
    nobodys.write_text("import module_of_mine\n" + nobodys.read_text())
    (line,) = about(module, call("--user", "nobody", nobodys))
    assert "user nobody cannot read this file" in line


@NEED_ROOT
def test_a_program_that_the_user_cannot_execute_is_told(nobodys, tmp_path):
    nobodys.write_text("#!/usr/bin/env -S greenfilter run\n" + nobodys.read_text())
    conf = tmp_path / "smtpd.conf"
    conf.write_text(
        f'filter open proc-exec "{nobodys}" user nobody\n'
        "listen on 127.0.0.1 port 2525 filter open\n"
        'action "out" relay\nmatch from any for any action "out"\n'
    )
    (line,) = about(nobodys, call("--smtpd-conf", conf, nobodys))
    assert "user nobody cannot execute this file" in line
    nobodys.chmod(0o755)
    assert about(nobodys.parent, call("--smtpd-conf", conf, nobodys)) == []


def test_the_user_of_these_tests_may_read_all(nobodys):
    done = call("--user", ME, nobodys)
    assert (done.stderr, done.returncode) == ("", 0)


def test_a_user_that_is_not_there_is_told(nobodys):
    with pytest.raises(KeyError):
        pwd.getpwnam("no-such-user")
    done = call("--user", "no-such-user", nobodys)
    assert (done.stderr, done.returncode) == (
        "greenfilter: no user no-such-user on this machine\n",
        1,
    )
