"""The store: the same with SQLite and Redis, among processes, and when it is away."""

from __future__ import annotations

import logging
import sqlite3
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from greenfilter.errors import UsageError
from greenfilter.filters._store import StoreError, open_store, store_key, without_secret
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from greenfilter.filters._store import Store, Values
    from tests.support.disk import SmallDisk
    from tests.support.redis import RedisServer

TIMEOUT = 1.0


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    store = open_store(store_url, TIMEOUT)
    yield store
    store.close()


def answers(store: Store) -> bool:
    try:
        store.get("a")
    except StoreError:
        return False
    return True


def test_a_key_holds_a_text_until_it_is_removed(store: Store):
    assert store.get("a") is None
    store.set("a", "the | text \u2028 ü", 60)
    assert store.get("a") == "the | text \u2028 ü"
    store.delete("a")
    assert store.get("a") is None


def test_a_key_expires(store: Store):
    store.set("a", "text", 0.05)
    store.set("b", "text", 60)
    wait_until(lambda: store.get("a") is None, 5.0, "the entry to expire")
    assert store.get("b") == "text"
    assert store.add("a", "again", 60)
    assert store.get("a") == "again"


def test_only_the_first_adds(store: Store):
    assert store.add("a", "first", 60)
    assert not store.add("a", "second", 60)
    assert store.get("a") == "first"


def test_numbers_are_added_up(store: Store):
    assert [store.increase("n", amount, 60) for amount in (2, 3, -1)] == [2, 5, 4]


def test_several_keys_change_at_once_or_not_at_all(store: Store):
    store.set("a", "1", 60)

    def swap(values: Values) -> tuple[Values, str]:
        return [None, values[0], values[2]], "done"

    assert store.update(["a", "b", "c"], swap, 60) == "done"
    assert [store.get(key) for key in "abc"] == [None, "1", None]

    def fail(values: Values) -> tuple[Values, None]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.update(["b"], fail, 60)
    assert store.get("b") == "1"
    store.set("b", "2", 60)
    assert store.get("b") == "2"


def test_threads_lose_no_change(store: Store):
    def work() -> None:
        for _ in range(25):
            store.increase("n", 1, 60)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.get("n") == "100"


WORK = """
import sys
from greenfilter.filters._store import open_store
store = open_store(sys.argv[1], 20.0)
for _ in range(50):
    store.increase("n", 1, 60)
"""


def test_processes_lose_no_change(store: Store, store_url: str):
    workers = [subprocess.Popen([sys.executable, "-c", WORK, store_url]) for _ in range(3)]
    assert [worker.wait(60) for worker in workers] == [0, 0, 0]
    assert store.get("n") == "150"


PATCHED = """
import sys
from gevent import monkey
from greenfilter._waiting import patch
patch()
import gevent, threading, time
from greenfilter.filters._store import open_store
store = open_store(sys.argv[1], 20.0)
ticks = []
def tick():
    while True:
        ticks.append(time.monotonic())
        gevent.sleep(0.01)
gevent.spawn(tick)
def work():
    for _ in range(20):
        store.increase("n", 1, 60)
natives = [monkey.get_original("_thread", "start_new_thread")]
done = threading.Event()
def native():
    work()
    done.set()
natives[0](native, ())
gevent.joinall([gevent.spawn(work) for _ in range(20)], raise_error=True)
assert done.wait(20)
assert store.get("n") == "420", store.get("n")
print(max(b - a for a, b in zip(ticks, ticks[1:])))
"""


def test_the_loop_goes_on_while_greenlets_and_threads_ask(store_url: str):
    done = subprocess.run(
        [sys.executable, "-c", PATCHED, store_url], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1.0


def test_a_redis_that_is_gone_is_an_error_at_once_and_is_used_again_when_it_is_back(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
):
    store = open_store(redis_server.url, TIMEOUT)
    store.set("a", "1", 60)
    redis_server.stop()
    for _ in range(20):
        assert not answers(store)
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert f"store {redis_server.url} is away: " in record.getMessage()
    redis_server.start()
    wait_until(lambda: answers(store), 10.0, "the store to be used again")
    assert store.get("a") == "1"
    assert "is back after" in caplog.records[-1].getMessage()
    store.close()


def test_a_silent_redis_holds_up_one_caller_for_the_timeout_and_the_others_not_at_all(
    redis_server: RedisServer,
):
    store = open_store(redis_server.url, TIMEOUT)
    store.set("a", "1", 60)
    redis_server.pause()
    begin = time.monotonic()
    assert not answers(store)
    assert TIMEOUT * 0.9 < time.monotonic() - begin < TIMEOUT + 2
    begin = time.monotonic()
    for _ in range(50):
        assert not answers(store)
    assert time.monotonic() - begin < TIMEOUT + 1  # at most one of them asked
    redis_server.resume()
    wait_until(lambda: answers(store), 10.0, "the store to be used again")
    store.close()


def test_a_redis_that_was_restarted_is_no_failure(redis_server: RedisServer):
    store = open_store(redis_server.url, TIMEOUT)
    store.set("a", "1", 60)
    redis_server.stop()
    redis_server.start()
    assert store.get("a") == "1"
    assert store.increase("n", 1, 60) == 1
    store.close()


def test_a_locked_database_is_an_error_after_the_timeout(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    path = tmp_path / "store.sqlite"
    store = open_store(f"sqlite:{path}", 0.2)
    store.set("a", "1", 60)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("begin immediate")
    with pytest.raises(StoreError, match=r"store sqlite:.*: database is locked"):
        store.set("a", "2", 60)
    assert "database is locked" in caplog.text
    other.execute("rollback")
    other.close()
    wait_until(lambda: answers(store), 10.0, "the store to be used again")
    assert store.get("a") == "1"
    store.set("a", "2", 60)
    assert store.get("a") == "2"
    store.close()


def test_a_full_disk_is_an_error_and_loses_nothing_that_was_kept(small_disk: SmallDisk):
    store = open_store(f"sqlite:{small_disk.path}/store.sqlite", TIMEOUT)
    store.set("a", "1", 60)
    small_disk.fill()

    def write_much() -> None:
        for number in range(1000):
            store.set(f"key {number}", "x" * 1000, 60)

    with pytest.raises(StoreError, match=r"full|disk I/O"):
        write_much()
    small_disk.empty()
    wait_until(lambda: answers(store), 10.0, "the store to be used again")
    assert store.get("a") == "1"
    store.set("b", "2", 60)
    store.close()


def test_a_file_that_is_no_database_is_an_error_and_is_left_alone(tmp_path: Path):
    path = tmp_path / "store.sqlite"
    path.write_bytes(b"this is not a database" * 100)
    store = open_store(f"sqlite:{path}", TIMEOUT)
    with pytest.raises(StoreError, match="not a database"):
        store.get("a")
    assert path.read_bytes() == b"this is not a database" * 100
    store.close()


def test_what_has_expired_leaves_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("greenfilter.filters._store_sqlite._CLEAN_SECONDS", 0.0)
    store = open_store(f"sqlite:{tmp_path}/store.sqlite", TIMEOUT)
    for number in range(50):
        store.set(str(number), "1", 0.01)
    db = sqlite3.connect(tmp_path / "store.sqlite")

    def only_the_last_is_left() -> bool:
        store.set("last", "1", 60)
        return db.execute("select key from entries").fetchall() == [("last",)]

    wait_until(only_the_last_is_left, 5.0, "expired entries to go")
    db.close()
    store.close()


def test_the_file_is_its_owners_alone(tmp_path: Path):
    store = open_store(f"sqlite:{tmp_path}/store.sqlite", TIMEOUT)
    store.set("a", "1", 60)
    assert (tmp_path / "store.sqlite").stat().st_mode & 0o777 == 0o600
    store.close()


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("", "no store"),
        ("memcached://localhost", "no store"),
        ("sqlite:", "names no file"),
        ("sqlite:/nonexistent/directory/x", "there is no directory /nonexistent/directory"),
        ("sqlite:/tmp", "is a directory"),
        ("redis://user:secret@127.0.0.1:port/0", "redis://127.0.0.1:port/0: "),
        ("redis://user:secret@h/x", "redis://h/x: the database is not a number"),
        ("rediss://user:secret@h/1/2", "rediss://h/1/2: the database is not a number"),
        ("redis://user:secret@h/-1", "redis://h/-1: the database is not a number"),
    ],
)
def test_a_wrong_url_is_told_in_one_line_without_its_password(url: str, text: str):
    with pytest.raises(UsageError) as raised:
        open_store(url, TIMEOUT)
    assert text in str(raised.value)
    assert "\n" not in str(raised.value)
    assert "secret" not in str(raised.value)


def test_the_password_is_left_out_of_what_is_shown():
    assert without_secret("redis://me:secret@db.example:6380/2") == "redis://db.example:6380/2"
    assert "secret" not in without_secret("redis://me:secret@[broken/2")


def test_keys_are_told_apart_and_safe_whatever_a_client_sends():
    parts = [("a|b", "c"), ("a", "b|c"), ("a\\p", "b"), ("a|", "b"), ("a", "\udcff"), ("a", "ÿ")]
    keys = {store_key("x", *each) for each in parts}
    assert len(keys) == len(parts)
    hostile = store_key("x", "a\r\nb\0" + "long" * 1000 + "\udc80")
    assert hostile.isprintable()
    assert len(hostile) < 100
    hostile.encode()


def test_a_key_of_a_hostile_address_can_be_kept(store: Store):
    key = store_key("x", "\udcff\udc00 ' \" ; drop table entries")
    store.set(key, "1", 60)
    assert store.get(key) == "1"
