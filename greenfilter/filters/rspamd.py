"""Let rspamd judge each message, sign it and write its headers (rspamd(8))."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Sequence
from typing import Any

from .. import Decision, Filter, Message, reject
from ._clients import is_ours
from ._decide import Decider
from ._options import Options, parse_seconds, parse_size
from ._rspamd import edits
from ._rspamd.facts import facts_of
from ._rspamd.http import Client, Header
from ._rspamd.verdict import Verdict, fold, read
from ._servers import Deadline, Server, Servers, ServiceError, describe, server_type

SUMMARY = "Let rspamd judge each message, sign it and write its headers."
DEFAULT_SERVER = Server("127.0.0.1", 11333)
MANUAL = """
    In smtpd.conf:

        filter "rspamd" proc-exec "/usr/local/bin/greenfilter run rspamd"
        listen on 0.0.0.0 filter "rspamd"

    It talks to rspamd's "normal" worker, or to a proxy worker in front of it, and tells it all that
    is known: client, HELO, rDNS (if it is forward confirmed), user, TLS, envelope, message id. A
    message is held until rspamd has answered. Then it is done as rspamd says:

        no action          the message goes on
        greylist           --greylist: 451, or go on
        add header         "X-Spam: Yes" is put on top, or what milter_headers has as spam_header
        rewrite subject    the subject is replaced
        soft reject        451, with rspamd's text
        reject             550, with rspamd's text
        quarantine         --quarantine: smtpd has no quarantine
        discard            --discard: smtpd cannot throw a message away

    Headers that rspamd adds and removes, its DKIM signatures and a body that it rewrites are put in
    with every action that lets the message go on. What it does not name keeps its bytes. It comes
    too late for changes of sender and recipients: --envelope-changes says what happens then.

    The greylisting module of rspamd answers "soft reject" while a message has to wait; "greylist"
    means that the module is not there (it needs Redis). With --greylist defer such a message never
    gets in as long as its score is the same; use pass if you do not want that.

    When no rspamd answers within --timeout, or its answer makes no sense, --on-failure says what
    happens; by default the client is asked to come again. Each server gets its share of the time;
    one that failed is asked last for ten seconds. The log says once a minute that it is away.
"""
_TRY_LATER = "Try again later"


def build(arguments: Sequence[str]) -> Filter:
    """Make the filter.

    Args:
        arguments: its options, see ``greenfilter run rspamd --help``.

    Raises:
        UsageError: an option is wrong.
    """
    options = make_options().parse(arguments)
    scanner = _Scanner(options)
    judge = _Judge(options)
    refuses = options.on_failure == "tempfail" and not options.log_only
    on_error = "tempfail" if refuses else "proceed"
    app = Filter("rspamd", deadline=options.timeout + 10.0, on_error=on_error)

    @app.message
    def scan(ctx: Any, message: Message) -> Any:
        if options.skip_ours and is_ours(ctx.session, options.local):
            return judge.skip(ctx)
        if message.size > options.max_size:
            return judge.oversize(ctx, message.size)
        try:
            verdict = scanner.scan(ctx, message)
        except (OSError, ServiceError) as error:
            return judge.failed(ctx, message, describe(error))
        return judge(ctx, message, verdict)

    return app


class _Scanner:
    """Asks the servers, one after the other."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._servers = Servers("rspamd", options.server or [DEFAULT_SERVER])
        self._client = Client()

    def scan(self, ctx: Any, message: Message) -> Verdict:
        """Scan a message. Switches greenlets.

        Raises:
            ServiceError: no server did it.
        """
        options = self._options
        headers: list[Header] = [
            ("User-Agent", b"greenfilter"),
            ("Connection", b"keep-alive"),
            ("Flags", b"milter,body_block"),
            *facts_of(ctx, options.settings_id, options.mta_name),
        ]
        deadline = Deadline(options.timeout)
        servers = self._servers.in_order()
        reasons = []
        for position, server in enumerate(servers):
            try:
                with self._servers.asking(server):
                    share = deadline.share(len(servers) - position)
                    return self._ask(server, headers, message, share)
            except (OSError, ServiceError) as error:
                reasons.append(f"{server}: {describe(error)}")
        raise ServiceError("; ".join(reasons))

    def _ask(
        self, server: Server, headers: list[Header], message: Message, deadline: Deadline
    ) -> Verdict:
        def body() -> Iterable[bytes]:
            with message.open() as file:
                while data := file.read(1 << 16):
                    yield data

        return read(self._client.post(server, "/checkv2", headers, body, message.size, deadline))


class _Judge:
    """Does with a message what rspamd says."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._decide = Decider("rspamd", options.log_only)

    def __call__(self, ctx: Any, message: Message, verdict: Verdict) -> Any:
        """Edit a message and return the decision."""
        policy, refusal = self._policy(verdict)
        if policy in ("pass", "junk", "subject") and verdict.envelope:
            policy, refusal = self._envelope(policy, verdict)
        failed = verdict.faults
        if refusal is None and not self._decide.log_only:
            failed = failed + self._edit(message, verdict, policy)
        return self._decide(
            ctx,
            refusal,
            policy,
            action=verdict.action,
            score=f"{verdict.score:.2f}/{verdict.required:.2f}",
            symbols=",".join(verdict.symbols)[:1000] or None,
            no_action="yes" if verdict.no_action else None,
            envelope="; ".join(verdict.envelope) or None,
            not_done="; ".join(failed)[:1000] or None,
            **_about(ctx),
        )

    def failed(self, ctx: Any, message: Message, reason: str) -> Any:
        """Return the decision where no server gave one."""
        policy = self._options.on_failure
        refusal = None
        if policy == "tempfail":
            refusal = reject(451, "Spam check failed, try again later", enhanced="4.7.1")
        elif policy == "junk" and not self._decide.log_only:
            edits.mark_as_spam(message, Verdict("add header"))
        return self._decide(ctx, refusal, policy, reason="failed", detail=reason, **_about(ctx))

    def oversize(self, ctx: Any, bytes_: int) -> Any:
        """Return the decision for what is too big."""
        policy = self._options.oversize
        refusal = {
            "pass": None,
            "tempfail": reject(451, "Message too big to be checked now", enhanced="4.3.4"),
            "reject": reject(552, "Message too big to be checked", enhanced="5.3.4"),
        }[policy]
        return self._decide(ctx, refusal, policy, reason="oversize", bytes=bytes_, **_about(ctx))

    def skip(self, ctx: Any) -> Any:
        """Let a message of our own clients pass."""
        return self._decide(ctx, None, "pass", reason="ours", **_about(ctx))

    def _policy(self, verdict: Verdict) -> tuple[str, Decision | None]:
        """Return what an action means, in a word, and the answer if it is a refusal."""
        options, action = self._options, verdict.action
        if verdict.no_action:
            return "pass", None
        if action == "reject" and verdict.instead_of_reject:
            action = verdict.instead_of_reject
        said = _reply_text(verdict.smtp_message)
        if action == "reject":
            return "reject", reject(550, said or "Spam message rejected", enhanced="5.7.1")
        if action == "soft reject":
            return "tempfail", reject(451, said or _TRY_LATER, enhanced="4.7.1")
        if action == "greylist" and options.greylist == "defer":
            text = said or f"Greylisted, {_TRY_LATER.lower()}"
            return "tempfail", reject(451, text, enhanced="4.7.1")
        if action in ("quarantine", "discard"):
            policy = getattr(options, action)
            text = said or "Spam message rejected"
            return policy, reject(550, text, enhanced="5.7.1") if policy == "reject" else None
        return {"add header": "junk", "rewrite subject": "subject"}.get(action, "pass"), None

    def _envelope(self, policy: str, verdict: Verdict) -> tuple[str, Decision | None]:
        """Return what happens to a message whose envelope is to be changed."""
        text = "Sender or recipients cannot be changed any more"
        if self._options.envelope_changes == "tempfail":
            return "tempfail", reject(451, text, enhanced="4.3.5")
        if self._options.envelope_changes == "reject":
            return "reject", reject(550, text, enhanced="5.3.5")
        return policy, None

    def _edit(self, message: Message, verdict: Verdict, policy: str) -> list[str]:
        """Edit a message that goes on; return what could not be done."""
        failed = edits.apply(message, verdict)
        try:
            if verdict.no_action:
                message.headers.append("X-Rspamd-Action", fold(verdict.action))
            elif policy == "junk":
                edits.mark_as_spam(message, verdict)
            elif policy == "subject" and verdict.subject is not None:
                edits.rewrite_subject(message, fold(verdict.subject))
        except ValueError as error:
            failed.append(str(error))
        return failed


def _about(ctx: Any) -> dict[str, Any]:
    tx = ctx.tx
    return {
        "message": tx and tx.message_id,
        "client": ctx.session.src,
        "user": ctx.session.username,
        "from_": (tx and tx.mail_from) or "<>",
        "to": ",".join(tx.rcpt_to)[:500] if tx else None,
    }


def _reply_text(text: str | None) -> str:
    """Return a text of rspamd's as the rest of an SMTP reply."""
    words = re.sub(r"[^!-~]+", lambda found: " " if found[0].isspace() else "?", text or "")
    return words.strip()[:400]


def make_options() -> Options:
    """Make the options."""
    options = Options("rspamd", SUMMARY, MANUAL)
    text = f"rspamd: HOST:PORT, [IPv6]:PORT or unix:PATH ({DEFAULT_SERVER}); the first that answers"
    options.add_list("--server", server_type(11333), text, "SERVER")
    text = "for an answer, on all servers together (30s)"
    options.add("--timeout", metavar="TIME", type=parse_seconds, default=30.0, help=text)
    text = "what happens when there is no answer (%(default)s)"
    policies = ("tempfail", "pass", "junk")
    options.add("--on-failure", choices=policies, default="tempfail", help=text)
    text = 'what happens at "greylist" (%(default)s)'
    options.add("--greylist", choices=("defer", "pass"), default="defer", help=text)
    text = 'what happens at "quarantine" (%(default)s)'
    policies = ("junk", "reject", "pass")
    options.add("--quarantine", choices=policies, default="junk", help=text)
    text = 'what happens at "discard" (%(default)s)'
    options.add("--discard", choices=policies, default="reject", help=text)
    text = "what happens when sender or recipients are to be changed (%(default)s)"
    policies = ("tempfail", "reject", "ignore")
    options.add("--envelope-changes", choices=policies, default="tempfail", help=text)
    text = "a longer message is not sent to rspamd (50M, as its max_message)"
    options.add("--max-size", metavar="SIZE", type=parse_size, default=50 << 20, help=text)
    text = "what happens to such a message (%(default)s)"
    policies = ("pass", "tempfail", "reject")
    options.add("--oversize", choices=policies, default="pass", help=text)
    text = "name of the settings of rspamd that apply"
    options.add("--settings-id", metavar="NAME", help=text)
    text = "name of this host for rspamd (that of the greeting)"
    options.add("--mta-name", metavar="NAME", help=text)
    text = "leave mail of this host, of --local networks and of users alone; it is not signed then"
    options.add("--skip-ours", action="store_true", help=text)
    options.add_local()
    options.add_log_only()
    return options
