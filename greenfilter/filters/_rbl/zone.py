"""One list: how much it counts, how it is asked, and whether it may be believed."""

from __future__ import annotations

import ipaddress
import logging
import re
import time
from collections.abc import Sequence

import gevent

from .._dns import Answer, DnsError, Resolver
from .._options import Server
from .options import LISTED, ZoneOptions
from .subjects import DOMAIN, Subject, tests

_TTL = (60.0, 3600.0)  # seconds that an answer is kept at least and at most, whatever DNS says
_FAILURES = 3  # in a row, after which a list is left alone
_PAUSE = 60.0  # seconds, also between two log lines about the same list
_TEST_EVERY = 3600.0  # seconds
# What lists answer those who may not ask, or ask too often: Spamhaus, dnswl.org, DBL, URIBL, SURBL.
_ERRORS = [ipaddress.ip_network("127.255.255.0/24")]
_ERRORS += [ipaddress.ip_network(code) for code in ("127.0.0.255", "127.0.1.255", "127.0.0.1")]
_KEY = re.compile(r".{20,}|(?=.*\d)(?=.*[a-z]).{10,}")  # a label that may be a customer's secret

log = logging.getLogger("greenfilter.rbl")


class Zone(Resolver):
    """A list.

    Args:
        options: how it is asked.
        domains: it has names of domains, not addresses.
        servers: see :class:`Resolver`.
        timeout: seconds for a question, unless ``options`` say otherwise.

    Attributes:
        name: in DNS.
        weight: what it counts.
        shown: name that clients and the log are told.
        failures: in a row.
        paused_until: time (monotonic, as all here) until which it is left alone for them.
        dead_until: time until which it is left alone for having everything.
        tests: those of its test entries, running or done, by family.
        test_at: when the next one is due, by family.
    """

    def __init__(
        self, options: ZoneOptions, domains: bool, servers: Sequence[Server], timeout: float
    ) -> None:
        super().__init__(servers, options.timeout or timeout, _TTL)
        self.name = options.name
        self.weight = options.weight
        self.shown = options.shown or without_key(options.name)
        self._domains = domains
        self.failures = 0
        self.paused_until = 0.0
        self._quiet_until = 0.0
        self.dead_until = 0.0
        self.tests: dict[int, gevent.Greenlet[..., None]] = {}
        self.test_at: dict[int, float] = {}

    def takes(self, subject: Subject) -> bool:
        """Return whether it is the kind of list that may have this."""
        return (subject.family == DOMAIN) == self._domains

    def codes(self, subject: Subject) -> tuple[str, ...]:
        """Ask for the return codes; none: not listed, or nobody answers. May switch greenlets."""
        if not self._may_answer(subject):
            return ()
        try:
            answer = self.answer(self._entry(subject), "A")
        except DnsError:
            return ()
        return tuple(sorted(record.to_text() for record in answer.records))

    def is_waited_for(self, subject: Subject) -> bool:
        """Return whether :meth:`codes` would ask somebody."""
        return self._may_answer(subject) and not self.knows(self._entry(subject), "A")

    def start_test(self, family: int) -> None:
        """Ask for the test entries, when it is time to. Never switches greenlets."""
        now = time.monotonic()
        if now >= max(self.test_at.get(family, 0.0), self.paused_until):
            self.test_at[family] = now + _TEST_EVERY
            self.tests[family] = gevent.spawn(self._test, family)

    def is_believed(self, family: int) -> bool:
        """Return whether what it lists may be believed. May switch greenlets."""
        if (test := self.tests.get(family)) is not None:
            test.join()
        return time.monotonic() >= self.dead_until

    def ask(self, name: str, type: str, seconds: float) -> Answer:
        """Ask DNS, and keep the count of failures in a row."""
        try:
            answer = super().ask(name, type, seconds)
            for code in (ipaddress.ip_address(record.to_text()) for record in answer.records):
                if code not in LISTED or any(code in network for network in _ERRORS):
                    raise DnsError(f"answered {code}, which is an error, not a listing")
        except DnsError as error:
            self._failed(str(error))
            raise
        self.failures, self.paused_until = 0, 0.0
        return answer

    def _may_answer(self, subject: Subject) -> bool:
        now = time.monotonic()
        if now < self.dead_until or len(self._entry(subject)) > 253:  # RFC 1035, 2.3.4
            return False
        return now >= self.paused_until or self.knows(self._entry(subject), "A")

    def _entry(self, subject: Subject) -> str:
        return f"{subject.entry}.{self.name}"

    def _failed(self, reason: str) -> None:
        """Count a failure; log it unless the last minute saw one."""
        now = time.monotonic()
        self.failures += 1
        if self.failures >= _FAILURES:
            self.paused_until = now + _PAUSE
        if now >= self._quiet_until:
            self._quiet_until = now + _PAUSE
            reason = re.sub(re.escape(self.name), lambda _: self.shown, reason, flags=re.I)
            log.warning("list %s: %s; clients pass", self.shown, reason)

    def _test(self, family: int) -> None:
        """Check whether the list is alive by its test entries (RFC 5782, 5)."""
        wrong, right = tests(family)
        asked = [gevent.spawn(self.codes, subject) for subject in (wrong, right)]
        gevent.joinall(asked)
        if asked[0].value:
            self.dead_until = self.test_at[family]
            text = "list %s has %s, so anything; it is left alone for %g minutes"
            log.warning(text, self.shown, wrong.shown, _TEST_EVERY / 60)
        elif any(self._has_failed(subject) for subject in (wrong, right)):
            self.test_at[family] = time.monotonic() + _PAUSE
        elif not asked[1].value and family != 6:  # many have nothing for IPv6
            text = "list %s has no test entry %s: it may be misspelt, or have ended"
            log.warning(text, self.shown, right.shown)

    def _has_failed(self, subject: Subject) -> bool:
        if not self._may_answer(subject):
            return True
        try:
            self.answer(self._entry(subject), "A")
        except DnsError:
            return True
        return False


def without_key(name: str) -> str:
    """Return a list's name without a customer's key: KEY.zen.dq.example.org, KEY.example.org."""
    labels = name.split(".")
    keys = [at for at, label in enumerate(labels[:-2]) if _KEY.fullmatch(label)]
    first = max([*keys, 0 if len(labels) > 3 else -1]) + 1
    return ".".join(labels[first:])
