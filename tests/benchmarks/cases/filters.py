"""Processor time of each stock filter for a message of 4 KB, next to its C or Go peer.

Only processes of the filter count. What it asks (DNS, rspamd, clamd) runs elsewhere, and waiting
takes no processor time: so neither shows, however fast or slow such a service is.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from tests.support import clamd as clamd_support
from tests.support import rspamd as rspamd_support
from tests.support.clamd import ClamdServer
from tests.support.dns import DnsServer
from tests.support.rspamd import RspamdServer

from .. import peers, procinfo
from ..bench import GREENFILTER, SUPERVISED, Bench, Case, Row, failed, start
from ..driver import NotStarted, WrongReplies
from ..peers import MissingPeer
from ..wire import Script, Sessions, build, one_message
from .signing import DOMAIN, ENDS, SELECTOR, make_key, make_message, make_verifier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SYSTEM_DNS = "127.53.53.53"
"""Where the DNS server listens on port 53, for what asks no other."""
LIST = "score.senderscore.com"
UNIT = "us of processor/message"
RULES = """\
[[rule]]
match.sender = "*@example.net"
remove = ["X-Mailer", "X-Internal-*"]
replace = { header = "Subject", pattern = '/^\\[EXT\\] */', with = "" }
masquerade = { "*.example.net" = "example.net" }
set = { X-Seen = "by headers" }
"""


class Services:
    """What filters need, each made when the first one asks for it.

    Args:
        folder: for their files.
        stack: ends them.
    """

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self._stack = stack
        self.key, self.record = make_key(folder)

    @cached_property
    def resolver(self) -> str:
        """The DNS server, as the option names it."""
        return f"127.0.0.1@{self._stack.enter_context(DnsServer(self._zones)).port}"

    @cached_property
    def resolv_conf(self) -> Path:
        """A file that names the same DNS server on port 53."""
        try:
            self._stack.enter_context(DnsServer(self._zones, host=SYSTEM_DNS, port=53))
        except OSError as error:
            raise MissingPeer(f"{SYSTEM_DNS}, port 53: {error.strerror}") from error
        return self.write("resolv.conf", f"nameserver {SYSTEM_DNS}\n")

    @cached_property
    def rspamd(self) -> RspamdServer:
        """A running rspamd."""
        if reason := rspamd_support.missing():
            raise MissingPeer(reason)
        server = RspamdServer(self.folder / "rspamd")
        self._stack.enter_context(server)
        return server

    @cached_property
    def clamd(self) -> ClamdServer:
        """A running clamd."""
        if reason := clamd_support.missing():
            raise MissingPeer(reason)
        # A socket's path may have 107 bytes.
        folder = self._stack.enter_context(TemporaryDirectory(prefix="clamd-"))
        server = ClamdServer(Path(folder, "clamd"))
        self._stack.enter_context(server)
        return server

    def write(self, name: str, text: str) -> Path:
        """Make a file."""
        path = self.folder / name
        path.write_text(text)
        return path

    @property
    def _zones(self) -> dict[str, dict[str, str]]:
        return {
            DOMAIN: {"TXT": "v=spf1 ip4:203.0.0.0/8 -all"},
            f"_dmarc.{DOMAIN}": {"TXT": "v=DMARC1; p=reject"},
            f"{SELECTOR}._domainkey.{DOMAIN}": {"TXT": self.record.decode()},
            f"2.0.0.127.{LIST}": {"A": "127.0.4.50"},  # the test entry (RFC 5782, 5)
        }


@dataclass(frozen=True)
class Stock:
    """A stock filter in this race.

    Args:
        name: of the filter.
        options: that it runs with.
        peer: name of another filter that does the same work, and how to start it.
        signed: whether the message has a DKIM signature already.
        script: what smtpd says of a session.
        sign: what must stand in each message that comes back; b"" if it is passed on as it is, or
            not seen at all.
    """

    name: str
    options: Callable[[Services], Sequence[str]]
    peer: tuple[str, Callable[[Services], Sequence[str]]] | None = None
    signed: bool = True
    script: Script = one_message
    sign: bytes = b""

    def run(self, bench: Bench) -> list[Row]:
        """Measure it, and its peer."""
        case = f"{self.name}, 4 KB"
        contestants: dict[str, Callable[[Services], Sequence[str]]] = {
            GREENFILTER: lambda services: peers.greenfilter(self.name, *self.options(services)),
            SUPERVISED: lambda services: peers.supervised(self.name, *self.options(services)),
        }
        if self.peer is not None:
            contestants = dict([self.peer]) | contestants
        rows: list[Row] = []
        for subject, command in contestants.items():
            folder = bench.folder / f"{self.name} {subject}"
            folder.mkdir()
            try:
                with ExitStack() as stack:
                    services = Services(folder, stack)
                    times = self._measure(bench, subject, command(services), services)
            except (ImportError, MissingPeer, NotStarted, TimeoutError, WrongReplies) as error:
                rows.append(failed(case, subject, str(error)))
                continue
            rows.append(self._row(case, subject, times, rows))
        return rows

    def _row(self, case: str, subject: str, times: tuple[float, ...], others: list[Row]) -> Row:
        row = Row(case, subject, times, UNIT, more_is_better=False, cpu=median(times))
        base = next((each for each in others if self.peer and each.subject == self.peer[0]), None)
        if base is None or not base.values:
            return row
        return Row(
            case, subject, times, UNIT, more_is_better=False, cpu=row.value,
            ratio=base.value / row.value, base=base.subject,
        )  # fmt: skip

    def _measure(
        self, bench: Bench, subject: str, command: Sequence[str], services: Services
    ) -> tuple[float, ...]:
        """Return the microseconds per message of each run, after one that does not count."""
        messages = bench.size(500, 20)
        message = _signed(services) if self.signed else make_message()
        verify = self._verifier(services, message, messages)
        times = []
        with start(bench, f"{self.name} {subject}", command) as process:
            for turn in range(bench.runs + 1):
                bench.progress(f"{self.name}: {subject}", turn / (bench.runs + 1))
                edits = "data-line" in process.hooks
                kind = Sessions(process.hooks, message, list if edits else None, self.script)
                traffic = build(
                    kind, messages, units=messages, lanes=1, at_once=16,
                    markers=ENDS if edits else (), first=turn * messages,
                )  # fmt: skip
                pids = process.pids()
                before = procinfo.cpu_seconds_when_idle(pids)
                process.exchange(traffic)
                spent = procinfo.cpu_seconds_when_idle(pids) - before
                times.append(spent / messages * 1e6)
                verify(process.received if edits else None)
        return tuple(times[1:])

    def _verifier(
        self, services: Services, message: list[bytes], messages: int
    ) -> Callable[[bytes | None], None]:
        if self.name == "dkim_sign":
            valid = make_verifier(message, messages, services.record)
            return lambda received: valid(received or b"")
        if self.name == "delivery_log":
            return partial(_count_records, services.folder / "log.json", messages)
        return partial(_check_messages, message, messages, self.sign)


def _signed(services: Services) -> list[bytes]:
    """The message with a signature of its author."""
    import dkim  # type: ignore[import-untyped]

    lines = make_message()
    text = b"".join(line + b"\r\n" for line in lines)
    key = services.key.read_bytes()
    algorithms = (b"relaxed", b"relaxed")
    field = dkim.sign(text, SELECTOR.encode(), DOMAIN.encode(), key, canonicalize=algorithms)
    return [*field.removesuffix(b"\r\n").split(b"\r\n"), *lines]


def _check_messages(
    message: list[bytes], messages: int, sign: bytes, received: bytes | None
) -> None:
    """Check that all lines of all messages came back, and that the filter did its work."""
    if received is None:  # it sees no messages, and its replies have been checked
        return
    if wrong := next((line for line in message if received.count(line) < messages), None):
        raise WrongReplies(f"not in each message that came back: {wrong!r}")
    if sign and received.count(sign) != messages:
        raise WrongReplies(f"{sign!r} in {received.count(sign)} of {messages} messages")


def _count_records(log: Path, messages: int, received: bytes | None) -> None:
    """Check that there is a record of each message, and begin a new file."""
    records = [json.loads(line)["event"] for line in log.read_text().splitlines()]
    if records != ["accepted"] * messages:
        raise WrongReplies(f"{len(records)} records of {messages} messages: {set(records)}")
    log.unlink()


def _by_a_user(number: int) -> Iterator[tuple[str, str, str]]:
    """What smtpd says of a session of a user who has authenticated."""
    for kind, name, fields in one_message(number):
        yield kind, name, fields
        if name == "link-identify":
            yield "report", "link-auth", "pass|alice"


def _word_by_word(number: int) -> Iterator[tuple[str, str, str]]:
    """The same as of others, and what the client and smtpd said to each other."""
    said = {
        "connect": ("", "220 mx.example.org ESMTP OpenSMTPD"),
        "ehlo": ("EHLO {}", "250 HELP"),
        "mail-from": ("MAIL FROM:<{}>", "250 2.0.0 Ok"),
        "rcpt-to": ("RCPT TO:<{}>", "250 2.1.5 Destination address valid: Recipient ok"),
        "data": ("DATA", '354 Enter mail, end with "." on a line by itself'),
        "commit": (".", "250 2.0.0 Message accepted for delivery"),
        "quit": ("QUIT", "221 2.0.0 Bye"),
    }
    reply = ""
    for kind, name, fields in one_message(number):
        if reply and (name in said or name == "link-disconnect"):
            yield "report", "protocol-server", reply
            reply = ""
        if kind == "filter" and name in said:
            command, reply = said[name]
            if command:
                yield "report", "protocol-client", command.format(fields)
        yield kind, name, fields


def _store(services: Services) -> list[str]:
    return ["--store", f"sqlite:{services.folder / 'store.sqlite'}"]


STOCK = (
    Stock(
        "auth_verify",
        lambda services: ["--enforce", "reject", "--resolver", services.resolver],
        sign=b"dmarc=pass",
    ),
    Stock("clamav", lambda services: ["--server", f"unix:{services.clamd.socket}"]),
    Stock(
        "delivery_log",
        lambda services: [*_store(services), "--output", str(services.folder / "log.json")],
        script=_word_by_word,
    ),
    Stock(
        "dkim_sign",
        lambda services: [
            *("--key", f"{DOMAIN}:{SELECTOR}:{services.key}", "--network", "203.0.0.0/8"),
        ],
        peer=(
            "filter-dkimsign",
            lambda services: peers.dkimsign(services.key, DOMAIN, SELECTOR),
        ),
        signed=False,
    ),
    Stock(
        # All come for the first time, which is what it has to do most; the session goes on.
        "greylist",
        lambda services: [*_store(services), "--resolver", services.resolver, "--log-only"],
    ),
    Stock(
        "headers",
        lambda services: ["--rules", str(services.write("rules.toml", RULES))],
        sign=b"|X-Seen: by headers",
    ),
    Stock(
        "ratelimit",
        lambda services: [
            *_store(services),
            *("--limit", "network:messages=1000/hour", "--limit", "sender:recipients=1000/day"),
        ],
    ),
    Stock(
        "rbl",
        lambda services: ["--zone", LIST, "--resolver", services.resolver],
        peer=("filter-senderscore", lambda services: peers.senderscore(services.resolv_conf)),
    ),
    Stock(
        "rspamd",
        lambda services: ["--server", f"127.0.0.1:{services.rspamd.port}"],
        peer=("filter-rspamd", lambda services: peers.rspamd(services.rspamd.port)),
    ),
    Stock(
        "submission_guard",
        lambda services: [
            "--table", f"file:{services.write('senders', f'alice: *@{DOMAIN}')}"
        ],
        script=_by_a_user,
    ),
)  # fmt: skip

CASES = tuple(
    Case(f"filter-{stock.name}", f"processor time of {stock.name} for a message", stock.run)
    for stock in STOCK
)
