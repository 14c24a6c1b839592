"""In pytest's own process a handler blocks as in production, or the test fails and says why."""

from __future__ import annotations

import textwrap

import pytest

pytest_plugins = ["pytester"]

SLEEPY = """
    import argparse
    import sys
    import time
    from time import sleep

    from greenfilter import Filter

    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args(sys.argv[1:])
    app = Filter("sleepy")

    @app.filter.ehlo(deadline=0.2)
    def wait(ctx, identity):
        sleep(options.seconds)

    @app.lines(deadline=0.2)
    def lines(ctx, lines):
        for line in lines:
            time.sleep(options.seconds)
            yield line
"""
TEST = """
    from sleepy import app

    def test_it(smtpd):
        assert smtpd(app).connect().ehlo("client.example.net").rejected(451)
"""


def run(pytester, tests, *arguments, filter_file=SLEEPY):
    pytester.makepyfile(sleepy=textwrap.dedent(filter_file))
    pytester.makepyfile(test_it=textwrap.dedent(tests))
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", "-W", "error", *arguments)


def test_a_blocking_handler_is_answered_for_at_its_deadline(pytester):
    result = run(pytester, TEST, "-q")
    result.assert_outcomes(passed=1)


def test_sessions_do_not_wait_for_each_other(pytester):
    result = run(
        pytester,
        """
        import time

        def test_it(smtpd, load_filter):
            server = smtpd(load_filter("sleepy.py", "--seconds", "0.15"))
            sessions = [server.connect() for _ in range(20)]
            begun = time.perf_counter()
            pending = [server.start(each.ehlo, "client.example.net") for each in sessions]
            assert all(each.get(timeout=10).ok for each in pending)
            assert time.perf_counter() - begun < 2  # one after the other: 3 s
        """,
    )
    result.assert_outcomes(passed=1)


def test_a_process_without_a_filter_in_it_is_not_patched(pytester):
    result = run(
        pytester,
        """
        import sys

        def test_it(run_filter):
            run_filter("sleepy.py")
            assert not sys.modules["gevent.monkey"].is_module_patched("time")
        """,
    )
    result.assert_outcomes(passed=1)


def test_a_filter_gets_none_of_pytests_options(pytester):
    pytester.makepyfile(
        test_other="""
        import sys

        def test_that_has_nothing_to_do_with_filters():
            assert "-q" in sys.argv
        """
    )
    result = run(
        pytester,
        """
        import sys
        import sleepy

        def test_it(smtpd):
            assert sleepy.options.seconds == 20.0
            assert sys.argv[1:] == []
        """,
        "-q",
    )
    result.assert_outcomes(passed=2)


def test_a_fixture_of_the_users_own_has_nothing_to_do_with_it(pytester):
    pytester.makeconftest("import pytest\n\n@pytest.fixture\ndef smtpd():\n    return 1\n")
    result = run(
        pytester,
        """
        import sys

        def test_it(smtpd):
            assert "gevent" not in sys.modules
        """,
    )
    result.assert_outcomes(passed=1)


def test_without_patching_a_handler_that_passes_its_deadline_fails_the_test(pytester):
    pytester.makeini("[pytest]\ngreenfilter_patch = never\n")
    result = run(
        pytester,
        """
        def greeted(smtpd, load_filter):
            session = smtpd(load_filter("sleepy.py", "--seconds", "0.7")).connect()
            session.ehlo("client.example.net")
            return session

        def test_handler(smtpd, load_filter):
            greeted(smtpd, load_filter)
        """,
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*LoopBlocked: filter.ehlo wait kept the loop at sleepy.py:15 past its deadline of "
            "0.2 s; *set greenfilter_patch = always in pytest's configuration*"
        ]
    )


def test_what_does_not_wait_in_its_greenlet_fails_the_test_of_a_patched_process_too(pytester):
    result = run(
        pytester,
        TEST,
        filter_file="""
        import time
        from greenfilter import Filter

        app = Filter("busy")

        @app.filter.ehlo(deadline=0.1)
        def compute(ctx, identity):
            end = time.perf_counter() + 0.6
            while time.perf_counter() < end:
                pass
        """,
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*LoopBlocked: filter.ehlo compute*register it with thread=True*"])


def test_always_patches_before_conftest_is_imported(pytester):
    pytester.makeini("[pytest]\ngreenfilter_patch = always\n")
    pytester.makepyfile(conftest="from time import sleep")
    result = run(
        pytester,
        """
        import gevent.monkey
        from conftest import sleep

        def test_it():
            assert gevent.monkey.is_module_patched("time")
            assert sleep is not gevent.monkey.get_original("time", "sleep")
        """,
    )
    result.assert_outcomes(passed=1)


def test_another_word_is_refused(pytester):
    pytester.makeini("[pytest]\ngreenfilter_patch = sometimes\n")
    result = run(pytester, TEST)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: greenfilter_patch = sometimes: write one of auto, always, never"]
    )


def test_a_file_that_cannot_be_parsed_is_left_to_pytest(pytester):
    result = run(pytester, "def test_it(smtpd:")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*SyntaxError*"])


def test_usefixtures_asks_as_well(pytester):
    result = run(
        pytester,
        """
        import pytest
        from gevent import monkey

        @pytest.mark.usefixtures("smtpd")
        def test_it():
            assert monkey.is_module_patched("socket")
        """,
    )
    result.assert_outcomes(passed=1)


def test_a_time_limit_of_pytest_timeout_still_ends_a_test(pytester):
    pytest.importorskip("pytest_timeout")
    result = run(
        pytester,
        """
        import time
        import pytest

        @pytest.mark.timeout(1)
        def test_that_hangs(smtpd):
            time.sleep(30)

        def test_after(smtpd):
            pass
        """,
    )
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["*Timeout*1.0s*"])


def test_hypothesis_goes_on_working(pytester):
    pytest.importorskip("hypothesis")
    result = run(
        pytester,
        """
        from hypothesis import HealthCheck, given, settings, strategies

        @given(strategies.from_regex(r"[a-z]{1,8}", fullmatch=True))
        @settings(
            max_examples=10,
            deadline=None,
            suppress_health_check=[HealthCheck.function_scoped_fixture],
        )
        def test_it(smtpd, load_filter, name):
            session = smtpd(load_filter("sleepy.py", "--seconds", "0")).connect()
            assert session.ehlo(name + ".example.net").ok
        """,
    )
    result.assert_outcomes(passed=1)
