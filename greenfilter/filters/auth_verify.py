"""Verify SPF, DKIM, DMARC and ARC, and tell the results in Authentication-Results."""

from __future__ import annotations

import argparse
import re
import socket
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gevent

from .. import Filter, junk
from ._auth_verify.action import Action, choose
from ._clients import client_ip, is_ours
from ._decide import Decider
from ._options import Options, parse_network, parse_seconds, parse_whole
from ._paths import whole_value

if TYPE_CHECKING:
    from .. import Context, Decision, Message
    from ._auth_verify.check import Envelope, Verdict
    from ._auth_verify.domains import SuffixList

SUMMARY = __doc__.rstrip(".\n")
ACTIONS = ("header", "junk", "reject")
_SPARE_SECONDS = 30.0  # of the deadline, for reading a big message
MANUAL = """
    In smtpd.conf, for the listener that other mail servers use:

        filter "dmarc" proc-exec "/usr/local/bin/greenfilter run auth_verify --enforce reject"
        listen on 0.0.0.0 filter "dmarc"

    Each message gets one Authentication-Results header (RFC 8601) on top, with the results of SPF
    (RFC 7208; of the HELO name for the null sender), DKIM (RFC 6376) and DMARC (RFC 9989), and with
    --arc of ARC (RFC 8617). Headers of that name that claim to be ours, in whatever spelling, are
    removed, also from what authenticated clients send, whose mail is not verified. Mail from this
    host and from --local networks is left as it is. The log has a line for each of them too.

    Nothing is refused unless you say so:

        --enforce reject    what fails DMARC is refused where the policy says reject, and gets
                            X-Spam: Yes on top, so that it is delivered as junk, where it says
                            quarantine; --enforce junk marks both. Mail with more domains in
                            From than are asked about (8) is treated likewise, as
                            nobody knows what all of them say
        --spf-fail ACTION   what SPF says fail about, and DMARC does not pass
        --bad-from ACTION   mail with several From fields, with several domains in From, or with
                            none; its authors' policies are enforced as well
        --defer-temperror   have mail sent again (451) that could not be checked, as DNS is away

    Forwarders and lists break SPF, and often DKIM: name the ones that you trust with --forwarder;
    their mail is verified, but not refused and not marked as junk.

    When DNS is away, results are temperror, after --timeout at most, and mail is let in (but for
    --defer-temperror). If anything else fails, mail is deferred (451): else a header that a
    stranger has forged could pass for ours.
"""


def build(arguments: Sequence[str]) -> Filter:
    """Make the filter.

    Args:
        arguments: its options, see ``greenfilter run auth_verify --help``.

    Raises:
        UsageError: an option is wrong.
    """
    options = make_options().parse(arguments)
    from ._auth_verify.check import Check, Envelope
    from ._auth_verify.results import NAME, compose, remove_claims
    from ._dns import Resolver

    resolver = Resolver(options.resolver, options.dns_timeout)
    deadline = options.timeout + _SPARE_SECONDS
    app = Filter("auth_verify", deadline=deadline, on_error="tempfail")
    decide = Decider("auth_verify", options.log_only)

    @app.message
    def verify(ctx: Any, message: Message) -> Any:
        session = ctx.session
        authserv_id = options.authserv_id or app.config.admd or socket.gethostname()
        if is_ours(session, options.local):
            if session.authenticated and not options.log_only:
                remove_claims(message.headers, [authserv_id, *options.remove_id])
            why = "authenticated" if session.authenticated else "local"
            about = {"user": session.username, "client": session.src}
            return decide(ctx, None, "pass", reason=why, **about, from_=ctx.tx.mail_from or "<>")
        ip = client_ip(session.src)
        assert ip is not None  # who comes by a socket is ours
        envelope = Envelope(ip, ctx.tx.mail_from or "", session.identity or "")
        check = Check(message, arc=options.arc)

        def conclude() -> tuple[Verdict, Decision | None, str]:
            questions = partial(resolver.message, options.queries, options.timeout)
            verdict = check.conclude(envelope, questions, options.public_suffix_list)
            action = choose(verdict, envelope, options)
            return verdict, _log(decide, ctx, envelope, verdict, action), action.what

        if options.log_only:
            gevent.spawn(conclude)  # mail does not wait for it
            return None
        verdict, decision, what = conclude()
        if decision is None:
            remove_claims(message.headers, [authserv_id, *options.remove_id])
            spf, dkim, dmarc, arc, _ = verdict
            value = compose(authserv_id, spf, envelope.mail_from, dkim, dmarc, arc)
            message.headers.prepend(NAME, value)
            if what == "junk":
                return junk()
        return decision

    return app


def _log(
    decide: Decider, ctx: Context, envelope: Envelope, verdict: Verdict, action: Action
) -> Decision | None:
    spf, dkim, dmarc, arc, _ = verdict
    signatures = ",".join(f"{each.result}:{each.domain or '-'}" for each in dkim)
    return decide(
        ctx,
        action.decision,
        action.what,
        reason=action.reason,
        spf=f"{spf.result}:{spf.domain or '-'}",
        spf_reason=spf.reason or None,
        dkim=signatures or "none",
        dkim_reason=next((each.reason for each in dkim if each.reason), None),
        dmarc=dmarc.result,
        dmarc_reason=dmarc.reason or None,
        policy=dmarc.policy,
        author=dmarc.author_domain,
        arc=arc and arc.result,
        arc_reason=(arc and arc.reason) or None,
        client=envelope.ip,
        from_=envelope.mail_from or "<>",
    )


def make_options() -> Options:
    """Make the options."""
    options = Options("auth_verify", f"{SUMMARY}.", MANUAL)
    text = "who verifies, in the header (smtpd's own name)"
    options.add("--authserv-id", metavar="NAME", type=_parse_authserv_id, help=text)
    text = "another name of ours: headers that claim to be its are removed too"
    options.add_watched_list("--remove-id", _parse_authserv_id, text, "NAME")
    text = f"how DMARC policies are enforced: {', '.join(ACTIONS)} (%(default)s)"
    options.add("--enforce", metavar="HOW", choices=ACTIONS, default="header", help=text)
    text = "what is done when SPF fails, and DMARC does not pass (%(default)s)"
    options.add("--spf-fail", metavar="ACTION", choices=ACTIONS, default="header", help=text)
    text = "what is done when From does not name one domain (%(default)s)"
    options.add("--bad-from", metavar="ACTION", choices=ACTIONS, default="header", help=text)
    text = "have mail sent again that could not be checked"
    options.add("--defer-temperror", action="store_true", help=text)
    options.add("--arc", action="store_true", help="verify ARC too")
    text = (
        "take what this file (of publicsuffix.org) says for organizations, as RFC 7489 did, "
        "instead of what their DNS says"
    )
    options.add(
        "--public-suffix-list", path=whole_value, metavar="FILE", type=_suffix_list, help=text
    )
    text = "client whose mail is not refused, and not marked as junk"
    options.add_watched_list("--forwarder", parse_network, text, "NETWORK")
    text = "how long the DNS questions of one message may take (15s)"
    options.add("--timeout", metavar="TIME", type=parse_seconds, default=15.0, help=text)
    text = "how long one question may take (5s)"
    options.add("--dns-timeout", metavar="TIME", type=parse_seconds, default=5.0, help=text)
    text = "how many questions each of SPF, keys and DMARC may ask about a message (%(default)d)"
    options.add("--queries", metavar="NUMBER", type=parse_whole(1, 10_000), default=100, help=text)
    options.add_resolver()
    options.add_local()
    options.add_log_only()
    return options


def _parse_authserv_id(text: str) -> str:
    """Parse a name for the header, mostly a host's."""
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,253}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a name: letters, digits, dots, - and _")
    return text


def _suffix_list(path: str) -> SuffixList:
    """The public suffix list."""
    from ._auth_verify.domains import SuffixList

    try:
        suffixes = SuffixList(Path(path).read_text("utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        text = getattr(error, "strerror", None) or "is not text in UTF-8"
        raise argparse.ArgumentTypeError(f"{path}: {text}") from None
    if not len(suffixes):
        raise argparse.ArgumentTypeError(f"{path}: there are no names in it")
    return suffixes
