"""The accounting of one limit."""

from __future__ import annotations

import math

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from greenfilter.filters._ratelimit.account import STEPS, Account

PERIOD = 3600.0
START = 1_800_000_000.0


def test_what_is_reserved_and_what_was_delivered_share_the_limit():
    account = Account(10, PERIOD)
    assert account.reserve("a", 6, START, START + 60) is None
    account.settle("a", 4, START)
    assert account.reserve("b", 6, START, START + 60) is None
    assert account.reserve("c", 1, START, START + 60) is not None
    assert account.delivered(START) == 4
    assert account.used(START) == 10


def test_a_refused_reservation_changes_nothing():
    account = Account(5, PERIOD)
    account.reserve("a", 3, START, START + 60)
    before = account.dump()
    assert account.reserve("a", 6, START, START + 90) is not None
    assert account.dump() == before


def test_a_reservation_is_absolute_so_that_saying_it_twice_changes_nothing():
    account = Account(5, PERIOD)
    for _ in range(3):
        assert account.reserve("a", 5, START, START + 60) is None
    assert account.used(START) == 5


def test_less_is_granted_although_the_limit_was_lowered_since():
    before = Account(10, PERIOD)
    before.reserve("a", 9, START, START + 60)
    account = Account(5, PERIOD, before.dump())
    assert account.reserve("a", 8, START, START + 60) is None
    assert account.used(START) == 8


def test_a_reservation_of_a_holder_that_died_ends_by_itself():
    account = Account(5, PERIOD)
    account.reserve("dead", 5, START, START + 60)
    assert account.reserve("b", 1, START + 59, START + 200) == 1.0
    assert account.reserve("b", 5, START + 60, START + 200) is None


def test_a_forced_reservation_passes_the_limit_and_is_counted():
    account = Account(1, PERIOD)
    assert account.reserve("a", 3, START, START + 60, force=True) is None
    assert account.used(START) == 3


def test_the_time_to_wait_is_when_there_is_room_and_no_longer_than_the_period():
    account = Account(10, PERIOD)
    account.settle("a", 4, START)
    account.settle("b", 6, START + 1000)
    wait = account.reserve("c", 5, START + 1100, START + 1200)
    assert wait is not None
    assert PERIOD - 100 - PERIOD / STEPS <= wait <= PERIOD - 100
    assert account.reserve("c", 5, START + 1100 + wait - 1, START + 1e6) is not None
    assert account.reserve("c", 5, START + 1100 + wait + 0.01, START + 1e6) is None


def test_more_than_the_limit_is_never_granted():
    assert Account(10, PERIOD).reserve("a", 11, START, START + 60) == math.inf


def test_there_is_no_full_hour_at_which_all_may_start_again():
    account = Account(10, PERIOD)
    full_hour = math.ceil(START / PERIOD) * PERIOD
    account.settle("a", 10, full_hour - 1)
    assert account.reserve("b", 1, full_hour + 1, full_hour + 60) is not None
    assert account.reserve("b", 10, full_hour - 1 + PERIOD, full_hour + PERIOD + 60) is None


def test_an_account_stays_small_and_an_unused_one_leaves_nothing():
    account = Account(10**9, PERIOD)
    for second in range(0, 20_000, 7):
        account.settle("a", 1, START + second)
    text = account.dump()
    assert text is not None
    assert len(text) < 30 * STEPS
    account.delivered(START + 50_000)
    assert account.dump() is None


class Accounting(RuleBasedStateMachine):
    """Holders do what they may do, in any order; a plain list says what must come out."""

    LIMIT = 20

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.text: str | None = None
        self.reserved: dict[str, tuple[int, float]] = {}
        self.delivered: list[tuple[float, int]] = []

    def _account(self) -> Account:
        return Account(self.LIMIT, PERIOD, self.text)

    def _live(self) -> dict[str, int]:
        return {holder: n for holder, (n, until) in self.reserved.items() if until > self.now}

    def _recent(self) -> int:
        """What was delivered in steps that count: each from its begin for a period."""
        width = PERIOD / STEPS
        first = math.floor(self.now / width) - STEPS + 1
        return sum(n for at, n in self.delivered if math.floor(at / width) >= first)

    @rule(holder=st.sampled_from("abcde"), amount=st.integers(1, 25), lease=st.integers(1, 5000))
    def reserve(self, holder: str, amount: int, lease: int) -> None:
        account = self._account()
        others = sum(n for who, n in self._live().items() if who != holder)
        fits = self._recent() + others + amount <= self.LIMIT
        fits = fits or amount <= self._live().get(holder, 0)
        refused = account.reserve(holder, amount, self.now, self.now + lease)
        assert (refused is None) == fits
        self.text = account.dump()
        if fits:
            self.reserved[holder] = (amount, self.now + lease)

    @precondition(lambda self: self._live())
    @rule(data=st.data())
    def deliver(self, data: st.DataObject) -> None:
        holder, held = data.draw(st.sampled_from(sorted(self._live().items())))
        amount = data.draw(st.integers(0, held))  # some recipients were refused
        account = self._account()
        account.settle(holder, amount, self.now)
        self.text = account.dump()
        del self.reserved[holder]
        self.delivered.append((self.now, amount))

    @rule(holder=st.sampled_from("abcde"))
    def disconnect(self, holder: str) -> None:
        account = self._account()
        account.settle(holder, 0, self.now)
        self.text = account.dump()
        self.reserved.pop(holder, None)

    @rule(seconds=st.sampled_from([0.5, 1, 59, 60, 61, 600, 3599, 3600]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def the_count_is_what_was_delivered(self) -> None:
        assert self._account().delivered(self.now) == self._recent()
        assert self._account().used(self.now) == self._recent() + sum(self._live().values())

    @invariant()
    def the_limit_is_never_passed(self) -> None:
        assert self._account().used(self.now) <= self.LIMIT

    @invariant()
    def no_period_saw_more_than_the_limit(self) -> None:
        last = PERIOD - PERIOD / STEPS  # the step that begins a period may leave it a step early
        for begin, _ in self.delivered:
            within = [n for at, n in self.delivered if begin <= at < begin + last]
            assert sum(within) <= self.LIMIT


TestAccounting = Accounting.TestCase
TestAccounting.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)
