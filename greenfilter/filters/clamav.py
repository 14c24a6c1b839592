"""Keep viruses out: have clamd scan each message (clamd(8))."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

from .. import Filter, Message, reject
from ._clamav.clamd import Verdict
from ._clamav.scanner import Scan, Scanner
from ._decide import Decider
from ._options import Options, parse_seconds, parse_size, parse_whole
from ._servers import Server, Servers, server_type

SUMMARY = "Keep viruses out: have clamd scan each message."
DEFAULT_SERVER = Server("/run/clamav/clamd.ctl", 0)
STATUS = "X-Virus-Status"
MANUAL = f"""
    In smtpd.conf:

        filter "clamav" proc-exec "/usr/local/bin/greenfilter run clamav"
        listen on 0.0.0.0 filter "clamav"

    smtpd's user must be able to write to clamd's socket: put it into the group clamav, or have
    clamd listen on TCP (TCPSocket, TCPAddr). Set clamd's StreamMaxLength to at least --max-size.

    What happens to a message with a virus is --action's to say:

        reject  it is refused with 550, with the name of the virus
        junk    it goes on as junk: "X-Spam: Yes" and {STATUS} are put on top
        header  it goes on, and every message says in {STATUS} what came of its scan

    With reject, a message is sent to clamd while its lines arrive, and passes on unchanged; with
    the others it is held until the verdict is there. A {STATUS} that came with a message
    is removed where the filter writes one.

    --action reject is safe where the others are read: users do not look at headers.

    When no clamd scans within --timeout (none is there, it died, it is overloaded, there is no room
    for a copy), --on-failure says what happens; by default the client is asked to come again. A
    server that failed is asked last for ten seconds. The log says once a minute that it is away.
    What clamd will not scan, because it is above --max-size, StreamMaxLength or another limit that
    it tells (AlertExceedsMax), is for --oversize to say.
"""


def build(arguments: Sequence[str]) -> Filter:
    """Make the filter.

    Args:
        arguments: its options, see ``greenfilter run clamav --help``.

    Raises:
        UsageError: an option is wrong.
    """
    options = make_options().parse(arguments)
    servers = Servers("clamav", options.server or [DEFAULT_SERVER])
    scanner = Scanner(servers, options.timeout, options.max_scans, options.max_size)
    refuses = options.on_failure == "tempfail" and not options.log_only
    on_error = "tempfail" if refuses else "proceed"
    app = Filter("clamav", deadline=options.timeout + 15.0, on_error=on_error)
    judge = _Judge(options)
    if options.action == "reject" or options.log_only:

        @app.tap
        def scan_lines(ctx: Any, lines: Iterator[bytes]) -> Any:
            with Scan(scanner) as scan:
                scan.feed(lines)
                return judge(ctx, scan.finish())

    else:

        @app.message
        def scan_message(ctx: Any, message: Message) -> Any:
            verdict = scanner.scan(line for batch in message.lines() for line in batch)
            return judge(ctx, verdict, message)

    return app


class _Judge:
    """Says what a verdict means for the message."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._decide = Decider("clamav", options.log_only)

    def __call__(self, ctx: Any, verdict: Verdict, message: Message | None = None) -> Any:
        if verdict.kind == "infected" and self._is_ignored(verdict.detail):
            verdict = Verdict("clean", verdict.detail)
        what, answer = self._meaning(verdict)
        decision = self._decide(
            ctx,
            answer,
            what,
            reason=verdict.kind,
            virus=verdict.detail if verdict.kind == "infected" else None,
            ignored=(verdict.detail or None) if verdict.kind == "clean" else None,
            detail=verdict.detail if verdict.kind in ("oversize", "failed") else None,
            message=ctx.tx and ctx.tx.message_id,
            client=ctx.session.src,
            from_=(ctx.tx and ctx.tx.mail_from) or "<>",
        )
        if message is not None and answer is None:
            self._mark(message, verdict, what)
        return decision

    def _meaning(self, verdict: Verdict) -> tuple[str, Any]:
        options = self._options
        if verdict.kind == "infected":
            if options.action == "reject":
                text = f"Virus found: {verdict.detail}"
                return "reject", reject(550, text, enhanced="5.7.1")
            return ("junk" if options.action == "junk" else "mark"), None
        policy = {"oversize": options.oversize, "failed": options.on_failure}.get(verdict.kind)
        if policy == "tempfail":
            return policy, reject(451, "Virus scan failed, try again later", enhanced="4.7.1")
        if policy == "reject":
            return policy, reject(552, "Message too big to be scanned", enhanced="5.3.4")
        return "pass", None

    def _mark(self, message: Message, verdict: Verdict, what: str) -> None:
        """Write the headers; nothing else is changed."""
        if self._options.action == "junk" and what != "junk":
            return
        status = {
            "clean": "Clean",
            "infected": f"Infected ({verdict.detail})",
            "oversize": "Not scanned (too big)",
            "failed": "Not scanned (no scanner)",
        }
        message.headers.remove(STATUS)
        message.headers.prepend(STATUS, status[verdict.kind])
        if what == "junk":
            message.headers.remove("X-Spam")
            message.headers.prepend("X-Spam", "Yes")

    def _is_ignored(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self._options.ignore)


def make_options() -> Options:
    """Make the options."""
    options = Options("clamav", SUMMARY, MANUAL)
    text = f"clamd: unix:PATH, HOST:PORT or [IPv6]:PORT ({DEFAULT_SERVER}); the first that can scan"
    options.add_list("--server", server_type(3310), text, "SERVER")
    text = "what happens to a message with a virus (%(default)s)"
    actions = ("reject", "junk", "header")
    options.add("--action", choices=actions, default="reject", help=text)
    text = "virus that is none, such as PUA.* or Heuristics.Encrypted.*"
    options.add_watched_list("--ignore", str, text, "GLOB")
    text = "what happens when no scan was possible (%(default)s)"
    options.add("--on-failure", choices=("tempfail", "pass"), default="tempfail", help=text)
    text = "what happens to what is too big for a scan (%(default)s)"
    choices = ("pass", "tempfail", "reject")
    options.add("--oversize", choices=choices, default="pass", help=text)
    text = "a longer message is not scanned (25M)"
    options.add("--max-size", metavar="SIZE", type=parse_size, default=25 << 20, help=text)
    text = "scans that a worker has clamd do at once; see its MaxThreads (%(default)d)"
    options.add("--max-scans", metavar="NUMBER", type=parse_whole(1, 1000), default=8, help=text)
    text = "from the end of a message to the verdict, on all servers together (60s)"
    options.add("--timeout", metavar="TIME", type=parse_seconds, default=60.0, help=text)
    options.add_log_only()
    return options
