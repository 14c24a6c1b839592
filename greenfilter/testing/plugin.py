r"""The pytest plugin: fixtures to test a filter with. They are there without an import.

A test of an app in its own process::

    def test_a_listed_client_is_refused(smtpd):
        session = smtpd(app).connect(src="192.0.2.1:4711")
        assert session.reply.rejected(550, "listed")

of a filter file, started as smtpd starts it, at two versions of the protocol::

    @pytest.mark.greenfilter_versions("0.6", "0.7")
    def test_the_footer_is_added(run_filter):
        session = run_filter("footer.py", "--text", "checked").connect()
        session.ehlo("client.example.net")
        session.mail_from("alice@example.net")
        session.rcpt_to("bob@example.org")
        session.data(b"Subject: hello\n\nhello\n")
        [message] = session.delivered
        assert message.data.endswith(b"checked\r\n")

of a deadline, without waiting for it::

    def test_a_slow_database_lets_mail_pass(smtpd, load_filter):
        server = smtpd(load_filter("guard.py"))
        pending = server.start(server.connect)
        server.clock.advance(5.0)
        assert pending.get(timeout=10).reply.ok

and of what is to happen after a while, as in greylisting::

    def test_who_comes_again_after_five_minutes_is_let_in(smtpd, load_filter):
        server = smtpd(load_filter("greylist.py"))
        assert server.connect().ehlo("client.example.net").rejected(451)
        server.clock.advance(300)
        assert server.connect().ehlo("client.example.net").ok

A handler of an app in this process may block as in production: the standard library is patched by
gevent.monkey just before the first test module is imported that asks for ``smtpd`` or
``load_filter``. ``greenfilter_patch`` in pytest's configuration says otherwise: ``always`` does it
at pytest's start (for modules that conftest.py imports, or tests that make a FakeSmtpd of their
own), ``never`` does not. In a process that is not patched, a handler that blocks past its deadline
fails the test. In a module that asks for a fixture of greenfilter, ``sys.argv`` has no options, so
that ``from guard import app`` does not take pytest's for the filter's;
``load_filter("guard.py", "--option")`` gives it some.

Every server is stopped when the test function returns, and the test fails if the filter did what
real smtpd does not forgive. The report of a test that failed shows what smtpd and the filter said.
"""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ._patching import FIXTURES, IN_PROCESS, WHEN, fixtures_of, no_arguments, patch

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from .. import Filter
    from ._fake_smtpd import FakeSmtpd

DEFAULT_VERSION = "0.7"
_MAX_TRACE_LINES = 80


class SmtpdFactory:
    """The fixture ``smtpd``: call it to start a :class:`~greenfilter.testing.FakeSmtpd`.

    Args:
        version: protocol version of those that are not told another.

    Attributes:
        started: all that were started in this test.
    """

    def __init__(self, version: str) -> None:
        self.started: list[FakeSmtpd] = []
        self._version = version
        self._stack = ExitStack()

    def __call__(self, app: Filter | list[str], **options: Any) -> FakeSmtpd:
        """Start smtpd with a filter. Switches greenlets.

        Args:
            app: a ``Filter``, or a command.
            **options: of :class:`~greenfilter.testing.FakeSmtpd`.

        Raises:
            OracleError: the registration is not legal, or does not end.
        """
        from ._fake_smtpd import FakeSmtpd

        options.setdefault("version", self._version)
        smtpd = FakeSmtpd(app, **options)
        self.started.append(smtpd)
        return self._stack.enter_context(smtpd)

    def __enter__(self) -> SmtpdFactory:
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)


class FilterRunner:
    """The fixture ``run_filter``: call it to start a filter file as smtpd starts it.

    Args:
        smtpd: starts the server.
        directory: of the test file.
    """

    def __init__(self, smtpd: SmtpdFactory, directory: Path) -> None:
        self._smtpd = smtpd
        self._directory = directory

    def __call__(
        self,
        target: str | os.PathLike[str],
        *args: str,
        run_options: Sequence[str] = ("--no-supervisor",),
        **options: Any,
    ) -> FakeSmtpd:
        """Start ``greenfilter run`` in a process of its own. Switches greenlets.

        Args:
            target: the filter's file, relative to the test file or else to the working directory;
                or ``package.module:app``.
            *args: the filter's own options.
            run_options: options of ``greenfilter run``. The default leaves the supervisor out,
                which is quicker; ``()`` runs it as in production.
            **options: of :class:`~greenfilter.testing.FakeSmtpd`.

        Raises:
            OracleError: the filter does not start; the text has what it logged.
        """
        command = [sys.executable, "-m", "greenfilter", "run", *run_options]
        return self._smtpd([*command, _located(target, self._directory), *args], **options)


class FilterLoader:
    """The fixture ``load_filter``: call it to import a filter file into the test's process.

    Args:
        monkeypatch: puts ``sys.argv`` and ``sys.path`` back.
        directory: of the test file.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
        self._monkeypatch = monkeypatch
        self._directory = directory

    def __call__(self, target: str | os.PathLike[str], *args: str) -> Filter:
        """Import the file again and return its ``Filter``, for ``smtpd(...)`` or for plain calls.

        Args:
            target: as for ``run_filter``.
            *args: the filter's own options, its ``sys.argv[1:]``.

        Raises:
            UsageError: it cannot be imported, or there is no filter in it.
        """
        from .._filter.load import load

        self._monkeypatch.setattr(sys, "argv", list(sys.argv))
        self._monkeypatch.setattr(sys, "path", list(sys.path))
        return load(_located(target, self._directory), list(args))


def _located(target: str | os.PathLike[str], directory: Path) -> str:
    path = directory / target
    return str(path) if path.is_file() else os.fspath(target)


@pytest.fixture
def protocol_version() -> str:
    """Return the protocol version of the test: 0.7, or each of ``greenfilter_versions``."""
    return DEFAULT_VERSION


@pytest.fixture
def _greenfilter(request: pytest.FixtureRequest, protocol_version: str) -> Iterator[SmtpdFactory]:
    with SmtpdFactory(protocol_version) as factory:
        request.node.stash[_FACTORY] = factory
        yield factory


@pytest.fixture
def smtpd(_greenfilter: SmtpdFactory) -> SmtpdFactory:
    """Start a FakeSmtpd: ``smtpd(app)``. See :mod:`greenfilter.testing.plugin`."""
    return _greenfilter


@pytest.fixture
def run_filter(request: pytest.FixtureRequest, _greenfilter: SmtpdFactory) -> FilterRunner:
    """Start a filter file under a FakeSmtpd: ``run_filter("guard.py", "--option")``."""
    return FilterRunner(_greenfilter, request.path.parent)


@pytest.fixture
def load_filter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> FilterLoader:
    """Import a filter file and return its Filter: ``load_filter("guard.py", "--option")``."""
    return FilterLoader(monkeypatch, request.path.parent)


_FACTORY = pytest.StashKey[SmtpdFactory]()
_ASKED = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Make the option of the configuration file known."""
    parser.addini(
        "greenfilter_patch",
        f"when gevent patches the standard library: {', '.join(WHEN)} "
        "(auto: once a test module asks for the fixture smtpd or load_filter)",
        default=WHEN[0],
    )


def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Patch before anything of the user's is imported, if it is wanted always."""
    when = early_config.getini("greenfilter_patch")
    if when not in WHEN:
        raise pytest.UsageError(f"greenfilter_patch = {when}: write one of {', '.join(WHEN)}")
    if when == "always":
        patch()


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Import a module that asks for a fixture of ours as production imports a filter."""
    if not isinstance(collector, pytest.Module):
        return (yield)
    asked = fixtures_of(collector.path, _foreign(collector.config))
    if asked & IN_PROCESS and collector.config.getini("greenfilter_patch") == "auto":
        patch()
    if not asked:
        return (yield)
    collector.stash[_ASKED] = True
    with no_arguments():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Show a filter that reads ``sys.argv`` in its handlers what it saw at its import."""
    module = item.getparent(pytest.Module)
    with no_arguments() if module and _ASKED in module.stash else nullcontext():
        return (yield)


def _foreign(config: pytest.Config) -> set[str]:
    """Return names of our fixtures that another plugin, or a conftest.py, uses for its own."""
    own = sys.modules[__name__]
    others = [plugin for plugin in config.pluginmanager.get_plugins() if plugin is not own]
    return {name for name in FIXTURES for plugin in others if hasattr(plugin, name)}


def pytest_configure(config: pytest.Config) -> None:
    """Make the mark known."""
    config.addinivalue_line(
        "markers", "greenfilter_versions(*versions): run the test once with each protocol version"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that is marked so once with each version."""
    mark = metafunc.definition.get_closest_marker("greenfilter_versions")
    if mark is not None and "protocol_version" in metafunc.fixturenames:
        metafunc.parametrize("protocol_version", mark.args)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Stop the servers as part of the test, so that what the oracle found fails it."""
    factory = item.stash.get(_FACTORY, None)
    if factory is None:
        return (yield)
    with factory:
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show in the report of a failed test what smtpd and the filter said."""
    report = yield
    factory = item.stash.get(_FACTORY, None)
    if factory is not None and report.failed:
        for smtpd in factory.started:
            report.sections.append(("smtpd (<) and filter (>)", smtpd.transcript(_MAX_TRACE_LINES)))
            if smtpd.log:
                report.sections.append(("the filter's log", "\n".join(smtpd.log)))
    return report
