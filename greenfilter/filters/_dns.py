"""DNS for stock filters: blocking look-ups, each question asked once, its answer kept for its TTL.

No such name and no such record are answers like others. That a server fails, refuses or is silent
is a :class:`DnsError`, and never looks like "nothing there".
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import TYPE_CHECKING, NamedTuple

import dns.exception
import dns.name
import dns.nameserver
import dns.rdatatype
import dns.resolver
from cachetools import TLRUCache

from ..errors import GreenfilterError, UsageError

if TYPE_CHECKING:
    from dns.message import Message
    from dns.rdata import Rdata

    from ._options import Server

_CACHE_SIZE = 100_000  # answers
_FAILURE_SECONDS = 10.0  # that a question is not asked again which had no answer (RFC 9520, 3.2)
_TTL = (60.0, 3600.0)
_EDNS_BYTES = 1232  # so that a DKIM key needs no TCP, and no router has to cut the answer


class DnsError(GreenfilterError):
    """A question that nobody answered: it is not known whether there is such a name."""


class DnsLimit(DnsError):
    """A message that has asked as many questions, or for as long, as it may."""


class Answer(NamedTuple):
    """What DNS says about a name, for ``ttl`` seconds."""

    records: tuple[Rdata, ...]
    """Those of the type that was asked for, also behind a CNAME; none is an answer too."""
    exists: bool
    """False if there is no such name, with records of any type (NXDOMAIN)."""
    ttl: float


class _Failed(NamedTuple):
    reason: str
    ttl: float


class Questions(ABC):
    """Something that may be asked: a :class:`Resolver`, or what one message may ask of it.

    Every method may switch greenlets, and may be called from the loop as well as from threads.

    Raises:
        DnsError: (every method) there is no answer within the time limit.
    """

    @abstractmethod
    def answer(self, name: str, type: str) -> Answer:
        """Ask for the records of one type, such as ``"MX"``.

        A text that can be no name in DNS is answered as one that does not exist.
        """

    def query(self, name: str, type: str) -> list[Rdata]:
        """Return the records of one type; none if there are none or the name does not exist."""
        return list(self.answer(name, type).records)

    def texts(self, name: str) -> list[bytes]:
        """Return the TXT records, the strings of each put together (RFC 7208, 3.3)."""
        return [b"".join(record.strings) for record in self.query(name, "TXT")]  # type: ignore[attr-defined]


class Resolver(Questions):
    """Asks DNS servers, and keeps their answers.

    Args:
        servers: to ask, the next one if one does not answer; by default those of resolv.conf.
        timeout: seconds that a look-up may take.
        ttl: fewest and most seconds that an answer is kept, whatever it says itself.

    Raises:
        UsageError: there is no ``servers``, and no resolv.conf.
    """

    def __init__(
        self,
        servers: Sequence[Server] = (),
        timeout: float = 5.0,
        ttl: tuple[float, float] = _TTL,
    ) -> None:
        try:
            self._resolver = dns.resolver.Resolver(configure=not servers)
        except dns.exception.DNSException as error:
            raise UsageError(f"{error}: use --resolver") from error
        if servers:
            self._resolver.nameservers = [dns.nameserver.Do53Nameserver(*each) for each in servers]
        self._resolver.use_edns(0, 0, _EDNS_BYTES)
        self._resolver.timeout = timeout / 2  # then it asks again, or the next server
        self.timeout = timeout
        self._ttl = ttl
        self._lock = threading.Lock()
        self._kept: TLRUCache[tuple[str, str], Answer | _Failed] = TLRUCache(
            _CACHE_SIZE, ttu=lambda key, kept, now: now + kept.ttl
        )
        self._asked: dict[tuple[str, str], Future[Answer | _Failed | None]] = {}

    def message(self, limit: int, seconds: float) -> MessageQuestions:
        """Limit one message to ``limit`` questions, within so many seconds from now."""
        return MessageQuestions(self, limit, seconds)

    def knows(self, name: str, type: str) -> bool:
        """Return whether a question is answered at once, even by an error, asking nobody."""
        with self._lock:
            return _key(name, type) in self._kept

    def forget(self) -> None:
        """Drop all answers."""
        with self._lock:
            self._kept.clear()

    def answer(self, name: str, type: str, seconds: float | None = None) -> Answer:
        """Ask for the records of one type, see :meth:`Questions.answer`.

        Args:
            name: with or without the final dot, never relative.
            type: of the records.
            seconds: to wait, if less than the resolver's ``timeout``.
        """
        limit = self.timeout if seconds is None else min(seconds, self.timeout)
        deadline = time.monotonic() + limit
        key = _key(name, type)
        while True:
            with self._lock:
                found: Answer | _Failed | None = self._kept.get(key)
                asked = self._asked.get(key)
                if found is None and asked is None:
                    future = self._asked[key] = Future()
            if found is None and asked is None:
                return self._lead(key, future, limit)
            if found is None and asked is not None:
                try:
                    found = asked.result(max(0.0, deadline - time.monotonic()))
                except FutureTimeout:
                    raise DnsError(f"{name}: no answer within {limit:g} s") from None
            if isinstance(found, Answer):
                return found
            if found is not None:
                raise DnsError(found.reason)
            # Who had asked was in a hurry, or was ended. There may be time left to ask again.
            if (limit := deadline - time.monotonic()) <= 0:
                raise DnsError(f"{name}: no answer in time")

    def ask(self, name: str, type: str, seconds: float) -> Answer:
        """Ask the servers: called once for however many want to know. A subclass may do more.

        Raises:
            DnsError: there is no answer.
        """
        try:
            asked = dns.name.from_text(name or ".")
        except (dns.exception.DNSException, UnicodeError):
            return Answer((), False, self._ttl[1])
        exists, message = True, None
        try:
            message = self._resolver.resolve(
                asked, type, search=False, raise_on_no_answer=False, lifetime=seconds
            ).response
        except dns.resolver.NXDOMAIN as error:
            exists, message = False, error.response(asked)  # type: ignore[no-untyped-call]
        except dns.exception.Timeout:
            raise DnsError(f"{name}: no answer within {seconds:g} s") from None
        except (dns.exception.DNSException, OSError) as error:
            raise DnsError(" ".join(str(error).split())) from error
        return self._answer_in(message, exists)

    def _lead(
        self, key: tuple[str, str], asked: Future[Answer | _Failed | None], seconds: float
    ) -> Answer:
        """Ask for all who want to know."""
        outcome: Answer | _Failed | None = None
        try:
            outcome = self.ask(*key, seconds)
            return outcome
        except DnsError as error:
            if seconds >= self.timeout:
                outcome = _Failed(str(error), _FAILURE_SECONDS)
            raise
        finally:
            with self._lock:
                if outcome is not None:
                    self._kept[key] = outcome
                del self._asked[key]
            asked.set_result(outcome)

    def _answer_in(self, message: Message, exists: bool) -> Answer:
        try:
            chain = message.resolve_chaining()  # type: ignore[attr-defined]
        except dns.exception.DNSException as error:
            raise DnsError(f"an answer that makes no sense: {error}") from error
        records = tuple(chain.answer or ())
        # Without a SOA record nobody says how long "none" holds (RFC 2308, 5).
        ttl = chain.minimum_ttl if records or message.authority else 0
        least, most = self._ttl
        return Answer(records, exists, min(max(ttl, least), most))


class MessageQuestions(Questions):
    """What one message may ask. Whoever writes messages decides how much they ask.

    Args:
        resolver: answers.
        limit: how many different questions.
        seconds: for all of them.

    Raises:
        DnsLimit: (every method) that was reached.
    """

    def __init__(self, resolver: Resolver, limit: int, seconds: float) -> None:
        self._resolver = resolver
        self._limit = limit
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._asked: set[tuple[str, str]] = set()

    def answer(self, name: str, type: str) -> Answer:
        """Ask for the records of one type, see :meth:`Questions.answer`."""
        key = _key(name, type)
        if key not in self._asked:
            if len(self._asked) >= self._limit:
                raise DnsLimit(f"{name}: more than {self._limit} questions for one message")
            self._asked.add(key)
        left = self._deadline - time.monotonic()
        if left <= 0 and not self._resolver.knows(name, type):
            raise DnsLimit(f"{name}: {self._seconds:g} s for the questions of one message are over")
        return self._resolver.answer(name, type, max(left, 0.0))


def _key(name: str, type: str) -> tuple[str, str]:
    return name.rstrip(".").lower(), type
