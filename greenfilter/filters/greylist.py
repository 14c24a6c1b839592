"""Make unknown senders try again: spammers rarely do (RFC 6647)."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from .. import Filter, Status, reject
from ._clients import client_ip, is_ours
from ._decide import Decider, in_words
from ._greylist.greylist import Client, Greylist, Outcome, Settings, Vouching
from ._greylist.lists import (
    Addresses,
    Clients,
    Lists,
    parse_address_or_domain,
    parse_network_or_domain,
)
from ._greylist.rules import Times
from ._options import Options, parse_seconds, parse_whole
from ._store import StoreError, open_store
from ._watched import Derived

SUMMARY = __doc__.rstrip(".\n")
DEFAULT_STORE = "/var/lib/greenfilter/greylist.sqlite"
MANUAL = """
    In smtpd.conf, for the listener that other mail servers use:

        filter "greylist" proc-exec "/usr/local/bin/greenfilter run greylist"
        listen on 0.0.0.0 filter "greylist"

    and, so that it learns whom your users write to, also

        action "out" relay filter "greylist"

    The first time that a client's network (/24, /64), a sender and a recipient come together, the
    recipient is refused with 451. When they come again after --delay and within --window, they are
    let in, and from then on at once, until they have not been used for --lifetime. Numbers and
    extensions in senders, and the tags of BATV and SRS, do not count, so that a mailing list
    has to wait once.

    Big senders try again from another address. When SPF says that an address may send for the
    sender's domain (HELO name, for the null sender), a retry counts from whichever such address.
    Domains that let everybody send do not count.

    Nobody waits who is on this host, in a --local network or has authenticated; whose network has
    delivered --learn-after messages that had to wait; who writes, with SPF's consent, from a domain
    that one of your users has written to; whom --allow-client, --allow-sender or --allow-recipient
    name. Nor does mail to postmaster (RFC 5321, 4.5.1). When a file of theirs changes, it is read
    anew; one that is broken then is refused with a log line, and what was read before goes on.

    When the store is away (an outage, a full disk, a locked database), all mail is let in after
    --store-timeout at most, and the log says so once a minute. When DNS is away, SPF vouches for
    nobody. If anything else fails, mail is let in.
"""


def build(arguments: Sequence[str]) -> Filter:
    """Make the filter.

    Args:
        arguments: its options, see ``greenfilter run greylist --help``.

    Raises:
        UsageError: an option is wrong.
    """
    options = _parse(arguments)
    store = open_store(options.store, options.store_timeout)
    greylist = Greylist(_settings(options), store, _vouching(options))
    # At most three questions to the store, and SPF.
    deadline = 3 * (options.store_timeout + 1.0) + options.spf_timeout + 5.0
    app = Filter("greylist", deadline=deadline, on_error="proceed")
    _add_handlers(app, options, greylist)
    return app


def _add_handlers(app: Filter, options: argparse.Namespace, greylist: Greylist) -> None:
    decide = Decider("greylist", options.log_only)
    app.local_message(dict)

    def outcome_of(ctx: Any, recipient: str) -> Outcome:
        session = ctx.session
        name = session.rdns if session.fcrdns is Status.OK else None
        client = Client(client_ip(session.src), name, session.identity or "")  # type: ignore[arg-type]
        try:
            return greylist.decide(client, ctx.tx.mail_from or "", recipient)
        except StoreError:
            return Outcome(True, "store-away")

    @app.filter.rcpt_to
    def wait_or_pass(ctx: Any, recipient: str) -> Any:
        if is_ours(ctx.session, options.local):
            return None
        outcome = outcome_of(ctx, recipient)
        if outcome.waited:
            ctx.tx.local["waited"] = True
        answer = None
        if not outcome.passed:
            text = f"Greylisted, please try again in {in_words(outcome.wait)}"
            answer = reject(451, text, enhanced="4.7.1")
        return decide(
            ctx,
            answer,
            "pass" if outcome.passed else "defer",
            reason=outcome.reason,
            wait=outcome.wait or None,
            client=ctx.session.src,
            from_=ctx.tx.mail_from or "<>",
            to=recipient,
        )

    @app.report.tx_commit
    def learn(ctx: Any, message_id: str, size: int) -> None:
        try:
            if not is_ours(ctx.session, options.local):
                if ctx.tx.local.get("waited"):
                    greylist.delivered(client_ip(ctx.session.src))  # type: ignore[arg-type]
            else:
                learn_correspondents(ctx)
        except StoreError:
            return  # the log has said so

    @app.report.tx_commit(outgoing=True)
    def learn_from_relayed(ctx: Any, message_id: str, size: int) -> None:
        try:
            learn_correspondents(ctx)
        except StoreError:
            return

    def learn_correspondents(ctx: Any) -> None:
        # The null sender's are bounces: they go to whoever has written to us.
        if options.correspondents and ctx.tx is not None and ctx.tx.mail_from:
            greylist.written_to(ctx.tx.rcpt_to)


def _settings(options: argparse.Namespace) -> Settings:
    return Settings(
        Times(options.delay, options.window, options.lifetime),
        (options.ipv4_prefix, options.ipv6_prefix),
        options.learn_after,
        options.spf_pass,
        _lists(options),
    )


def _lists(options: argparse.Namespace) -> Callable[[], Lists]:
    """Return what gives the white lists as they are now."""
    clients = Derived(options.allow_client, Clients.of)
    senders = Derived(options.allow_sender, Addresses.of)
    recipients = Derived(
        options.allow_recipient, lambda found: Addresses.of([*found, "postmaster@"])
    )
    return lambda: Lists(clients.value, senders.value, recipients.value)


def _vouching(options: argparse.Namespace) -> Vouching:
    if not options.spf:
        return lambda ip, sender, helo: None
    from ._dns import Resolver
    from ._greylist.spf import Spf

    return Spf(Resolver(options.resolver, options.spf_timeout), options.spf_timeout).domain


def make_options() -> Options:
    """Make the options."""
    options = Options("greylist", f"{SUMMARY}.", MANUAL)
    text = "how long a client has to wait (5m)"
    options.add("--delay", metavar="TIME", type=parse_seconds, default=300.0, help=text)
    text = "within what time of its first try it has to come again (2d)"
    options.add("--window", metavar="TIME", type=parse_seconds, default=2 * 86_400.0, help=text)
    text = "how long it is known after its last message (36d)"
    options.add("--lifetime", metavar="TIME", type=parse_seconds, default=36 * 86_400.0, help=text)
    text = "bits of a network whose clients count as one (%(default)d)"
    options.add("--ipv4-prefix", metavar="BITS", type=parse_whole(0, 32), default=24, help=text)
    options.add("--ipv6-prefix", metavar="BITS", type=parse_whole(0, 128), default=64, help=text)
    text = "deliveries after which a network need not wait, 0 for never (%(default)d)"
    options.add("--learn-after", metavar="NUMBER", type=parse_whole(0, 10**6), default=5, help=text)
    text = "do not learn the domains that your users write to"
    options.add("--no-correspondents", dest="correspondents", action="store_false", help=text)
    text = "do not ask for SPF; then pools of addresses have to wait for each of them"
    options.add("--no-spf", dest="spf", action="store_false", help=text)
    text = "whoever SPF vouches for need not wait at all"
    options.add("--spf-pass", action="store_true", help=text)
    text = "how long the DNS questions of one message may take (5s)"
    options.add("--spf-timeout", metavar="TIME", type=parse_seconds, default=5.0, help=text)
    options.add_resolver()
    text = "client that need not wait: address, network, or domain of its confirmed rDNS name"
    options.add_watched_list("--allow-client", parse_network_or_domain, text, "CLIENT")
    text = "sender that need not wait, which anyone can pretend to be: address, name@ or domain"
    options.add_watched_list("--allow-sender", parse_address_or_domain, text, "ADDRESS")
    text = "recipient that nobody has to wait for: address, name@ or domain"
    options.add_watched_list("--allow-recipient", parse_address_or_domain, text, "ADDRESS")
    options.add_local()
    options.add_log_only()
    options.add_store(DEFAULT_STORE)
    return options


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    options = make_options()
    parsed = options.parse(arguments)
    if parsed.delay >= parsed.window:
        raise options.error("--delay must be less than --window")
    if parsed.spf_pass and not parsed.spf:
        raise options.error("--spf-pass and --no-spf exclude each other")
    return parsed
