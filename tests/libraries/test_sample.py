"""A sample of the matrix, of each kind; ``make libraries`` runs all of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.conftest import unavailable

from .row import Verdict
from .rows import ROWS
from .runner import attempt, missing
from .servers import Servers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .runner import Outcome

# More than the pool has threads, so that threads are used again.
_SESSIONS = 12
_SAMPLE = [
    "asyncio_run",
    "redis_asyncio",
    "ctypes_usleep",
    "dkimpy_verify",
    "grpcio",
    "mp_process",
    "os_system",
    "os_waitpid",
    "psycopg2_pool",
    "redis_blpop",
    "requests_session",
    "select_epoll",
    "simple_queue",
    "sqlite3_locked",
    "subprocess_check_output",
    "threading_condition",
    "threading_event",
]


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    """Servers that start when a row needs them, and end with the module."""
    with Servers() as running:
        yield running


def _attempt(name: str, servers: Servers, thread: bool) -> Outcome:
    row = ROWS[name]
    if absent := missing(row, servers):
        unavailable(absent)
    outcome = attempt(row, servers, thread=thread, sessions=_SESSIONS)
    if outcome.problem(row, thread=thread) and outcome.answered == _SESSIONS:
        # Only slow, perhaps by other work on the machine.
        outcome = attempt(row, servers, thread=thread, sessions=_SESSIONS)
    return outcome


@pytest.mark.parametrize("name", _SAMPLE)
def test_a_plain_handler_does_as_the_matrix_says(name, servers):
    outcome = _attempt(name, servers, thread=False)
    assert outcome.problem(ROWS[name], thread=False) == "", "\n".join(outcome.log)


@pytest.mark.parametrize("name", [n for n in _SAMPLE if ROWS[n].thread is not Verdict.FAILS])
def test_a_handler_in_a_thread_does_as_the_matrix_says(name, servers):
    outcome = _attempt(name, servers, thread=True)
    assert outcome.problem(ROWS[name], thread=True) == "", "\n".join(outcome.log)


def test_one_that_blocks_lets_the_loop_answer_between_its_calls(servers):
    outcome = _attempt("ctypes_usleep", servers, thread=False)
    assert outcome.answered == _SESSIONS
    assert outcome.first < outcome.last / 2


def test_every_row_has_a_name_of_its_own_and_a_filter_that_compiles(servers):
    from .rows import KINDS

    assert len(ROWS) == sum(map(len, KINDS.values()))
    for row in ROWS.values():
        for thread in (False, True):
            compile(row.source(_NoServers(), thread=thread), row.name, "exec")


class _NoServers:
    directory = "/nowhere"

    def port(self, name: str) -> int:
        return 1
