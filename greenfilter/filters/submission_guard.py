"""Let users send from their own addresses only: in the envelope, and in From."""

from __future__ import annotations

import argparse
import logging
import re
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import Filter, Need, reject, rewrite
from ..errors import UsageError
from ._decide import Decider
from ._options import Options, parse_seconds
from ._paths import after, program, whole_value
from ._smtpd_edits import complete_addresses
from ._submission_guard.addresses import Owned, display_name, in_field, normal
from ._submission_guard.tables import (
    DEFAULT_QUERY,
    CachedTable,
    CommandTable,
    FileTable,
    LdapTable,
    SqliteTable,
    Table,
    TableError,
)

if TYPE_CHECKING:
    from .. import Decision

SUMMARY = "Let users send from their own addresses only: in the envelope, and in From."
MANUAL = r"""
    In smtpd.conf, for the listener that your users send through:

        filter "guard" proc-exec "/usr/local/bin/greenfilter run submission_guard \
            --table file:/etc/mail/senders"
        listen on 0.0.0.0 port submission tls-require pki mx.example.org auth filter "guard"

    Whoever has authenticated may use the addresses that the table has for the user; who has not is
    left alone. Tables:

        file:PATH            USER: ADDRESS, ADDRESS in each line, # begins a comment; read again
                             when it changes; if it is broken then, the old one goes on
        sqlite:PATH          --query gives the addresses, one in each row; its ? is the user
        command:PROGRAM ...  is run with the user as its last argument, and prints the addresses
        ldap://HOST/BASE?ATTRIBUTE,...?SCOPE?FILTER   %u in FILTER is the user (ldaps: with TLS);
                             "?" and spaces are written %3f and %20

    An address may be @example.org for all of a domain, or have * for any characters. Case does not
    matter, nor what follows + in a local part (--delimiter). A user whose name is an address may
    use that too; with --domain all others may use NAME@DOMAIN.

    What is not the user's is refused with 550 (--action reject), or rewritten to the first address
    of the table that has no * (--action rewrite; smtpd drops ESMTP parameters of the sender then).
    That goes for the envelope sender (the null sender is everybody's), for each address in From,
    and in the fields that --header names. A field that cannot be read is nobody's.

    When the table cannot be asked, mail of users is refused for now, with 451, and the log says why
    once a minute; the answers of the last minute (--cache) still count. So it is if anything else
    fails.
"""
_QUIET_SECONDS = 60.0
log = logging.getLogger("greenfilter.submission_guard")


def build(arguments: Sequence[str]) -> Filter:
    """Make the filter.

    Args:
        arguments: its options, see ``greenfilter run submission_guard --help``.

    Raises:
        UsageError: an option is wrong, or the table is not there.
    """
    options = _parse(arguments)
    table = make_table(options)
    guard = _Guard(table, options)
    needs = Need.SRC | Need.USERNAME | Need.GREETING | Need.MESSAGE_ID
    deadline = 2 * options.timeout + 30.0
    app = Filter("submission-guard", deadline=deadline, on_error="tempfail", needs=needs)

    @app.filter.mail_from(thread=table.blocks)
    def check_sender(ctx: Any, sender: str) -> Any:
        return guard.sender(ctx, sender) if ctx.session.authenticated and sender else None

    @app.message(thread=table.blocks)
    def check_fields(ctx: Any, message: Any) -> Any:
        return guard.message(ctx, message.headers) if ctx.session.authenticated else None

    return app


class _Guard:
    """Decides whose address is whose."""

    def __init__(self, table: Table, options: argparse.Namespace) -> None:
        self._table = table
        self._delimiter = options.delimiter
        self._domain = options.domain
        self._fields = ("From", *options.header)
        self._rewrites = options.action == "rewrite"
        self._decide = Decider("submission_guard", options.log_only)
        self._quiet_until = 0.0

    def sender(self, ctx: Any, sender: str) -> Decision | None:
        """Decide about the envelope sender."""
        try:
            owned = self._owned(ctx.session.username)
        except TableError as error:
            return self._away(ctx, error)
        if _is_own(sender, owned):
            return None
        if self._rewrites and owned.first:
            return self._say(ctx, rewrite(owned.first), "rewrite", "sender", sender, owned.first)
        return self._refuse(ctx, "sender", sender)

    def message(self, ctx: Any, headers: Any) -> Decision | None:
        """Decide about the fields of a message, or change them."""
        try:
            owned = self._owned(ctx.session.username)
        except TableError as error:
            return self._away(ctx, error)
        host = ctx.session.greeting or socket.gethostname()
        for name in self._fields:
            for index, value in enumerate(headers.get_all(name)):
                foreign = _foreign(complete_addresses(value, host), owned)
                if foreign is None:
                    continue
                if not (self._rewrites and owned.first):
                    return self._refuse(ctx, name, foreign)
                self._say(ctx, None, "rewrite", name, foreign, owned.first)
                if not self._decide.log_only:
                    own = f"{display_name(value)} <{owned.first}>".lstrip()
                    headers.replace(name, own, index=index)
        return None

    def _owned(self, user: str) -> Owned:
        patterns = list(self._table.addresses(user))
        if "@" in user:
            patterns.append(user)
        elif self._domain:
            patterns.append(f"{user}@{self._domain}")
        return Owned(filter(_is_pattern, patterns), self._delimiter)

    def _refuse(self, ctx: Any, where: str, address: str) -> Decision | None:
        text = f"{address} is not an address of yours ({where})"
        return self._say(ctx, reject(550, text, enhanced="5.7.1"), "reject", where, address)

    def _say(
        self, ctx: Any, decision: Decision | None, what: str, where: str, address: str,
        to: str | None = None,
    ) -> Decision | None:  # fmt: skip
        facts = {"user": ctx.session.username, "field": where, "address": address, "to": to}
        return self._decide(ctx, decision, what, **facts)

    def _away(self, ctx: Any, error: TableError) -> Decision | None:
        now = time.monotonic()
        if now >= self._quiet_until:
            self._quiet_until = now + _QUIET_SECONDS
            log.warning("the table is away: %s", error)
        text = "Cannot look up your addresses now, please try again later"
        answer = reject(451, text, enhanced="4.3.0")
        return self._decide(ctx, answer, "defer", user=ctx.session.username, reason="table-away")


def _is_own(address: str, owned: Owned) -> bool:
    try:
        return normal(address) in owned
    except ValueError:
        return False


def _is_pattern(pattern: str) -> bool:
    """Return whether a table's entry is an address or a pattern; others never refuse mail."""
    try:
        Owned([pattern], "")
    except ValueError:
        log.warning("the table has %r, which is not an address", pattern)
        return False
    return True


def _is_domain(text: str) -> bool:
    try:
        _, _, domain = normal(f"x@{text}").rpartition("@")
    except ValueError:
        return False
    return "@" not in text and all(domain.split("."))


def _parse_field_name(text: str) -> str:
    """Parse the name of a header field (RFC 5322, 2.2)."""
    if not re.fullmatch(r"[!-9;-~]+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a header field name")
    return text


def _foreign(value: str, owned: Owned) -> str | None:
    """Return what in a field does not belong to the user; None if all does."""
    try:
        return next((address for address in in_field(value) if address not in owned), None)
    except ValueError:
        return " ".join(value.split())


def make_table(options: argparse.Namespace) -> Table:
    """Make the table that the options name.

    Raises:
        UsageError: there is none of this kind, or it is not there.
    """
    kind, _, rest = options.table.partition(":")
    table: Table
    if kind == "file":
        return FileTable(rest, log)
    if kind == "sqlite":
        table = SqliteTable(rest, options.query, options.timeout)
    elif kind == "command":
        table = CommandTable(rest, options.timeout)
    elif kind in ("ldap", "ldaps"):
        password = _password(options.ldap_password_file)
        table = LdapTable(options.table, options.ldap_bind_dn, password, options.timeout)
    else:
        raise UsageError(
            f"{options.table!r} is not a table; write file:PATH, sqlite:PATH, command:PROGRAM or "
            "ldap://HOST/BASE"
        )
    return CachedTable(table, options.cache)


def _command_path(table: str) -> str:
    kind, _, command = table.partition(":")
    return program(command) if kind == "command" else ""


def _password(path: str | None) -> str | None:
    if path is None:
        return None
    try:
        return Path(path).read_text("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {getattr(error, 'strerror', None) or error}") from None


def make_options() -> Options:
    """Make the options."""
    options = Options("submission_guard", SUMMARY, MANUAL)
    text = "whose addresses are whose: file:PATH, sqlite:PATH, command:PROGRAM, ldap://..."
    path = after("file:", "sqlite:", otherwise=_command_path)
    options.add("--table", path=path, metavar="TABLE", help=text)
    text = f"of a table in SQLite ({DEFAULT_QUERY})"
    options.add("--query", metavar="SQL", default=DEFAULT_QUERY, help=text)
    text = "name to log in to LDAP with; else nobody's"
    options.add("--ldap-bind-dn", metavar="DN", help=text)
    options.add(
        "--ldap-password-file",
        path=whole_value,
        metavar="FILE",
        help="file with the password for it",
    )
    text = "how long the table may take (5s)"
    options.add("--timeout", metavar="TIME", type=parse_seconds, default=5.0, help=text)
    text = "how long its answers are kept, but for those of a file (1m)"
    options.add("--cache", metavar="TIME", type=parse_seconds, default=60.0, help=text)
    text = "users whose name is not an address may use NAME@DOMAIN"
    options.add("--domain", metavar="DOMAIN", help=text)
    text = "what begins a part of an address that does not count (+); '' for none"
    options.add("--delimiter", metavar="CHARACTERS", default="+", help=text)
    text = "field that is checked besides From, such as Sender or Reply-To; repeatable"
    options.add(
        "--header", metavar="NAME", type=_parse_field_name, action="append", default=[], help=text
    )
    text = "what becomes of what is not the user's: reject (default) or rewrite"
    options.add("--action", choices=("reject", "rewrite"), default="reject", help=text)
    options.add_log_only()
    return options


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    options = make_options()
    parsed = options.parse(arguments)
    if not parsed.table:
        raise options.error("give a --table")
    if bool(parsed.ldap_bind_dn) != bool(parsed.ldap_password_file):
        raise options.error("--ldap-bind-dn and --ldap-password-file belong together")
    if parsed.domain is not None and not _is_domain(parsed.domain):
        raise options.error(f"argument --domain: {parsed.domain!r} is not a domain")
    return parsed
