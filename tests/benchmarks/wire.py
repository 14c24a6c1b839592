"""What smtpd would send to a filter, and what the filter must answer.

A request waits for the answer to the one before it in its session, as in smtpd: the traffic is cut
into parts, and each part says how much must have been answered before it may go out. Sessions are
dealt to lanes that take turns, so that the filter always has something to do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

PHASES = ("connect", "ehlo", "mail-from", "rcpt-to", "data", "data-line", "commit", "quit")
TOKENS = {phase: f"{0xF7EB83A2308AFE87 + 977 * n:016x}" for n, phase in enumerate(PHASES)}
FIRST_SESSION = 0x097E63A500000000

# The 14 lines of a session of which libopensmtpd keeps session and transaction.
SESSION_OF_14 = frozenset(
    {"connect", "ehlo", "mail-from", "rcpt-to", "data", "commit", "quit"}
    | {"link-connect", "link-identify", "tx-begin", "tx-mail", "tx-rcpt", "tx-commit"}
    | {"link-disconnect"}
)


def fourteen(hooks: frozenset[str]) -> frozenset[str]:
    """The 14 of a filter: it learns of a transaction's end by tx-commit or else by tx-reset."""
    if "tx-commit" in hooks:
        return SESSION_OF_14
    return SESSION_OF_14 - {"tx-commit"} | {"tx-reset"}


Edit = Callable[[Sequence[bytes]], Sequence[bytes]]
Script = Callable[[int], "Iterable[tuple[str, str, str]]"]
"""Gives all that smtpd may say of the session with this number: kind, name and fields of lines."""
Pair = tuple[bytes, bytes]
"""A line to the filter and what it must answer to it (nothing to a report)."""


@dataclass
class Traffic:
    """Bytes for one run.

    Args:
        outgoing: all that is sent.
        gates: (end, need): ``outgoing`` up to ``end`` may be sent once ``need`` has been received,
            counted in bytes, or in ``markers`` if there are any.
        expected: all that must come back; the order is free between sessions, not within one.
        units: how many lines, sessions or messages this is.
        markers: ends of replies to count where the size of a reply is not known beforehand.
    """

    outgoing: bytes
    gates: list[tuple[int, int]]
    expected: bytes
    units: int
    markers: tuple[bytes, ...] = ()

    @property
    def goal(self) -> int:
        """What must have been received at the end, in the unit of the gates."""
        if self.markers:
            return sum(self.expected.count(marker) for marker in self.markers)
        return len(self.expected)


@dataclass
class Sessions:
    """A kind of session, to make traffic of.

    Args:
        hooks: names of the phases and reports to send.
        message: lines of the message each session brings; none without data-line in ``hooks``.
        edit: what the filter makes of the message; None: each line comes back as it is.
        script: what is said of a session; of that, what is in ``hooks`` is sent.
    """

    hooks: frozenset[str]
    message: Sequence[bytes] = ()
    edit: Edit | None = None
    script: Script = field(default=lambda number: one_message(number))
    _clock: Iterator[int] = field(default_factory=count)

    def steps(self, number: int) -> list[list[Pair]]:
        """The lines of one session, cut after each request that smtpd waits for."""
        sid = session_id(number)
        steps: list[list[Pair]] = [[]]
        for kind, name, fields in self.script(number):
            if name not in self.hooks:
                continue
            if name == "data-line":
                steps[-1].extend(self._data(sid))
                steps.append([])
                continue
            line = f"{self._head(kind)}|{name}|{sid}|"
            if kind == "filter":
                token = TOKENS[name]
                reply = f"filter-result|{sid}|{token}|proceed\n"
                steps[-1].append((f"{line}{token}|{fields}\n".encode(), reply.encode()))
                steps.append([])
            else:
                steps[-1].append(((line + fields).rstrip("|").encode() + b"\n", b""))
        return steps if steps[-1] else steps[:-1]

    def _head(self, kind: str) -> str:
        tick = next(self._clock)
        return f"{kind}|0.7|{1795333857 + tick // 250_000}.{tick % 250_000 * 4:06d}|smtp-in"

    def _data(self, sid: str) -> Iterator[Pair]:
        token = TOKENS["data-line"]
        between = f"|data-line|{sid}|{token}|".encode()
        start = f"filter-dataline|{sid}|{token}|".encode()
        for line in self.message:
            reply = b"" if self.edit else start + line + b"\n"
            yield self._head("filter").encode() + between + line + b"\n", reply
        edited = self.edit(self.message) if self.edit else ()
        reply = b"".join(start + line + b"\n" for line in (*edited, b"."))
        yield self._head("filter").encode() + between + b".\n", reply


def session_id(number: int) -> str:
    """The id of the session with this number, 16 hex digits as smtpd writes them."""
    return f"{FIRST_SESSION + number * 0x9E3779B1 % 2**32:016x}"


def message_lines(lines: int, size: int = 70) -> list[bytes]:
    """A message of ``lines`` lines of ``size`` bytes, each different, none beginning with a dot."""
    filler = b" the quick brown fox jumps over the lazy dog, and packs my box with jugs"
    headers = [
        b"From: Alice <alice@example.net>",
        b"To: bob@example.org",
        b"Subject: minutes",
        b"",
    ]
    padded = [header.ljust(size, b"x") if header else header for header in headers]
    body = ((b"%08d" % n + filler * (1 + size // len(filler)))[:size] for n in range(lines - 4))
    return [*padded, *body]


def build(
    kind: Sessions,
    sessions: int,
    *,
    units: int,
    lanes: int = 4,
    at_once: int = 1000,
    run: int | None = None,
    first: int = 0,
    copied: bool = False,
    markers: tuple[bytes, ...] = (),
) -> Traffic:
    """Traffic of ``sessions`` sessions, of which ``at_once`` are open at a time.

    Args:
        kind: the sessions.
        sessions: how many in all.
        units: what the traffic amounts to, in the unit of the case.
        lanes: groups of sessions that take turns. What is counted is all that came back, so with
            more than one, the filter must answer in the order of the requests: it would else be
            asked by one session what another has answered.
        at_once: sessions open at a time, over all lanes.
        run: lines of one session in a row before the next session of its lane has its turn; None:
            all that it may send.
        first: number of the first session.
        copied: the filter sends back what it gets, not the reply to it.
        markers: see ``Traffic``.
    """
    outgoing: list[bytes] = []
    expected: list[bytes] = []
    gates: list[tuple[int, int]] = []
    needs = [0] * lanes
    end = received = 0
    for lane, part in enumerate(_parts(kind, range(first, first + sessions), lanes, at_once)):
        pairs = list(_interleave(part, run))
        sent = b"".join(line for line, _ in pairs)
        reply = sent if copied else b"".join(reply for _, reply in pairs)
        end += len(sent)
        gates.append((end, needs[lane % lanes]))
        received += sum(reply.count(marker) for marker in markers) if markers else len(reply)
        needs[lane % lanes] = received
        outgoing.append(sent)
        expected.append(reply)
    return Traffic(b"".join(outgoing), gates, b"".join(expected), units, markers)


def _parts(
    kind: Sessions, all_numbers: range, lanes: int, at_once: int
) -> Iterator[list[list[Pair]]]:
    """The steps of all lanes in the order of sending, each the list of its sessions' lines."""
    share = max(1, at_once // lanes)
    for start in range(0, len(all_numbers), share * lanes):
        numbers = all_numbers[start : start + share * lanes]
        groups = [[kind.steps(n) for n in numbers[lane::lanes]] for lane in range(lanes)]
        for step in range(max(len(steps) for group in groups for steps in group)):
            for group in groups:
                yield [steps[step] for steps in group]


def _interleave(lists: list[list[Pair]], run: int | None) -> Iterator[Pair]:
    if run is None:
        for lines in lists:
            yield from lines
        return
    for start in range(0, max((len(lines) for lines in lists), default=0), run):
        for lines in lists:
            yield from lines[start : start + run]


def one_message(number: int) -> Iterable[tuple[str, str, str]]:
    """All that smtpd says of a session that brings one message, as recorded from smtpd 7.8."""
    name = f"client{number}.example.net"
    message = f"{number * 0x9E3779B1 % 2**32:08x}"
    address = f"203.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    mail_from, rcpt_to = f"alice{number}@example.net", "bob@example.org"
    yield "report", "link-connect", f"{name}|pass|{address}:35437|192.0.2.25:25"
    yield "filter", "connect", f"{name}|{address}"
    yield "report", "filter-response", "connected|proceed"
    yield "report", "link-greeting", "mx.example.org"
    yield "filter", "ehlo", name
    yield "report", "filter-response", "ehlo|proceed"
    yield "report", "link-identify", f"EHLO|{name}"
    yield "filter", "mail-from", mail_from
    yield "report", "filter-response", "mail-from|proceed"
    yield "report", "tx-begin", message
    yield "report", "tx-mail", f"{message}|ok|{mail_from}"
    yield "filter", "rcpt-to", rcpt_to
    yield "report", "filter-response", "rcpt-to|proceed"
    yield "report", "tx-envelope", f"{message}|{message}1182cc6a"
    yield "report", "tx-rcpt", f"{message}|ok|{rcpt_to}"
    yield "filter", "data", ""
    yield "report", "filter-response", "data|proceed"
    yield "report", "tx-data", f"{message}|ok"
    yield "filter", "data-line", ""
    yield "filter", "commit", ""
    yield "report", "filter-response", "commit|proceed"
    yield "report", "tx-commit", f"{message}|4096"
    yield "report", "tx-reset", message
    yield "filter", "quit", ""
    yield "report", "filter-response", "quit|proceed"
    yield "report", "link-disconnect", ""
