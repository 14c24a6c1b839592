"""Edit header fields and addresses by rules in a file."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from .. import Filter, Headers, MessageTooBig, Need, reject, rewrite
from ._decide import Decider
from ._headers.patterns import MOST_CHARS, MOST_SECONDS, Budget, TooSlow
from ._headers.read import read
from ._headers.rules import Mail, Rule
from ._options import Options
from ._paths import whole_value
from ._watched import Watched

if TYPE_CHECKING:
    from .. import Decision

SUMMARY = "Edit header fields and addresses by rules in a file."
MANUAL = rf"""
    In smtpd.conf:

        filter "headers" proc-exec "/usr/local/bin/greenfilter run headers \
            --rules /etc/mail/headers.toml"
        listen on 0.0.0.0 filter "headers"

    and in the file, which is TOML, as many rules as you like. Each sees what those before it did:

        [[rule]]
        name = "hide our hosts"             # shown in the log
        match = {{ authenticated = true }}    # all of it has to hold
        masquerade = {{ "*.example.org" = "example.org", "root@*" = "admin@example.org" }}
        masquerade_in = ["envelope", "From", "Sender"]   # else envelope and From; Reply-To too

        [[rule]]
        match.sender = ["*@example.net", "/^(news|offers)-/"]
        match.header = {{ Subject = "*sale*" }}
        unless = {{ client = ["10.0.0.0/8"] }}
        remove = ["X-Mailer", "X-Internal-*"]
        replace = {{ header = "Subject", pattern = '/^\[EXT\] */', with = "" }}
        set = {{ Precedence = "bulk" }}       # in the place of all of this name
        add = {{ X-Seen = "by headers" }}     # besides others of this name

        [[rule]]
        strip_plus = ["example.org"]        # anna+news@example.org becomes anna@example.org
        delimiter = "+"                     # the default
        catch_all = {{ "example.org" = "office@example.org" }}
        known = ["anna@example.org", "sales-*@example.org"]   # whom catch_all leaves alone

    match and unless know sender, recipient (in rules for header fields any of them), helo, rdns,
    user, header.NAME, client (networks), authenticated and tls (true or false). A list holds if
    one of it does. What changes the envelope is decided before the message comes, so it cannot
    depend on its headers, nor may a sender depend on recipients. Within a rule the order is
    remove, masquerade, replace, set, add. The null sender is never rewritten.

    A pattern is a glob for the whole value (* and ?), or a /regular expression/ of Python that is
    found anywhere in it. Case does not matter. Of header fields encoded words are decoded first,
    but for those with addresses. Of the fields of one name the first 50 are looked at, and a
    regular expression sees the first {MOST_CHARS} characters of a value and no more ($ is there).
    One that could take too long on such a value is refused when the file is read: it may have one
    open repeat (* + {{2,}}), two if it begins with ^, and none within another repeat. All rules
    together have {MOST_SECONDS:g} s of processor time for a message and its recipients. What needs
    more is refused for now, with 451, and the log names the pattern that took longest.

    The file is read again when it changes. One that is broken is refused, all that is wrong is
    logged with its line, rule and key, and the old rules go on; at the start it is an error.

    smtpd drops ESMTP parameters of what is rewritten, and asks no filter that comes later in a
    chain about that command. A message with a header block above 1 MiB, and a field that cannot
    be written, stay as they are, and the log says so. If anything else fails, mail is refused for
    now, with 451: nothing leaves with addresses that the rules should hide.
"""
log = logging.getLogger("greenfilter.headers")


def build(arguments: Sequence[str]) -> Filter:
    """Make the filter.

    Args:
        arguments: its options, see ``greenfilter run headers --help``.

    Raises:
        UsageError: an option is wrong, or the file of rules; then each line tells one thing.
    """
    options = make_options()
    parsed = options.parse(arguments)
    if not parsed.rules:
        raise options.error("give --rules")
    editor = _Editor(Watched(parsed.rules, read, log), parsed.log_only)
    needs = Need.SRC | Need.RDNS | Need.IDENTITY | Need.CIPHERS | Need.USERNAME
    needs |= Need.MAIL_FROM | Need.RCPT_TO
    app = Filter("headers", deadline=60.0, on_error="tempfail", needs=needs)

    app.local_message(Budget)

    @app.filter.mail_from(thread=True)
    def rewrite_sender(ctx: Any, sender: str) -> Any:
        return editor.in_time(ctx, partial(editor.sender, sender)) if sender else None

    @app.filter.rcpt_to(thread=True)
    def rewrite_recipient(ctx: Any, recipient: str) -> Any:
        return editor.in_time(ctx, partial(editor.recipient, recipient))

    @app.message(thread=True)
    def edit_headers(ctx: Any, message: Any) -> Any:
        return editor.in_time(ctx, partial(editor.message, message))

    return app


def make_options() -> Options:
    """Make the options."""
    options = Options("headers", SUMMARY, MANUAL)
    options.add("--rules", path=whole_value, metavar="FILE.toml", help="the file of rules")
    options.add_log_only()
    return options


class _Editor:
    """Has the rules do their work, and logs it."""

    def __init__(self, file: Watched[list[Rule]], log_only: bool) -> None:
        self._file = file
        self._decide = Decider("headers", log_only)

    def in_time(self, ctx: Any, work: Callable[[Any, Budget], Decision | None]) -> Decision | None:
        """Do a part of the work for a message, as long as there is time for it."""
        budget = ctx.tx.local if ctx.tx is not None else Budget()
        try:
            with budget.spent():
                return work(ctx, budget)
        except TooSlow as error:
            answer = reject(451, "Rules for your mail take too long, try again", enhanced="4.3.0")
            return self._decide(ctx, answer, "defer", reason="too-slow", pattern=error.pattern)

    def sender(self, sender: str, ctx: Any, budget: Budget) -> Decision | None:
        """Rewrite the envelope sender."""
        new = sender
        for rule in self._file.value:
            if rule.is_for(Mail(ctx.session, new, ()), budget):
                new = self._told(ctx, rule.shown, "sender", new, rule.sender(new, budget))
        return self._rewritten(sender, new)

    def recipient(self, recipient: str, ctx: Any, budget: Budget) -> Decision | None:
        """Rewrite a recipient."""
        sender = (ctx.tx and ctx.tx.mail_from) or ""
        new = recipient
        for rule in self._file.value:
            if rule.is_for(Mail(ctx.session, sender, (new,)), budget):
                new = self._told(ctx, rule.shown, "recipient", new, rule.recipient(new, budget))
        return self._rewritten(recipient, new)

    def message(self, message: Any, ctx: Any, budget: Budget) -> Decision | None:
        """Edit the header fields of a message."""
        try:
            headers = message.headers
        except MessageTooBig as error:
            return self._decide(ctx, None, "pass", reason=str(error))
        if self._decide.log_only:
            headers = Headers(bytes(headers))  # for later rules to see, and nobody else
        sender, recipients = ctx.tx.mail_from or "", ctx.tx.rcpt_to
        for rule in self._file.value:
            if not rule.is_for(Mail(ctx.session, sender, recipients, headers), budget):
                continue
            before = bytes(headers)
            problems = rule.edit(headers, budget)
            for problem in problems:
                ctx.log.warning("headers: rule %s: left as it is: %s", rule.shown, problem)
            if bytes(headers) != before:
                self._decide(ctx, None, "edit", rule=rule.shown)
        return None

    def _told(self, ctx: Any, rule: str, what: str, address: str, new: str) -> str:
        if new == address:
            return new
        decision = rewrite(new)
        self._decide(ctx, decision, "rewrite", rule=rule, what_=what, address=address, to=new)
        return new

    def _rewritten(self, old: str, new: str) -> Decision | None:
        return None if self._decide.log_only or new == old else rewrite(new)
