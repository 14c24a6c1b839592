"""Limit messages, recipients and bytes of clients, users and senders."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterable, Sequence
from ipaddress import ip_network
from typing import Any

from .. import Decision, Filter, Status, reject
from ._clients import client_ip, is_in
from ._decide import Decider, in_words
from ._options import Options, parse_whole
from ._paths import program
from ._ratelimit.ledger import Claim, Ledger, Refusal
from ._ratelimit.limit import Limit, parse_limits
from ._ratelimit.notify import Notifier, parse_command
from ._store import StoreError, open_store

SUMMARY = __doc__.rstrip(".\n")
DEFAULT_STORE = "/var/lib/greenfilter/ratelimit.sqlite"
MANUAL = """
    In smtpd.conf:

        filter "ratelimit" proc-exec "/usr/local/bin/greenfilter run ratelimit \\
            --limit user:recipients=100/hour,500/day --limit network:messages=60/minute \\
            --limit sender:bytes=1G/day --notify /usr/local/sbin/tell-postmaster"
        listen on 0.0.0.0 filter "ratelimit"

    It comes last in a chain, so that it is not asked about what others refuse.

    network limits count clients that have not authenticated, by their address or the network of
    --ipv4-prefix and --ipv6-prefix; user limits those that have, by their user name; sender limits
    all mail but bounces, by its envelope sender. Clients on this host have no network limit, those
    in --local networks no limit.

    A recipient is reserved when it is asked for, and given back when it is refused by whomever,
    when the message is, or when the client leaves; so sessions at the same time cannot pass a limit
    together, and only what was delivered counts. The size of a message is reserved at its end.
    Counts are kept in steps of a sixtieth of the period, each until the period has passed since it
    began. What a worker had reserved that was killed is free again after 15 minutes.

    Above a limit --answer is given, with the time to wait. A message that is larger than a limit
    could never pass, so it is refused with 552.

    --notify runs a command once for each limit of a network, user or sender within the limit's
    period. It gets the facts as a JSON object on its standard input, and in its environment:
    RATELIMIT_SCOPE, RATELIMIT_WHO, RATELIMIT_LIMIT, RATELIMIT_USED, RATELIMIT_WAIT (seconds),
    RATELIMIT_CLIENT, RATELIMIT_USER, RATELIMIT_MAIL_FROM, RATELIMIT_RCPT_TO, RATELIMIT_SESSION.

    When the store is away, mail passes after --store-timeout at most, or is refused with 451 by
    --store-away tempfail; the log says so once a minute. What is delivered meanwhile is counted
    when it is back within 15 minutes. If anything else fails, mail passes.
"""


class Message:
    """What one message has reserved.

    Attributes:
        holder: its name in the ledger.
        claims: limits that apply to it, each with whose it is.
        recipients: that are reserved.
        size: bytes; 0 while it is not known.
        settled: it was delivered.
    """

    def __init__(self) -> None:
        self.holder = ""
        self.claims: list[tuple[Limit, str]] = []
        self.recipients = 0
        self.size = 0
        self.settled = False

    def wants(self, recipients: int, size: int) -> list[Claim]:
        """Return what it wants of each limit."""
        amounts = {"messages": 1, "recipients": recipients, "bytes": size}
        return [
            Claim(limit, who, amounts[limit.kind] if recipients else 0)
            for limit, who in self.claims
        ]


def build(arguments: Sequence[str]) -> Filter:
    """Make the filter.

    Args:
        arguments: its options, see ``greenfilter run ratelimit --help``.

    Raises:
        UsageError: an option is wrong.
    """
    options = _parse(arguments)
    store = open_store(options.store, options.store_timeout)
    notifier = Notifier(options.notify, store) if options.notify else None
    limiter = _Limiter(options, Ledger(store), notifier)
    app = Filter("ratelimit", deadline=3 * (options.store_timeout + 1) + 5, on_error="proceed")
    app.local_message(Message, limiter.give_back)
    app.filter.rcpt_to(limiter.at_rcpt_to)
    app.report.tx_rcpt(limiter.at_tx_rcpt)
    app.report.tx_commit(limiter.at_tx_commit)
    if any(limit.kind == "bytes" for limit in limiter.limits):
        app.tap(limiter.weigh)
    return app


class _Limiter:
    """The handlers."""

    def __init__(
        self, options: argparse.Namespace, ledger: Ledger, notifier: Notifier | None
    ) -> None:
        self.limits: list[Limit] = options.limit
        self._options = options
        self._ledger = ledger
        self._notifier = notifier
        self._decide = Decider("ratelimit", options.log_only)

    def at_rcpt_to(self, ctx: Any, recipient: str) -> Decision | None:
        """Reserve one recipient more."""
        message = self._message(ctx)
        return self._reserve(ctx, message, len(ctx.tx.rcpt_to) + 1, recipient)

    def at_tx_rcpt(self, ctx: Any, message_id: str, result: Status, recipient: str) -> None:
        """Give a recipient back that smtpd, or another filter, has refused."""
        message: Message | None = ctx.tx.local if ctx.tx is not None else None
        if message is None or result is Status.OK:
            return
        accepted = len(ctx.tx.rcpt_to)
        if message.recipients > accepted:
            self._give_back(message, accepted)

    def weigh(self, ctx: Any, lines: Iterable[bytes]) -> Decision | None:
        """Reserve the size of a message, when it is known."""
        size = sum(len(line) + 2 for line in lines)
        message = self._message(ctx)
        message.size = size
        return self._reserve(ctx, message, len(ctx.tx.rcpt_to), None)

    def at_tx_commit(self, ctx: Any, message_id: str, size: int) -> None:
        """Count what was delivered."""
        if ctx.tx is None:
            return
        message = self._message(ctx)
        claims = message.wants(len(ctx.tx.rcpt_to), message.size or size)
        message.settled = True
        if claims:
            self._ledger.settle(message.holder, claims, reserved=message.recipients > 0)

    def give_back(self, message: Message) -> None:
        """Return back what a message had reserved that was not delivered."""
        if message.recipients and not message.settled:
            self._ledger.settle(message.holder, message.wants(0, 0))

    def _give_back(self, message: Message, accepted: int) -> None:
        try:
            self._ledger.reserve(message.holder, message.wants(accepted, max(1, message.size)))
        except StoreError:
            return  # it is settled with what was accepted
        message.recipients = accepted

    def _reserve(
        self, ctx: Any, message: Message, recipients: int, recipient: str | None
    ) -> Decision | None:
        claims = message.wants(recipients, max(1, message.size))
        if not claims:
            return None
        force = self._options.log_only
        try:
            refusal = self._ledger.reserve(message.holder, claims, force=force)
        except StoreError:
            if self._options.store_away == "proceed":
                return None
            answer = reject(451, "Limits cannot be checked now, try again later", enhanced="4.3.0")
            return self._decide(ctx, answer, "defer", reason="store-away")
        if refusal is None or force:
            message.recipients = recipients
        return None if refusal is None else self._refuse(ctx, refusal, recipient)

    def _refuse(self, ctx: Any, refusal: Refusal, recipient: str | None) -> Decision | None:
        limit, who = refusal.claim.limit, refusal.claim.who
        facts = {
            "scope": limit.scope,
            "who": who,
            "limit": f"{limit.kind} {limit.shown}",
            "used": refusal.used,
            "wait": math.ceil(min(refusal.wait, limit.period)),
            "client": str(ctx.session.src),
            "user": ctx.session.username,
            "mail_from": ctx.tx.mail_from,
            "rcpt_to": recipient,
            "session": ctx.session.id,
        }
        if self._notifier is not None:
            self._notifier.tell(refusal, {"time": round(time.time()), **facts})
        return self._decide(ctx, self._answer(refusal), "refuse", **{**facts, "session": None})

    def _answer(self, refusal: Refusal) -> Decision:
        limit = refusal.claim.limit
        if math.isinf(refusal.wait) and limit.kind == "bytes":
            text = f"Message is larger than what this {limit.scope} may send ({limit.shown})"
            return reject(552, text, enhanced="5.3.4")
        code: int = self._options.answer
        text = f"Too many {limit.kind} from this {limit.scope} ({limit.shown})"
        text = f"{text}; try again in {in_words(min(refusal.wait, limit.period))}"
        return reject(code, text, enhanced=f"{code // 100}.7.1")

    def _message(self, ctx: Any) -> Message:
        """Return what is kept of the open message; again after a worker was replaced."""
        message: Message = ctx.tx.local
        if not message.holder:
            message.holder = f"{ctx.session.id}.{ctx.tx.message_id}"
            message.claims = self._claims(ctx)
        return message

    def _claims(self, ctx: Any) -> list[tuple[Limit, str]]:
        session = ctx.session
        ip = client_ip(session.src)
        if ip is not None and is_in(ip, self._options.local):
            return []
        whose: dict[str, str | None] = {"user": (session.username or "").lower()}
        whose["sender"] = (ctx.tx.mail_from or "").lower()
        if ip is not None and not ip.is_loopback and not session.authenticated:
            prefix = self._options.ipv4_prefix if ip.version == 4 else self._options.ipv6_prefix
            whose["network"] = str(ip_network((ip, prefix), strict=False))
        return [(limit, who) for limit in self.limits if (who := whose.get(limit.scope))]


def make_options() -> Options:
    """Make the options."""
    options = Options("ratelimit", f"{SUMMARY}.", MANUAL)
    text = "limit of each network, user or sender, such as user:recipients=100/hour,500/day or "
    text += "sender:bytes=1G per 2 days"
    options.add_list("--limit", parse_limits, text, "SCOPE:KIND=RATE[,RATE...]")
    text = "what is answered above a limit: 450 or 550 (%(default)d)"
    options.add("--answer", type=parse_whole(450, 550), choices=(450, 550), default=450, help=text)
    text = "bits of an IPv4 network that count as one client (%(default)d)"
    options.add("--ipv4-prefix", metavar="BITS", type=parse_whole(0, 32), default=32, help=text)
    text = "bits of an IPv6 network that count as one client (%(default)d)"
    options.add("--ipv6-prefix", metavar="BITS", type=parse_whole(0, 128), default=64, help=text)
    text = "command to run once for each limit of a network, user or sender, and period"
    options.add("--notify", path=program, metavar="COMMAND", type=parse_command, help=text)
    text = "what to do while the store is away (%(default)s)"
    options.add("--store-away", choices=("proceed", "tempfail"), default="proceed", help=text)
    options.add_local()
    options.add_log_only()
    options.add_store(DEFAULT_STORE)
    return options


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    options = make_options()
    parsed = options.parse(arguments)
    parsed.limit = [limit for some in parsed.limit for limit in some]
    if not parsed.limit:
        raise options.error("there is no limit; give at least one --limit")
    keys = [(limit.scope, limit.kind, limit.period) for limit in parsed.limit]
    if len(set(keys)) < len(keys):
        raise options.error("two limits of the same scope, kind and period")
    return parsed
