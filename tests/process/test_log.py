"""Log records: one line each, with the session's id."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest

from greenfilter import HandlerTimeout
from greenfilter._process.log import Once, find_origin, logger, session_logger, set_up


@pytest.fixture
def written(capsys):
    """Gives what has been written to standard error; the log is put back after the test."""
    root = logging.getLogger()
    before = root.handlers[:], root.level, logging.raiseExceptions
    yield lambda: capsys.readouterr().err
    root.handlers[:], root.level, logging.raiseExceptions = before


def test_a_record_is_a_line_with_its_level(written):
    set_up()
    logger.warning("%s and %s", 1, 2)
    assert written() == "warning: 1 and 2\n"


def test_the_record_of_a_session_carries_its_id(written):
    set_up()
    session_logger("7641df9771b4ed00").info("hello")
    assert written() == "info: 7641df9771b4ed00: hello\n"


def test_what_comes_again_and_again_is_logged_once_for_each_kind(written):
    set_up()
    once = Once(most=2)
    for kind in ("a", "a", "b", "b", "c"):
        once.warn(kind, "100 %% of %s", kind)
    once.error("d", "above the limit of kinds")
    assert written() == "warning: 100 % of a (logged once)\nwarning: 100 % of b (logged once)\n"


def test_the_first_of_a_kind_may_name_its_session(written):
    set_up()
    Once().error("late", "100 % late", session="7641df9771b4ed00")
    assert written() == "error: 7641df9771b4ed00: 100 % late (logged once)\n"


@pytest.mark.parametrize("text", ["a\nb", "a\r\nb", "a\rb", "a\u2028b"])
def test_line_breaks_become_spaces(text, written):
    set_up()
    logger.error("%s", text)
    assert written() == "error: a b\n"


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_traceback_is_on_the_same_line(log_format, written):
    set_up(log_format=log_format)
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logger.exception("failed")
    lines = written().splitlines()
    assert len(lines) == 1
    assert "failed" in lines[0]
    assert "Traceback" in lines[0]
    assert "ValueError: two" in lines[0]


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_records_below_the_level_are_left_out(level, shown, written):
    set_up(level)
    for name in ("debug", "info", "warning", "error"):
        getattr(logger, name)("text")
    assert written().splitlines() == [f"{name}: text" for name in shown]


def test_json_has_one_object_a_line(written):
    set_up(log_format="json")
    session_logger("7641df9771b4ed00").warning('a "b"\nc \udce9')
    logging.getLogger("other").info("text")
    first, second = (json.loads(line) for line in written().splitlines())
    assert first.pop("time") > 1e9
    assert first == {
        "level": "warning",
        "logger": "greenfilter",
        "session": "7641df9771b4ed00",
        "text": 'a "b" c \udce9',
    }
    assert second["logger"] == "other"
    assert "session" not in second


def test_set_up_again_writes_no_record_twice(written):
    set_up()
    set_up("warning")
    logger.warning("once")
    assert written() == "warning: once\n"


def test_a_record_that_cannot_be_formatted_stops_nothing(written):
    set_up()
    logger.warning("%d", "text")
    logger.warning("next")
    assert written() == "warning: next\n"


class Broken(logging.Handler):
    """One of the author's."""

    def emit(self, record):
        raise OSError("the log server is gone")


def test_a_handler_of_the_authors_that_raises_stops_nothing(written):
    set_up()
    logging.getLogger().addHandler(Broken())
    session_logger("7641df9771b4ed00").error("text")
    assert written() == "error: 7641df9771b4ed00: text\n"


def test_a_deadline_that_passes_in_a_handler_of_the_authors_is_not_lost(written):
    class Slow(logging.Handler):
        def emit(self, record):
            raise HandlerTimeout("late")

    set_up()
    logging.getLogger().addHandler(Slow())
    with pytest.raises(HandlerTimeout):
        logger.error("text")


THREADS_THAT_LOG = """
import gevent.monkey
from greenfilter._process.log import logger, set_up
set_up()
gevent.monkey.patch_all()
import logging
from gevent.threadpool import ThreadPool
held, done = [gevent.monkey.get_original("threading", "Event")() for _ in range(2)]
locks = [logging._lock, *(handler.lock for handler in logging.getLogger().handlers)]
def hold():
    for lock in locks:
        lock.acquire()
    held.set()
    done.wait(10)
    for lock in reversed(locks):
        lock.release()
thread = ThreadPool(1).spawn(hold)
held.wait(10)
gevent.get_hub().loop.run_callback(logger.error, "from the hub")
gevent.sleep(0)
gevent.sleep(0)
done.set()
thread.get(10)
"""


def test_the_hub_can_log_while_a_thread_has_the_locks_of_logging():
    done = subprocess.run(
        [sys.executable, "-c", THREADS_THAT_LOG], capture_output=True, text=True, timeout=30
    )
    assert done.stderr == "error: from the hub\n"


def raise_deep():
    raise KeyError("deep")


def test_origin_is_the_innermost_line_of_the_given_file():
    with pytest.raises(ValueError, match="invalid literal") as caught:
        json.loads("{}", object_hook=lambda found: int("x"))
    here = caught.traceback[-1].lineno + 1
    assert find_origin(caught.value, __file__) == f"{__file__}:{here}"
    assert find_origin(caught.value, None) == f"{__file__}:{here}"
    assert find_origin(caught.value, json.__file__).startswith(json.__file__)


def test_origin_of_an_error_that_was_never_raised_is_unknown():
    assert find_origin(ValueError(), __file__) == "?"
