"""Reservations in a store: all or none, whoever reserves at the same time."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from greenfilter.filters._ratelimit.ledger import Claim, Ledger
from greenfilter.filters._ratelimit.limit import parse_limits
from greenfilter.filters._store import StoreError, open_store
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from greenfilter.filters._store import Store
    from tests.support.redis import RedisServer

HOUR, DAY = parse_limits("user:recipients=10/hour,12/day")


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    store = open_store(store_url, 5.0)
    yield store
    store.close()


def claims(amount: int, who: str = "alice") -> list[Claim]:
    return [Claim(HOUR, who, amount), Claim(DAY, who, amount)]


def test_a_message_reserves_in_all_of_its_limits_or_in_none(store: Store):
    ledger = Ledger(store)
    ledger.settle("old", [Claim(DAY, "alice", 8)])
    refusal = ledger.reserve("m", claims(6))
    assert refusal is not None
    assert (refusal.claim.limit, refusal.used) == (DAY, 8)
    assert ledger.reserve("m", claims(4)) is None
    assert ledger.reserve("n", claims(1)) is not None
    ledger.settle("m", claims(0))
    assert ledger.reserve("n", claims(4)) is None


def test_the_longest_time_to_wait_is_told(store: Store):
    ledger = Ledger(store)
    ledger.settle("old", claims(10))
    ledger.settle("old", [Claim(DAY, "alice", 2)])
    refusal = ledger.reserve("m", claims(1))
    assert refusal is not None
    assert refusal.claim.limit == DAY
    assert 84_000 < refusal.wait <= 86_400


def test_each_key_has_an_account_of_its_own(store: Store):
    ledger = Ledger(store)
    assert ledger.reserve("m", claims(10, "alice")) is None
    assert ledger.reserve("m", claims(10, "bob")) is None
    assert ledger.reserve("m", claims(10, "ali|ce")) is None


def test_a_forced_reservation_tells_the_refusal_all_the_same(store: Store):
    ledger = Ledger(store)
    assert ledger.reserve("m", claims(11), force=True) is not None
    ledger.settle("m", claims(11))
    assert ledger.delivered(claims(0)[0]) == 11


WORK = """
import sys
from greenfilter.filters._ratelimit.ledger import Claim, Ledger
from greenfilter.filters._ratelimit.limit import parse_limits
from greenfilter.filters._store import open_store
[limit] = parse_limits("user:recipients=30/day")
ledger = Ledger(open_store(sys.argv[1], 30.0))
granted = 0
for number in range(24):
    holder = f"{sys.argv[2]}.{number}"
    claims = [Claim(limit, "alice", 1)]
    if ledger.reserve(holder, claims) is None:
        if number % 4 == 0:
            ledger.settle(holder, [Claim(limit, "alice", 0)])
        else:
            ledger.settle(holder, claims)
            granted += 1
print(granted)
"""


def test_processes_that_reserve_at_the_same_time_do_not_pass_the_limit(store, store_url):
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORK, store_url, str(number)], stdout=subprocess.PIPE
        )
        for number in range(3)
    ]
    delivered = sum(int(worker.communicate(timeout=60)[0]) for worker in workers)
    [limit] = parse_limits("user:recipients=30/day")
    assert delivered == 30
    assert Ledger(store).delivered(Claim(limit, "alice", 0)) == 30


def test_threads_that_reserve_at_the_same_time_do_not_pass_the_limit(store: Store):
    ledger, granted = Ledger(store), []

    def work(name: str) -> None:
        if ledger.reserve(name, claims(1)) is None:
            granted.append(name)

    threads = [threading.Thread(target=work, args=(str(n),)) for n in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(granted) == 10


def test_what_is_delivered_while_the_store_is_away_is_counted_once_when_it_is_back(
    redis_server: RedisServer,
):
    store = open_store(redis_server.url, 0.5)
    ledger = Ledger(store)
    assert ledger.reserve("m", claims(3)) is None
    redis_server.stop()
    with pytest.raises(StoreError):
        ledger.reserve("n", claims(2))
    ledger.settle("m", claims(3))
    ledger.settle("n", claims(2), reserved=False)
    redis_server.start()
    wait_until(lambda: is_paid(ledger), 10.0, "the ledger to be up to date")
    assert ledger.delivered(claims(0)[0]) == 5
    ledger.reserve("o", claims(1))
    assert ledger.delivered(claims(0)[0]) == 5
    store.close()


def is_paid(ledger: Ledger) -> bool:
    try:
        ledger.reserve("x", claims(0))
        return ledger.delivered(claims(0)[0]) > 0
    except StoreError:
        return False


def test_a_delivery_whose_answer_got_lost_is_not_counted_twice(store: Store):
    ledger = Ledger(store)
    ledger.reserve("m", claims(3))
    real = store.update

    def lossy(*arguments, **more):
        real(*arguments, **more)
        raise StoreError("the answer got lost")

    store.update = lossy
    ledger.settle("m", claims(3))
    store.update = real
    ledger.reserve("n", claims(1))
    assert ledger.delivered(claims(0)[0]) == 3
