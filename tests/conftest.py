"""Fixtures that start real servers, and the check that nothing of them is left at the end."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

from tests.support import smtpd as smtpd_support
from tests.support.dns import DnsServer
from tests.support.sink import Sink
from tests.support.smtpd import Smtpd
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from typing import NoReturn

# An example takes as long as a busy machine lets it.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.register_profile("brief", deadline=None, max_examples=20)
hypothesis.settings.load_profile("patient")

REQUIRE_SERVERS = "GREENFILTER_REQUIRE_SERVERS"


def unavailable(reason: str) -> NoReturn:
    """Skip a test for what is not installed; fail instead where all is required."""
    if os.environ.get(REQUIRE_SERVERS) == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def require_smtpd() -> None:
    """Skip where the real smtpd cannot run; fail instead where it is required."""
    reason = smtpd_support.missing()
    if reason is not None:
        unavailable(reason)


@pytest.fixture
def sink() -> Iterator[Sink]:
    """A running receiving server."""
    with Sink() as server:
        yield server


@pytest.fixture
def dns_server() -> Iterator[DnsServer]:
    """A running DNS server without names; set its ``zones``, ``delay`` and ``failure``."""
    with DnsServer() as server:
        yield server


@pytest.fixture
def smtpd(require_smtpd: None) -> Iterator[Callable[..., Smtpd]]:
    """Start an smtpd with the given arguments of :class:`Smtpd`; it is stopped after the test."""
    with ExitStack() as stack:

        def start(*args: Any, **kwargs: Any) -> Smtpd:
            return stack.enter_context(Smtpd(*args, **kwargs))

        yield start


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what every running smtpd logged under a test that failed."""
    report = yield
    if report.failed:
        report.sections += [("smtpd's log", server.last_log()) for server in Smtpd.running]
    return report


@pytest.fixture(scope="session", autouse=True)
def no_child_is_left() -> Iterator[None]:
    """Fail if the tests leave a process of theirs behind."""
    before = children()
    yield

    def gone() -> bool:
        return children() <= before

    try:
        wait_until(gone, 2.0, "children to end")
    except TimeoutError:
        pytest.fail(f"processes are left: {[_describe(pid) for pid in children() - before]}")


def children() -> set[int]:
    """Return the descendants of this process, dead ones that nobody waited for too."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The second field, the command, may hold spaces and brackets.
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found: set[int] = set()
    level = {os.getpid()}
    while level:
        level = {pid for pid, parent in parents.items() if parent in level}
        found |= level
    return found


def _describe(pid: int) -> str:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        command = ""
    return f"{pid} {command or '(ended, not waited for)'}"
