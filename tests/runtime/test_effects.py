"""When a call that failed in the wrong thread may be made again."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import contextmanager

import pytest

from greenfilter._runtime.effects import had_no_effect, is_of_another_thread

db = sqlite3.connect(":memory:")
done: list[str] = []


class Store:
    value = 0


def first(ctx, sender):
    db.execute("select 1")


def after_reading(ctx, sender):
    name = sender
    if name is None or ctx == sender:
        return None
    return db.execute("select ?", (f"{name}",)).fetchone()


def in_a_helper(ctx, sender):
    return after_reading(ctx, sender)


def wrapped(fn):
    return lambda *args: fn(*args)


def after_a_call(ctx, sender):
    done.append(sender)
    db.execute("select 1")


def after_a_call_in_a_helper(ctx, sender):
    return after_a_call(ctx, sender)


def before_a_helper(ctx, sender):
    len(sender)
    return first(ctx, sender)


def after_an_attribute(ctx, sender):
    Store.value = 1
    db.execute("select 1")


def after_an_item(ctx, sender):
    ctx["x"] = sender
    db.execute("select 1")


def after_a_global(ctx, sender):
    global _last
    _last = sender
    db.execute("select 1")


def after_adding(ctx, sender):
    log = done
    log += [sender]
    db.execute("select 1")


def after_an_import(ctx, sender):
    import this  # noqa: F401

    db.execute("select 1")


@contextmanager
def counted():
    done.append("enter")
    yield


entered = counted()


def after_a_with(ctx, sender):
    with entered:
        db.execute("select 1")


def in_a_loop(ctx, sender):
    done_before = False
    while True:
        if done_before:
            db.execute("select 1")
        done.append(sender)
        done_before = True


def other_error(ctx, sender):
    raise sqlite3.ProgrammingError("You did not supply a value for binding 1.")


def outcome(fn):
    """Call it in another thread, and return whether it may be called again."""
    found = []

    def run():
        try:
            fn({}, "alice@example.net")
        except sqlite3.Error as error:
            found.append(had_no_effect(fn, error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(10)
    return found


@pytest.mark.parametrize("fn", [first, after_reading, in_a_helper, wrapped(first)])
def test_what_was_refused_before_all_else_had_no_effect(fn):
    assert outcome(fn) == [True]


@pytest.mark.parametrize(
    "fn",
    [
        after_a_call,
        after_a_call_in_a_helper,
        before_a_helper,
        after_an_attribute,
        after_an_item,
        after_a_global,
        after_adding,
        after_an_import,
        after_a_with,
        in_a_loop,
        other_error,
    ],
)
def test_what_may_have_changed_something_is_not_called_again(fn):
    assert outcome(fn) == [False]


def test_other_errors_of_sqlite3_are_not_taken_for_one_of_another_thread():
    assert not is_of_another_thread(
        sqlite3.ProgrammingError("Cannot operate on a closed database.")
    )
    assert not is_of_another_thread(ValueError("only be used in that same thread"))
