"""One limit of one key: what was delivered, and what is reserved. No store, no clock, no I/O.

What was delivered is counted in steps of a sixtieth of the period, and a step counts until the
period has passed since it began. So an account stays small whatever the limit, there is no full
hour at which everybody may start again, and nobody waits longer than the period.

A reservation is absolute: a holder says how much it has in all. To say so twice changes nothing,
and less is always granted. One that is neither delivered nor given back, since its worker was
killed, ends by itself.
"""

from __future__ import annotations

import json
from math import floor, inf

STEPS = 60


class Account:
    """The state of one limit for one key, such as the recipients of a user in an hour.

    Args:
        limit: how much may be delivered and reserved within a period.
        period: seconds.
        text: as :meth:`dump` gave it, or None for a new account.
    """

    def __init__(self, limit: int, period: float, text: str | None = None) -> None:
        self.limit = limit
        self.period = period
        self._step = period / STEPS
        state = json.loads(text) if text else {}
        self._delivered: dict[int, int] = {int(k): n for k, n in state.get("delivered", {}).items()}
        self._reserved: dict[str, tuple[int, float]] = {
            holder: (amount, until) for holder, (amount, until) in state.get("reserved", {}).items()
        }

    def dump(self) -> str | None:
        """Return the state as JSON, or None when there is nothing to keep."""
        state = {"delivered": self._delivered, "reserved": self._reserved}
        return json.dumps(state, separators=(",", ":")) if any(state.values()) else None

    def delivered(self, now: float) -> int:
        """Return what was delivered within the period before ``now`` (seconds since the epoch)."""
        self._forget(now)
        return sum(self._delivered.values())

    def used(self, now: float) -> int:
        """Return what was delivered and what is reserved."""
        return self.delivered(now) + sum(amount for amount, _ in self._reserved.values())

    def reserved(self, holder: str) -> int:
        """Return what one holder has reserved."""
        return self._reserved.get(holder, (0, 0.0))[0]

    def reserve(
        self, holder: str, amount: int, now: float, until: float, *, force: bool = False
    ) -> float | None:
        """Make ``amount`` what ``holder`` has reserved.

        Args:
            holder: who reserves, such as a session and its message.
            amount: how much in all; what the holder had before is part of it.
            now: seconds since the epoch.
            until: when the reservation ends by itself.
            force: grant it in any case.

        Returns:
            None when it is granted. Else nothing has changed, and it is the time in seconds after
            which there is room; infinite where the limit is less than ``amount``.
        """
        self._forget(now)
        before = self.reserved(holder)
        excess = self.used(now) - before + amount - self.limit
        if excess > 0 and amount > before and not force:
            return self._wait(holder, excess, now)
        if amount:
            self._reserved[holder] = (amount, until)
        else:
            self._reserved.pop(holder, None)
        return None

    def settle(self, holder: str, amount: int, now: float) -> None:
        """End a reservation: ``amount`` of it, which may be nothing, was delivered."""
        self._forget(now)
        self._reserved.pop(holder, None)
        if amount:
            step = floor(now / self._step)
            self._delivered[step] = self._delivered.get(step, 0) + amount

    def _forget(self, now: float) -> None:
        first = floor(now / self._step) - STEPS + 1
        self._delivered = {step: n for step, n in self._delivered.items() if step >= first}
        self._reserved = {holder: r for holder, r in self._reserved.items() if r[1] > now}

    def _wait(self, holder: str, excess: int, now: float) -> float:
        """Return the seconds after which ``excess`` of what others have is free again."""
        ends = [((step + STEPS) * self._step, n) for step, n in self._delivered.items()]
        ends += [(until, n) for who, (n, until) in self._reserved.items() if who != holder]
        for end, amount in sorted(ends):
            excess -= amount
            if excess <= 0:
                return max(0.0, end - now)
        return inf
