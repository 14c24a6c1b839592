#!/usr/bin/env -S greenfilter run
"""Refuse or mark mail from clients that DNS blocklists name (RFC 5782).

Needs dnspython: pip install '.[rbl]' in a clone of greenfilter.

In smtpd.conf, for the listener that other mail servers use (not for submission: the addresses of
your own users' homes are on many lists, and "disconnect" comes before they authenticate):

    filter rbl proc-exec "/usr/local/bin/greenfilter run /etc/mail/rbl.py --zone zen.example.org=5"
    listen on 0.0.0.0 filter rbl

Every zone is asked about each client at the same time. The weights of the zones that list it are
added, and from --threshold on --action is taken:

    disconnect  at connect: the cheapest, but the log never names sender and recipient
    reject      each recipient but postmaster (RFC 5321, 4.5.1)
    junk        smtpd adds "X-Spam: Yes"
    header      adds "X-Blocklist: ..." for others to read, and removes any that came with the mail
    log         nothing but a log line: to try a list before it refuses mail

Loopback, the local socket, private networks and --allow networks are never looked up, and
authenticated users never refused. When a zone does not answer, clients pass, the log says so once
a minute, and after three failures in a row the zone is left alone for that minute. A zone that
lists everybody, as some do that have ended, is found out by its test entries (RFC 5782, 5) and
left alone for an hour.

Clients and the log are told a zone by its display name: by default its own without what may be your
secret key, which is a label like one, and the first of four labels or more.
"""

from __future__ import annotations

import argparse
import ipaddress
import logging
import math
import re
import sys
import textwrap
import time
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import cachetools
import dns.exception
import dns.name
import dns.nameserver
import dns.resolver
import gevent

from greenfilter import Filter, Need, disconnect, junk, reject

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from greenfilter import Address

    Ip = ipaddress.IPv4Address | ipaddress.IPv6Address

HEADER = b"X-Blocklist"
MIN_TTL, MAX_TTL = 60.0, 3600.0  # seconds that an answer is kept, whatever DNS says
ACTIONS = ("disconnect", "reject", "junk", "header", "log")
MAX_CODES = 8  # of one zone that a reply or header tells
LINE_CHARS = 200  # of a header line; a zone's name has no more than 189
CACHE_SIZE = 100_000  # answers
FAILURES = 3  # in a row, after which a zone is left alone
PAUSE = 60.0  # seconds, also between two log lines about the same zone
TEST_EVERY = 3600.0  # seconds
# RFC 5782, 5: no list may have the first entry, every list should have the second.
TESTS = {4: ("127.0.0.1", "127.0.0.2"), 6: ("::ffff:7f00:1", "::ffff:7f00:2")}
LISTED = ipaddress.ip_network("127.0.0.0/8")  # RFC 5782, 2.1; anything else is no list's answer
# What lists answer those who may not ask, or ask too often: Spamhaus, dnswl.org, DBL, URIBL, SURBL.
ERRORS = [ipaddress.ip_network("127.255.255.0/24")]
ERRORS += [ipaddress.ip_network(code) for code in ("127.0.0.255", "127.0.1.255", "127.0.0.1")]
KEY = re.compile(r".{20,}|(?=.*\d)(?=.*[a-z]).{10,}")  # a label that may be a customer's secret
LOCAL = ["127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"]
LOCAL += ["100.64.0.0/10", "::1/128", "fe80::/10", "fc00::/7"]

log = logging.getLogger("rbl")


@dataclass(eq=False)
class Zone:
    """A blocklist: how much it counts, how it is asked, and whether it works."""

    name: str
    weight: float
    timeout: float | None
    shown: str  # the name that is told
    resolver: dns.resolver.Resolver = field(init=False)
    failures: int = 0
    paused_until: float = 0.0
    quiet_until: float = 0.0
    dead_until: float = 0.0
    tests: dict[int, gevent.Greenlet[..., None]] = field(default_factory=dict)  # by IP version
    test_at: dict[int, float] = field(default_factory=dict)

    def failed(self, reason: str) -> None:
        """Count a failure; log it unless the last minute saw one."""
        now = time.monotonic()
        self.failures += 1
        if self.failures >= FAILURES:
            self.paused_until = now + PAUSE
        if now >= self.quiet_until:
            self.quiet_until = now + PAUSE
            reason = re.sub(re.escape(self.name), self.shown, reason, flags=re.I)
            log.warning("blocklist %s: %s; clients pass", self.shown, reason)


class Code(NamedTuple):
    """What an answer such as 127.0.0.2 means; without a weight, the zone's own counts."""

    name: str
    weight: float | None = None


class Answer(NamedTuple):
    """What a zone said of a client: return codes (none: not listed), and for how many seconds."""

    codes: tuple[str, ...]
    ttl: float


NO_ANSWER = Answer((), 10.0)  # a failed question is not asked again for ten seconds


class Listing(NamedTuple):
    """A client's score, and ``zone (code name, ...)`` of its lists, the weightiest first."""

    score: float
    zones: list[str]


class Blocklists:
    """Asks the zones, and keeps their answers. For one thread, so nothing here has a lock."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.zones: list[Zone] = options.zone
        self.codes: dict[tuple[str, str], Code] = dict(options.code)
        self.threshold: float = options.threshold
        self.cache: cachetools.TLRUCache[str, Answer] = cachetools.TLRUCache(
            CACHE_SIZE, ttu=lambda name, answer, now: now + answer.ttl
        )
        self.asking: dict[str, gevent.Greenlet[..., Answer]] = {}  # so that only one asks

    def look_up(self, ip: Ip) -> Listing | None:
        """What the zones say of ``ip``, or None below the threshold. Switches greenlets."""
        asked = self.start(ip)
        gevent.joinall([answer for _, answer in asked if isinstance(answer, gevent.Greenlet)])
        hits = []
        for zone, answer in asked:
            meanings = [
                each for code in known(answer).codes if (each := self.meaning(zone, code))[0]
            ]
            if meanings and self._is_alive(zone, ip.version):
                texts = [text for _, text in meanings[:MAX_CODES]]
                texts += ["..."] if len(meanings) > MAX_CODES else []
                text = f"{zone.shown} ({', '.join(texts)})"
                hits.append((max(weight for weight, _ in meanings), text))
        hits.sort(key=lambda hit: -hit[0])
        score = sum(weight for weight, _ in hits)
        if not hits or score < self.threshold:
            return None
        return Listing(score, [text for _, text in hits])

    def start(self, ip: Ip) -> list[tuple[Zone, Answer | gevent.Greenlet[..., Answer]]]:
        """Each zone with its known answer, or with the greenlet that asks for it now."""
        for zone in self.zones:
            if time.monotonic() >= max(zone.test_at.get(ip.version, 0.0), zone.paused_until):
                zone.test_at[ip.version] = time.monotonic() + TEST_EVERY
                zone.tests[ip.version] = gevent.spawn(self._test, zone, ip.version)
        return [(zone, self._answer(zone, query_name(ip, zone.name))) for zone in self.zones]

    def meaning(self, zone: Zone, code: str) -> tuple[float, str]:
        """Weight and text of a return code."""
        known = self.codes.get((zone.name, code)) or self.codes.get(("", code)) or Code("")
        weight = zone.weight if known.weight is None else known.weight
        return weight, f"{code} {known.name}".rstrip()

    def _is_alive(self, zone: Zone, version: int) -> bool:
        """Whether a zone may be believed that lists a client. May switch greenlets."""
        zone.tests[version].join()
        return time.monotonic() >= zone.dead_until

    def _test(self, zone: Zone, version: int) -> None:
        """Ask for a zone's test entries."""
        names = [query_name(ipaddress.ip_address(text), zone.name) for text in TESTS[version]]
        asked = [self._answer(zone, name) for name in names]
        gevent.joinall([answer for answer in asked if isinstance(answer, gevent.Greenlet)])
        wrong, right = map(known, asked)
        if wrong.codes:
            zone.dead_until = zone.test_at[version]
            text = "blocklist %s lists %s, so anybody; it is left alone for %g minutes"
            log.warning(text, zone.shown, TESTS[version][0], TEST_EVERY / 60)
        elif NO_ANSWER in (wrong, right):
            zone.test_at[version] = time.monotonic() + PAUSE
        elif not right.codes and version == 4:  # many have nothing for IPv6
            text = "blocklist %s does not list its test entry %s: it may be misspelt, or have ended"
            log.warning(text, zone.shown, TESTS[version][1])

    def _answer(self, zone: Zone, name: str) -> Answer | gevent.Greenlet[..., Answer]:
        if zone.dead_until > time.monotonic():
            return NO_ANSWER
        cached = self.cache.get(name)
        if cached is not None:
            return cached
        if zone.paused_until > time.monotonic():
            return NO_ANSWER
        if name not in self.asking:
            self.asking[name] = gevent.spawn(self._ask, zone, name)
        return self.asking[name]

    def _ask(self, zone: Zone, name: str) -> Answer:
        try:
            answer = self._query(zone, name)
            zone.failures, zone.paused_until = 0, 0.0
        except dns.exception.Timeout:
            zone.failed(f"no answer within {zone.resolver.lifetime:g} s")
            answer = NO_ANSWER
        except (dns.exception.DNSException, OSError, ValueError) as error:
            zone.failed(str(error))
            answer = NO_ANSWER
        finally:
            del self.asking[name]
        self.cache[name] = answer
        return answer

    def _query(self, zone: Zone, name: str) -> Answer:
        """Ask DNS; raises ValueError for what no list answers."""
        try:
            response = zone.resolver.resolve(
                f"{name}.", "A", search=False, raise_on_no_answer=False
            ).response
        except dns.resolver.NXDOMAIN as error:
            response = error.response(dns.name.from_text(name))  # type: ignore[no-untyped-call]
        chain = response.resolve_chaining()
        codes = tuple(sorted(rdata.address for rdata in chain.answer or ()))
        for code in map(ipaddress.ip_address, codes):
            if code not in LISTED or any(code in network for network in ERRORS):
                raise ValueError(f"answered {code}, which is an error, not a listing")
        # Without a SOA record nobody says how long "not listed" holds (RFC 2308, 5).
        ttl = chain.minimum_ttl if codes or response.authority else 0
        return Answer(codes, min(max(ttl, MIN_TTL), MAX_TTL))


def known(answer: Answer | gevent.Greenlet[..., Answer]) -> Answer:
    """An answer, also out of the greenlet that has asked for it."""
    return answer if isinstance(answer, Answer) else answer.value or NO_ANSWER


def query_name(ip: Ip, zone: str) -> str:
    """Name to ask: reversed octets (RFC 5782, 2.1) or nibbles (2.4) before the zone."""
    return ip.reverse_pointer.removesuffix("in-addr.arpa").removesuffix("ip6.arpa") + zone


def client_ip(address: Address | None) -> Ip | None:
    """The client's IP address, IPv4 out of IPv4-mapped IPv6; None for the local socket."""
    ip = address.ip if address else None
    return getattr(ip, "ipv4_mapped", None) or ip


def fold(text: str) -> list[str]:
    """Cut a text at spaces to lines that any server takes (RFC 5322, 2.1.1)."""
    return textwrap.wrap(text, LINE_CHARS, break_on_hyphens=False)


def without_header(lines: Iterable[bytes], name: bytes) -> Iterator[bytes]:
    """The lines of a message but for the headers called ``name``."""
    lines, dropping = iter(lines), False
    for line in lines:
        if line[:1] not in (b" ", b"\t"):
            dropping = line.partition(b":")[0].rstrip().lower() == name.lower()
        if not dropping:
            yield line
        if not line:
            break
    yield from lines


def build(options: argparse.Namespace) -> Filter:
    """The filter, with no more handlers than the action needs."""
    lists = Blocklists(options)
    longest = max(zone.resolver.lifetime for zone in lists.zones)
    needs = Need.SRC | Need.USERNAME
    app = Filter("rbl", deadline=longest + 2.0, on_error="proceed", needs=needs)
    allowed = [ipaddress.ip_network(text) for text in LOCAL] + options.allow

    def stranger(address: Address | None) -> Ip | None:
        ip = client_ip(address)
        return None if ip is None or any(ip in network for network in allowed) else ip

    def listing(ctx: Any) -> Listing | None:
        ip = stranger(ctx.session.src)
        found = lists.look_up(ip) if ip and not ctx.session.authenticated else None
        if found:
            zones = ", ".join(found.zones)
            ctx.log.info("%s: %s, score %g: %s", options.action, ip, found.score, zones)
        return found

    def refuse(make: Any, ctx: Any) -> Any:
        found = listing(ctx)
        text = "{} is listed by {}"
        ip = client_ip(ctx.session.src)
        return found and make(550, text.format(ip, found.zones[0]), enhanced="5.7.1")

    if options.action == "disconnect":

        @app.filter.connect
        def at_connect(ctx: Any, rdns: str, address: Any) -> Any:
            return refuse(disconnect, ctx)

        return app

    @app.report.link_connect
    def ask_early(ctx: Any, rdns: str, fcrdns: Any, src: Any, dst: Any) -> None:
        if options.action == "log":
            listing(ctx)
        elif ip := stranger(src):
            lists.start(ip)

    if options.action == "reject":

        @app.filter.rcpt_to
        def at_rcpt_to(ctx: Any, recipient: str) -> Any:
            postmaster = recipient.partition("@")[0].lower() == "postmaster"
            return None if postmaster else refuse(reject, ctx)

    elif options.action == "junk":

        @app.filter.data
        def at_data(ctx: Any) -> Any:
            return junk() if listing(ctx) else None

    elif options.action == "header":

        @app.lines
        def mark(ctx: Any, lines: Iterable[bytes]) -> Iterator[bytes]:
            found = listing(ctx)
            if found:
                yield b"%s: score=%s" % (HEADER, format(found.score, "g").encode())
                yield from (b"\t" + line.encode() for line in chain(*map(fold, found.zones)))
            yield from without_header(lines, HEADER)

    return app


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, which smtpd logs as one."""

    def error(self, message: str) -> NoReturn:  # noqa: D102
        self.exit(2, f"{self.prog}: {message}; see --help\n")


def number(text: str) -> float:
    """A finite number: with another no sum would reach a threshold, or any would."""
    if not math.isfinite(float(text)):
        raise ValueError(text)
    return float(text)


def seconds(text: str) -> float:
    """A time limit above 0."""
    if not 0 < float(text) < 3600:
        raise ValueError(text)
    return float(text)


def zone(text: str) -> Zone:
    """A zone from ``NAME[=WEIGHT[,SECONDS[,SHOWN]]]``."""
    name, _, rest = text.partition("=")
    weight, timeout, shown = [*rest.split(",", 2), "", ""][:3]
    # 253 octets (RFC 1035, 2.3.4) must hold an IPv6 client's 64 too.
    if len(name) > 189 or not re.fullmatch(r"([a-z0-9_-]{1,63}\.?)+", name, re.I):
        raise ValueError(text)
    if not re.fullmatch(r"[!-~ ]{0,189}", shown):
        raise ValueError(text)
    name, limit = name.rstrip(".").lower(), seconds(timeout) if timeout else None
    return Zone(name, number(weight or "1"), limit, shown or without_key(name))


def without_key(name: str) -> str:
    """A zone's name without a customer's key: KEY.zen.dq.example.org, KEY.example.org."""
    labels = name.split(".")
    keys = [at for at, label in enumerate(labels[:-2]) if KEY.fullmatch(label)]
    first = max([*keys, 0 if len(labels) > 3 else -1]) + 1
    return ".".join(labels[first:])


def code(text: str) -> tuple[tuple[str, str], Code]:
    """A meaning from ``[ZONE/]ADDRESS=NAME[,WEIGHT]``."""
    where, _, meaning = text.partition("=")
    zone_name, _, address = where.rpartition("/")
    name, _, weight = meaning.partition(",")
    if not name or (ip := ipaddress.ip_address(address)) not in LISTED:
        raise ValueError(text)
    return (zone_name.rstrip(".").lower(), str(ip)), Code(name, number(weight) if weight else None)


def resolver(text: str) -> dns.nameserver.Nameserver:
    """A DNS server from ``ADDRESS[@PORT]``."""
    address, _, port = text.partition("@")
    if not 0 < int(port or "53") < 65536:
        raise ValueError(text)
    return dns.nameserver.Do53Nameserver(str(ipaddress.ip_address(address)), int(port or "53"))


def make_resolver(
    servers: Sequence[dns.nameserver.Nameserver], limit: float
) -> dns.resolver.Resolver:
    """A resolver that asks ``servers``, or those of resolv.conf, for ``limit`` seconds."""
    made = dns.resolver.Resolver(configure=not servers)
    made.nameservers = list(servers) or made.nameservers
    made.lifetime = limit
    made.timeout = limit / 2  # then a lost packet is sent again, or the next server asked
    return made


def parse_options(arguments: Sequence[str]) -> argparse.Namespace:
    """The filter's options; exits with status 2 and one line if one is wrong."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = Parser(description=__doc__, formatter_class=raw, allow_abbrev=False)
    repeated: dict[str, Any] = {"action": "append", "default": []}

    def add(name: str, metavar: str, text: str, **rest: Any) -> None:
        parser.add_argument(name, metavar=metavar, help=text, **rest)

    text = (
        "blocklist, its weight (1; below 0 for lists of good clients), time limit and display name"
    )
    add(
        "--zone",
        "NAME[=WEIGHT[,SECONDS[,SHOWN]]]",
        f"{text}; repeatable",
        type=zone,
        action="append",
        required=True,
    )
    add("--threshold", "SCORE", "take action from this score on (1)", type=number, default=1.0)
    add("--action", "ACTION", ", ".join(ACTIONS), choices=ACTIONS, default="reject")
    text = "what an answer means, and its weight instead of the zone's, 0 to ignore it; repeatable"
    add("--code", "[ZONE/]127.X.X.X=NAME[,WEIGHT]", text, type=code, **repeated)
    text = "address or network that is never looked up; repeatable"
    add("--allow", "NETWORK", text, type=ipaddress.ip_network, **repeated)
    text = "time limit of zones without their own (3)"
    add("--timeout", "SECONDS", text, type=seconds, default=3.0)
    text = "DNS server instead of those of resolv.conf; repeatable"
    add("--resolver", "ADDRESS[@PORT]", text, type=resolver, **repeated)

    options = parser.parse_args(arguments)
    names = {zone.name for zone in options.zone}
    if len(names) < len(options.zone):
        parser.error("argument --zone: a zone is named twice")
    if unknown := {name for (name, _), _ in options.code if name} - names:
        parser.error(f"argument --code: no --zone is named {', '.join(sorted(unknown))}")
    try:
        for each in options.zone:
            each.resolver = make_resolver(options.resolver, each.timeout or options.timeout)
    except dns.exception.DNSException as error:
        parser.error(f"{error}: use --resolver")
    return options


options = parse_options(sys.argv[1:])
app = build(options)

if __name__ == "__main__":
    app.run()
