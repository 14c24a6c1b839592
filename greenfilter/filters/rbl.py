"""Refuse or mark mail from clients that DNS blocklists name (RFC 5782).

By address, and by the names of sender, HELO and reverse DNS.
"""

from __future__ import annotations

import argparse
import ipaddress
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from .. import Filter, Need, disconnect, junk, reject
from ._clients import Ip, client_ip, is_in
from ._decide import Decider
from ._options import Options, parse_network, parse_seconds
from ._rbl import subjects
from ._rbl.options import NAMES, parse_code, parse_names, parse_number, parse_zone

if TYPE_CHECKING:
    from .. import Address, Decision
    from ._rbl.lists import Listing, Lists
    from ._rbl.subjects import Subject

SUMMARY = "Refuse or mark mail from clients that DNS blocklists name (RFC 5782)."
MANUAL = """
    In smtpd.conf, for the listener that other mail servers use (not for submission: the addresses
    of your own users' homes are on many lists, and "disconnect" comes before they authenticate):

        filter "rbl" proc-exec "/usr/local/bin/greenfilter run rbl --zone zen.example.org=5"
        listen on 0.0.0.0 filter "rbl"

    Every list is asked at the same time: those of --zone about the client's address, those of
    --domain-zone about the domain of the sender, the HELO name and the name in reverse DNS, as
    they are. The weights of the lists that have it are added (a list counts once, whatever it
    has), and from --threshold on --action is taken:

        disconnect  at connect: the cheapest, but nobody knows sender, HELO name and recipient yet
        reject      each recipient but postmaster (RFC 5321, 4.5.1)
        junk        smtpd adds "X-Spam: Yes"
        header      adds "X-Blocklist: ..." for others to read, and removes any that came with the
                    mail
        log         nothing but a log line; --log-only is the same for any other action

    Loopback, the local socket, private networks and --allow networks are never looked up, and
    authenticated users never refused. When a list does not answer, clients pass, the log says so
    once a minute, and after three failures in a row the list is left alone for that minute. A list
    that has everybody, as some do that have ended, is found out by its test entries (RFC 5782, 5)
    and left alone for an hour. If anything else fails, mail passes.

    Clients and the log are told a list by its display name: by default its own without what may
    be your secret key, which is a label like one, and the first of four labels or more.
"""
ACTIONS = ("disconnect", "reject", "junk", "header", "log")
_HEADER = b"X-Blocklist"
_LINE_CHARS = 200  # of a header line; a list's name has no more than 189
_LOCAL_TEXTS = ["127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"]
_LOCAL_TEXTS += ["100.64.0.0/10", "::1/128", "fe80::/10", "fc00::/7"]
_LOCAL = [ipaddress.ip_network(text) for text in _LOCAL_TEXTS]


def build(arguments: Sequence[str]) -> Filter:
    """Make the filter, with no more handlers than the action needs.

    Args:
        arguments: its options, see ``greenfilter run rbl --help``.

    Raises:
        UsageError: an option is wrong.
    """
    options = parse(arguments)
    lists = make_lists(options)
    needs = Need.SRC | Need.USERNAME
    if options.domain_zone:
        needs |= Need.RDNS | Need.IDENTITY | Need.MAIL_FROM
    longest = max(each.timeout for each in lists.zones)
    app = Filter("rbl", deadline=longest + 2.0, on_error="proceed", needs=needs)
    client = _Client(lists, options)
    if options.log_only or options.action == "log":
        _add_observer(app, client, options)
    else:
        _ADD[options.action](app, client)
    return app


class _Client:
    """What the handlers ask about a client, and say."""

    def __init__(self, lists: Lists, options: argparse.Namespace) -> None:
        self._lists = lists
        self._action = options.action
        self._names = options.domain_of if options.domain_zone else ()
        self._allowed = options.allow
        self._decide = Decider("rbl", options.log_only)

    def start(self, src: Address, rdns: str) -> None:
        """Begin to ask as soon as a client is there."""
        if ip := self._stranger(src):
            self._lists.start(self._subjects(ip, rdns=rdns))

    def look_up(self, ctx: Any) -> Listing | None:
        """Ask about the client of a session, unless it is to be left alone."""
        ip = self._stranger(ctx.session.src)
        if ip is None or ctx.session.authenticated:
            return None
        names = {}
        if self._names:
            sender = ctx.tx.mail_from if ctx.tx is not None else None
            names = {"sender": (sender or "").rpartition("@")[2], "helo": ctx.session.identity}
            names["rdns"] = ctx.session.rdns
        return self._lists.look_up(self._subjects(ip, **names))

    def tell(self, ctx: Any, found: Listing, decision: Decision | None) -> Decision | None:
        """Log what is decided about a client that is listed."""
        about = {"client": client_ip(ctx.session.src), "score": f"{found.score:g}"}
        return self._decide(ctx, decision, self._action, **about, lists=found)

    def refuse(self, ctx: Any, make: Any) -> Any:
        """Refuse a client that is listed."""
        found = self.look_up(ctx)
        return found and self.tell(ctx, found, make(550, found.reason, enhanced="5.7.1"))

    def _stranger(self, src: Address | None) -> Ip | None:
        ip = client_ip(src)
        return None if ip is None or is_in(ip, _LOCAL) or is_in(ip, self._allowed) else ip

    def _subjects(self, ip: Ip, **names: str | None) -> list[Subject]:
        known = [subjects.domain(what, names.get(what)) for what in self._names]
        return [subjects.client(ip), *filter(None, known)]


def _add_disconnect(app: Filter, client: _Client) -> None:
    @app.filter.connect
    def refuse_client(ctx: Any, rdns: str, address: Any) -> Any:
        return client.refuse(ctx, disconnect)


def _add_reject(app: Filter, client: _Client) -> None:
    _ask_early(app, client)

    @app.filter.rcpt_to
    def refuse_recipient(ctx: Any, recipient: str) -> Any:
        if recipient.partition("@")[0].lower() == "postmaster":
            return None
        return client.refuse(ctx, reject)


def _add_junk(app: Filter, client: _Client) -> None:
    _ask_early(app, client)

    @app.filter.data
    def mark_as_junk(ctx: Any) -> Any:
        found = client.look_up(ctx)
        return found and client.tell(ctx, found, junk())


def _add_header(app: Filter, client: _Client) -> None:
    _ask_early(app, client)

    @app.lines
    def add_header(ctx: Any, lines: Iterable[bytes]) -> Iterator[bytes]:
        found = client.look_up(ctx)
        if found:
            client.tell(ctx, found, None)
            yield b"%s: score=%s" % (_HEADER, format(found.score, "g").encode())
            yield from (b"\t" + line for hit in found.hits for line in fold(hit.text))
        yield from without_header(lines, _HEADER)


def _add_observer(app: Filter, client: _Client, options: argparse.Namespace) -> None:
    """Log in reports, which nobody waits for."""

    def observe(ctx: Any) -> None:
        if found := client.look_up(ctx):
            client.tell(ctx, found, None if options.action == "log" else junk())

    if options.domain_zone:

        @app.report.tx_mail
        def observe_sender(ctx: Any, message_id: str, result: Any, sender: str) -> None:
            observe(ctx)

    else:

        @app.report.link_connect
        def observe_client(ctx: Any, rdns: str, fcrdns: Any, src: Any, dst: Any) -> None:
            observe(ctx)


def _ask_early(app: Filter, client: _Client) -> None:
    """Ask early, so that the answers are there when they are needed."""

    @app.report.link_connect
    def ask(ctx: Any, rdns: str, fcrdns: Any, src: Any, dst: Any) -> None:
        client.start(src, rdns)


_ADD = {
    "disconnect": _add_disconnect,
    "reject": _add_reject,
    "junk": _add_junk,
    "header": _add_header,
}


def fold(text: str) -> list[bytes]:
    """Cut a text at spaces to lines that any server takes (RFC 5322, 2.1.1)."""
    return [line.encode() for line in textwrap.wrap(text, _LINE_CHARS, break_on_hyphens=False)]


def without_header(lines: Iterable[bytes], name: bytes) -> Iterator[bytes]:
    """Return the lines of a message but for the headers called ``name``."""
    lines, dropping = iter(lines), False
    for line in lines:
        if line[:1] not in (b" ", b"\t"):
            dropping = line.partition(b":")[0].rstrip().lower() == name.lower()
        if not dropping:
            yield line
        if not line:
            break
    yield from lines


def make_lists(options: argparse.Namespace) -> Lists:
    """Make the lists that the options name."""
    from ._rbl.lists import Lists
    from ._rbl.zone import Zone

    zones = [
        Zone(each, domains, options.resolver, options.timeout)
        for domains, named in ((False, options.zone), (True, options.domain_zone))
        for each in named
    ]
    return Lists(zones, dict(options.code), options.threshold)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the options.

    Raises:
        UsageError: one is wrong.
    """
    options = make_options()
    parsed = options.parse(arguments)
    named = [each.name for each in (*parsed.zone, *parsed.domain_zone)]
    if not named:
        raise options.error("give one --zone or --domain-zone at least")
    if len(set(named)) < len(named):
        raise options.error("argument --zone: a zone is named twice")
    if unknown := {name for (name, _), _ in parsed.code if name}.difference(named):
        raise options.error(f"argument --code: no --zone is named {', '.join(sorted(unknown))}")
    if parsed.action == "disconnect" and parsed.domain_zone and "rdns" not in parsed.domain_of:
        raise options.error("--action disconnect knows no name but rdns; see --domain-of")
    return parsed


def make_options() -> Options:
    """Make the options."""
    options = Options("rbl", SUMMARY, MANUAL)
    spec = "NAME[=WEIGHT[,SECONDS[,SHOWN]]]"
    text = "list of addresses, its weight (1; below 0 for lists of good clients), time limit and "
    options.add_list("--zone", parse_zone, f"{text}display name", spec)
    options.add_list("--domain-zone", parse_zone, "list of domains, likewise", spec)
    text = "the names that lists of domains are asked about (sender,helo,rdns)"
    options.add("--domain-of", metavar="NAME,...", type=parse_names, default=NAMES, help=text)
    text = "take action from this score on (1)"
    options.add("--threshold", metavar="SCORE", type=parse_number, default=1.0, help=text)
    text = f"{', '.join(ACTIONS)} (reject)"
    options.add("--action", metavar="ACTION", choices=ACTIONS, default="reject", help=text)
    text = "what an answer means, and its weight instead of the list's, 0 to ignore it"
    options.add_list("--code", parse_code, text, "[ZONE/]127.X.X.X=NAME[,WEIGHT]")
    text = "address or network that is never looked up"
    options.add_watched_list("--allow", parse_network, text, "NETWORK")
    text = "time limit of lists without their own (3s)"
    options.add("--timeout", metavar="TIME", type=parse_seconds, default=3.0, help=text)
    options.add_resolver()
    options.add_log_only()
    return options
