"""The pytest plugin, as somebody else's tests see it."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from greenfilter import Filter, reject
from greenfilter.testing import SmtpdWouldDie

pytest_plugins = ["pytester"]

GUARD = """
    import sys
    import time
    from greenfilter import Filter, reject

    app = Filter("guard")

    @app.filter.mail_from
    def sender(ctx, address):
        if address in sys.argv[1:]:
            return reject(550, "not you", enhanced="5.7.1")

    @app.lines
    def footer(ctx, lines):
        yield from lines
        yield b"-- checked"
"""


@pytest.fixture
def smtpd(_greenfilter):
    """The plugin's own; tests/conftest.py has another of this name."""
    return _greenfilter


def run(pytester: pytest.Pytester, tests: str) -> pytest.RunResult:
    """Run tests with the plugin and nothing else of this project, next to guard.py."""
    pytester.makepyfile(guard=textwrap.dedent(GUARD))
    pytester.makepyfile(test_it=textwrap.dedent(tests))
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", "--strict-markers")


def test_the_plugin_does_not_import_gevent_before_it_is_used():
    code = "import sys, greenfilter.testing.plugin; print('gevent' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_good_filter_passes_in_this_process_and_in_its_own(pytester):
    result = run(
        pytester,
        """
        import pytest

        def deliver(smtpd):
            session = smtpd.connect()
            session.ehlo("client.example.net")
            assert session.mail_from("bad@example.net").rejected(550, "5.7.1 not you")
            assert session.mail_from("good@example.net").ok
            assert session.rcpt_to("bob@example.org").ok
            session.data(b"Subject: hello\\n\\nhello\\n")
            [message] = session.delivered
            assert message.data.endswith(b"hello\\r\\n-- checked\\r\\n")
            assert message.as_email()["Subject"] == "hello"

        @pytest.mark.greenfilter_versions("0.6", "0.7")
        def test_as_a_command(run_filter, protocol_version):
            smtpd = run_filter("guard.py", "bad@example.net")
            deliver(smtpd)
            assert (b"config|protocol|0.7" in smtpd.trace[1][1]) == (protocol_version == "0.7")

        def test_with_a_supervisor(run_filter):
            deliver(run_filter("guard.py", "bad@example.net", run_options=()))

        def test_imported(smtpd, load_filter):
            deliver(smtpd(load_filter("guard.py", "bad@example.net")))
        """,
    )
    result.assert_outcomes(passed=4)


def test_what_smtpd_does_not_forgive_fails_the_test(pytester):
    result = run(
        pytester,
        """
        import sys

        REPORTS = "import sys; print('register|ready', flush=True); print('stray', flush=True)"

        def test_it(smtpd):
            smtpd([sys.executable, "-c", REPORTS + "; sys.stdin.read()"])
        """,
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*SmtpdWouldDie: neither filter-result nor filter-dataline*"])


def test_the_report_of_a_failed_test_shows_the_protocol_without_credentials(pytester):
    result = run(
        pytester,
        """
        def test_it(smtpd, load_filter):
            app = load_filter("guard.py", "bad@example.net")
            app.filter.auth(lambda ctx, credentials: None)
            session = smtpd(app).connect()
            session.ehlo("client.example.net")
            session.starttls()
            session.ehlo("client.example.net")
            session.auth("alice", "secret")
            assert session.mail_from("bad@example.net").ok
        """,
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*where False = <Reply '550 5.7.1 not you'>.ok",
            "*smtpd (<) and filter (>)*",
            "< filter|0.7|*|auth|*|PLAIN ????????",
            "< filter|0.7|*|mail-from|*|bad@example.net",
            "> filter-result|*|reject|550 5.7.1 not you",
        ]
    )
    assert "AGFsaWNlAHNlY3JldA" not in result.stdout.str()


def test_the_report_of_a_failed_test_shows_the_filters_log(pytester):
    result = run(
        pytester,
        """
        def test_it(run_filter):
            run_filter("missing.py")
        """,
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*the filter's log*", "greenfilter: missing.py: no such file"])


def test_sys_argv_and_sys_path_are_put_back_after_a_filter_was_imported(pytester):
    result = run(
        pytester,
        """
        import sys

        BEFORE = list(sys.argv), list(sys.path)

        def test_import(load_filter):
            load_filter("guard.py", "--option")
            assert sys.argv[1:] == ["--option"]

        def test_after():
            assert (sys.argv, sys.path) == BEFORE
        """,
    )
    result.assert_outcomes(passed=2)


def test_servers_are_stopped_when_the_test_is_over(pytester):
    result = run(
        pytester,
        """
        kept = []

        def test_start(run_filter):
            kept.append(run_filter("guard.py"))

        def test_ended():
            assert kept[0].stop() == []
            assert kept[0].errors == []
        """,
    )
    result.assert_outcomes(passed=2)


# Faults


def test_a_killed_filter_ends_smtpd(run_filter, tmp_path):
    server = run_filter(guard(tmp_path))
    session = server.connect()
    session.ehlo("client.example.net")
    server.kill()
    with pytest.raises(SmtpdWouldDie, match="signal 9"):
        session.mail_from("alice@example.net")


def test_sessions_outlive_a_worker_that_is_killed(run_filter, tmp_path):
    server = run_filter(guard(tmp_path), "bad@example.net", run_options=())
    session = server.connect()
    session.ehlo("client.example.net")
    server.kill_worker()
    assert session.mail_from("good@example.net").code in (250, 451)
    assert server.connect().reply.ok


def test_only_a_command_can_be_killed(smtpd):
    server = smtpd(app())
    with pytest.raises(RuntimeError, match="not a command"):
        server.kill()
    with pytest.raises(RuntimeError, match="not a command"):
        server.kill_worker()


def test_only_a_filter_in_this_process_goes_by_the_clock(run_filter, tmp_path):
    with pytest.raises(RuntimeError, match="this process"):
        _ = run_filter(guard(tmp_path)).clock


@pytest.mark.parametrize("run_options", [("--no-supervisor",), ()])
def test_smtpd_may_end_in_the_middle_of_a_message(run_filter, tmp_path, run_options):
    server = run_filter(guard(tmp_path), run_options=run_options)
    session = server.connect()
    session.ehlo("client.example.net")
    session.mail_from("alice@example.net")
    session.rcpt_to("bob@example.org")
    session.data_begin()
    session.data_lines([b"Subject: half", b"", b"a message"])
    assert server.stop() == []
    assert server.messages == []


def test_a_filter_waits_for_an_smtpd_that_does_not_read(run_filter, tmp_path):
    server = run_filter(guard(tmp_path), received=False)
    session = server.connect()
    session.ehlo("client.example.net")
    session.mail_from("alice@example.net")
    session.rcpt_to("bob@example.org")
    message = b"x" * 900 + b"\n"
    with server.not_reading():
        pending = server.start(session.data, message * 4000)
        pending.join(0.2)
        assert not pending.ready()
    assert pending.get(timeout=30).ok
    [delivered] = session.delivered
    assert delivered.data.count(b"\n") == 4001


def test_an_smtpd_that_reads_byte_by_byte_gets_everything(smtpd):
    session = smtpd(app(), read_bytes=1).connect()
    assert session.ehlo("bad.example.net").rejected(550)
    assert session.ehlo("client.example.net").ok


def guard(directory: Path) -> str:
    path = directory / "guard.py"
    path.write_text(textwrap.dedent(GUARD))
    return str(path)


def app() -> Filter:
    made = Filter("small")

    @made.filter.ehlo
    def ehlo(ctx, identity):
        return reject(550, "no") if identity.startswith("bad") else None

    return made
