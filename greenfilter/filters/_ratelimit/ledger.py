"""Many accounts in a store: a message reserves in all of its limits, or in none."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from .._store import Change, Result, Store, StoreError, Values, store_key
from .account import Account
from .limit import Limit

log = logging.getLogger("greenfilter.ratelimit")

LEASE_SECONDS = 900.0
"""How long a reservation lasts that nobody ends: its worker was killed."""

_MOST_OWED = 10_000


@dataclass(frozen=True)
class Claim:
    """What a message wants of one limit.

    Attributes:
        limit: the limit.
        who: the network, user or sender.
        amount: how much in all.
    """

    limit: Limit
    who: str
    amount: int

    @property
    def key(self) -> str:
        """Where the account is kept."""
        limit = self.limit
        return store_key("r", limit.scope, self.who, limit.kind, f"{limit.period:.0f}")

    def account(self, text: str | None) -> Account:
        """Return the account that is kept as ``text``."""
        return Account(self.limit.amount, self.limit.period, text)


@dataclass(frozen=True)
class Refusal:
    """Why there is no room.

    Attributes:
        claim: that found none.
        used: what was delivered and what others have reserved.
        wait: seconds after which there is room; infinite where there never is.
    """

    claim: Claim
    used: int
    wait: float


@dataclass(frozen=True)
class _Owed:
    """What was delivered while the store was away."""

    at: float
    holder: str
    claims: list[Claim]
    reserved: bool

    def __str__(self) -> str:
        return ", ".join(sorted({claim.who for claim in self.claims}))


class Ledger:
    """The accounts. Methods may switch greenlets.

    Args:
        store: where they are kept.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._owed: deque[_Owed] = deque(maxlen=_MOST_OWED)

    def reserve(
        self, holder: str, claims: Sequence[Claim], *, force: bool = False
    ) -> Refusal | None:
        """Reserve these amounts for ``holder``, absolute ones; less is always granted.

        Args:
            holder: the session and its message.
            claims: one for each limit.
            force: grant it in any case.

        Returns:
            None when all were granted; else the one to wait longest for, and nothing has changed
            unless it was forced.

        Raises:
            StoreError: the store is away.
        """
        now = time.time()

        def change(values: Values) -> tuple[Values, Refusal | None]:
            accounts = [claim.account(text) for claim, text in zip(claims, values, strict=True)]
            refusals = []
            for claim, account in zip(claims, accounts, strict=True):
                others = account.used(now) - account.reserved(holder)
                until = now + LEASE_SECONDS
                wait = account.reserve(holder, claim.amount, now, until)
                if wait is not None:
                    refusals.append(Refusal(claim, others, wait))
                    account.reserve(holder, claim.amount, now, until, force=True)
            refusal = max(refusals, key=lambda each: each.wait, default=None)
            granted = refusal is None or force
            return [account.dump() for account in accounts] if granted else values, refusal

        refusal = self._update(claims, change)
        self._pay()
        return refusal

    def settle(self, holder: str, claims: Sequence[Claim], *, reserved: bool = True) -> None:
        """End the holder's reservations: these amounts, which may be nothing, were delivered.

        While the store is away it is kept in mind, and done as soon as it is back.

        Args:
            holder: the session and its message.
            claims: one for each limit.
            reserved: the holder has reserved.
        """
        owed = _Owed(time.time(), holder, list(claims), reserved)
        try:
            self._settle(owed, again=False)
        except StoreError:
            self._owed.append(owed)

    def delivered(self, claim: Claim) -> int:
        """Return what was delivered within the period until now.

        Raises:
            StoreError: the store is away.
        """
        return claim.account(self._store.get(claim.key)).delivered(time.time())

    def _settle(self, owed: _Owed, *, again: bool) -> None:
        # A change that was made although its answer got lost is not made twice: it has ended the
        # reservations that were there before.
        before = [True] * len(owed.claims) if again and owed.reserved else None

        def change(values: Values) -> tuple[Values, None]:
            nonlocal before
            accounts = [
                claim.account(text) for claim, text in zip(owed.claims, values, strict=True)
            ]
            there = [account.reserved(owed.holder) > 0 for account in accounts]
            before = before or there
            for claim, account, is_, was in zip(owed.claims, accounts, there, before, strict=True):
                if is_ or not was:
                    account.settle(owed.holder, claim.amount, owed.at)
            return [account.dump() for account in accounts], None

        self._update(owed.claims, change)

    def _pay(self) -> None:
        """Settle what is owed."""
        while self._owed:
            owed = self._owed.popleft()
            if time.time() - owed.at > LEASE_SECONDS:
                log.warning("the store was away for too long: a message of %s is not counted", owed)
                continue  # its reservations have ended, so nobody knows what was done
            try:
                self._settle(owed, again=True)
            except StoreError:
                self._owed.appendleft(owed)
                return

    def _update(self, claims: Sequence[Claim], change: Change[Result]) -> Result:
        lifetime = max(claim.limit.period for claim in claims) + LEASE_SECONDS
        return self._store.update([claim.key for claim in claims], change, lifetime)
