"""Decides who waits, and learns who need not. May switch greenlets; knows nothing of smtpd."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from .._store import Store, store_key
from .lists import Lists
from .rules import Times, Verdict, domain_of, judge, network_of, steady

Vouching = Callable[[IPv4Address | IPv6Address, str, str], str | None]
"""Gives the domain that vouches (SPF) for a client's address, sender and HELO name, or None."""

_MOST_DOMAINS = 100  # that are learned from one message


@dataclass(frozen=True)
class Client:
    """A client that tries.

    Attributes:
        ip: its address.
        name: its name in reverse DNS if that leads back to it, else None.
        helo: what it calls itself.
    """

    ip: IPv4Address | IPv6Address
    name: str | None
    helo: str


@dataclass(frozen=True)
class Outcome:
    """What becomes of a recipient, and why.

    Attributes:
        passed: it is let in.
        reason: a word for the log.
        wait: seconds that it has to wait still.
        waited: it had to wait once; its delivery speaks for the client's network.
    """

    passed: bool
    reason: str
    wait: float = 0.0
    waited: bool = False


@dataclass(frozen=True)
class Settings:
    """How the filter was set up.

    Attributes:
        times: how long things take.
        prefixes: bits of a client's network in IPv4 and in IPv6.
        learn_after: deliveries after which a network need not wait; 0 for never.
        spf_pass: whoever SPF vouches for need not wait.
        lists: gives the white lists as they are now.
    """

    times: Times = field(default_factory=Times)
    prefixes: tuple[int, int] = (24, 64)
    learn_after: int = 5
    spf_pass: bool = False
    lists: Callable[[], Lists] = Lists


class Greylist:
    """Decides, with what the store knows.

    Args:
        settings: how it was set up.
        store: where entries are kept.
        vouching: asks for SPF.

    Raises:
        StoreError: (every method) the store is away.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        vouching: Vouching,
    ) -> None:
        self._settings = settings
        self._store = store
        self._vouching = vouching

    def decide(self, client: Client, sender: str, recipient: str) -> Outcome:
        """Decide about one recipient, and keep that it was tried."""
        listed = self._listed(client, sender, recipient)
        if listed:
            return Outcome(True, listed)
        network = self._network(client.ip)
        key = store_key("g", network, steady(sender), recipient.lower())
        entry, deliveries = self._store.get_many([key, store_key("n", network)])
        if 0 < self._settings.learn_after <= int(deliveries or 0):
            return Outcome(True, "network-known", waited=True)
        if judge([entry], self._settings.times, time.time())[1].passed:
            return self._try([key])
        vouching = self._vouching(client.ip, sender, client.helo)
        if vouching is None:
            return self._try([key])
        if self._settings.spf_pass:
            return Outcome(True, "spf-pass")
        if sender and self._store.get(store_key("d", vouching)) is not None:
            return Outcome(True, "correspondent")
        pool = store_key("s", vouching, steady(sender), recipient.lower())
        return self._try([key, pool])

    def delivered(self, ip: IPv4Address | IPv6Address) -> None:
        """Count a delivery of a client that had waited."""
        if self._settings.learn_after:
            key = store_key("n", self._network(ip))
            self._store.increase(key, 1, self._settings.times.lifetime)

    def written_to(self, recipients: Iterable[str]) -> None:
        """Learn that our users write to these addresses: their domains may answer at once."""
        domains = sorted({domain_of(address) for address in recipients} - {""})
        if domains:
            keys = [store_key("d", domain) for domain in domains[:_MOST_DOMAINS]]
            texts: list[str | None] = ["1"] * len(keys)
            self._store.update(keys, lambda _: (texts, None), self._settings.times.lifetime)

    def _listed(self, client: Client, sender: str, recipient: str) -> str | None:
        lists = self._settings.lists()
        if lists.clients.contain(client.ip, client.name):
            return "client-listed"
        if sender and sender in lists.senders:
            return "sender-listed"
        return "recipient-listed" if recipient in lists.recipients else None

    def _try(self, keys: list[str]) -> Outcome:
        times, now = self._settings.times, time.time()

        def change(entries: list[str | None]) -> tuple[list[str | None], Verdict]:
            return judge(entries, times, now)

        # Long enough for both kinds of entries: their own times are in them.
        verdict = self._store.update(keys, change, max(times.window, times.lifetime))
        if verdict.passed:
            return Outcome(True, "known" if verdict.known else "waited", waited=True)
        return Outcome(
            False, "first-try" if verdict.wait >= times.delay else "too-early", verdict.wait
        )

    def _network(self, ip: IPv4Address | IPv6Address) -> str:
        return network_of(ip, self._settings.prefixes)
