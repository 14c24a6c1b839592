"""Log what becomes of each recipient of each message, as JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from .. import Filter
from ._delivery_log.incoming import Incoming
from ._delivery_log.join import Joins
from ._delivery_log.outgoing import Outgoing
from ._delivery_log.output import Output, open_output, path_of
from ._options import Options, parse_seconds
from ._store import open_store

SUMMARY = __doc__.rstrip(".\n")
DEFAULT_STORE = "/var/lib/greenfilter/delivery_log.sqlite"
EVENTS = ("accepted", "refused", "aborted", "delivered", "deferred", "bounced")
MANUAL = """
    In smtpd.conf:

        filter "delivery_log" proc-exec "/usr/local/bin/greenfilter run delivery_log \\
            --output /var/log/mail.json"
        listen on 0.0.0.0 filter "delivery_log"
        action "out" relay filter "delivery_log"

    It decides nothing, and no mail waits for it. One line for each recipient of a message:

        accepted    smtpd has it; for local mail that is the last that smtpd tells
        refused     with phase, reply, and by: filter or smtpd; without a recipient where the client
                    was refused before it named one
        aborted     the client gave up: reason is rset, quit, disconnect or timeout
        delivered   to the server relay, whose answer is reply
        deferred    smtpd will try again: refused with 4xx, or the connection was lost
        bounced     refused with 5xx

    mail_from and rcpt_to are the addresses as smtpd has them, or sends them on; mail_from_before
    and rcpt_to_before are what the client gave, before filters and aliases. What is relayed has the
    facts of the message that came in (client, helo, user, size, accepted: when), from the store:
    retries take days, and come to other workers. joined is false where nothing is known of it.

    smtpd tells nothing of a server that cannot be reached, and not which message it was when a
    server refuses its sender: that record has no message_id.

    A file is opened again when it was moved. What cannot be written (a full disk, a socket that
    nobody listens to) is kept, up to 10,000 records, and written when it is possible; the log says
    so once a minute. When the store is away, records are written with joined false.
"""


def build(arguments: Sequence[str]) -> Filter:
    """Make the filter.

    Args:
        arguments: its options, see ``greenfilter run delivery_log --help``.

    Raises:
        UsageError: an option is wrong.
    """
    options = _parse(arguments)
    joins = Joins(open_store(options.store, options.store_timeout), options.keep)
    writer = _Writer(open_output(options.output), set(options.only or EVENTS))
    app = Filter("delivery_log", deadline=options.store_timeout + 30.0, on_error="proceed")
    app.local_session(_make_session)
    _add_incoming(app, joins, writer)
    _add_outgoing(app, joins, writer)
    return app


def _make_session(ctx: Any) -> Incoming | Outgoing:
    return Incoming(ctx.session) if ctx.incoming else Outgoing(ctx.session)


class _Writer:
    """Writes records of the events that are wanted."""

    def __init__(self, output: Output, wanted: set[str]) -> None:
        self._output = output
        self._wanted = wanted

    def write(self, records: Iterable[dict[str, Any]]) -> None:
        for record in records:
            if record["event"] in self._wanted:
                known = {name: _text(value) for name, value in record.items() if value is not None}
                self._output.write(json.dumps(known).encode())


def _add_incoming(app: Filter, joins: Joins, writer: _Writer) -> None:
    def write(ctx: Any, records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        timed = [_timed(ctx, record) for record in records]
        writer.write(timed)
        return timed

    @app.report.protocol_client
    def command(ctx: Any, command: str) -> None:
        ctx.session.local.client_said(command)

    @app.report.protocol_server
    def reply(ctx: Any, response: str) -> None:
        write(ctx, ctx.session.local.server_said(response))

    @app.report.filter_response
    def answer(ctx: Any, phase: str, response: str, parameter: str | None) -> None:
        ctx.session.local.filter_said(phase, response)

    @app.report.tx_mail
    def sender(ctx: Any, message_id: str, result: Any, sender: str) -> None:
        ctx.session.local.mail_from(result, sender)

    @app.report.tx_rcpt
    def recipient(ctx: Any, message_id: str, result: Any, recipient: str) -> None:
        write(ctx, ctx.session.local.rcpt_to(result, recipient))

    @app.report.tx_commit
    def accepted(ctx: Any, message_id: str, size: int) -> None:
        records = write(ctx, ctx.session.local.commit(size))
        if records:
            joins.keep(records)

    @app.report.timeout
    def silence(ctx: Any) -> None:
        ctx.session.local.timeout()

    @app.report.tx_rollback
    def given_up(ctx: Any, message_id: str) -> None:
        write(ctx, ctx.session.local.rollback())

    @app.report.tx_reset
    def reset(ctx: Any, message_id: str | None) -> None:
        ctx.session.local.reset()


def _add_outgoing(app: Filter, joins: Joins, writer: _Writer) -> None:
    def write(ctx: Any, records: Iterable[dict[str, Any]]) -> None:
        if timed := [_timed(ctx, record) for record in records]:
            writer.write(joins.add_facts(timed))

    @app.report.protocol_client(outgoing=True)
    def command(ctx: Any, command: str) -> None:
        write(ctx, ctx.session.local.client_said(command))

    @app.report.protocol_server(outgoing=True)
    def reply(ctx: Any, response: str) -> None:
        write(ctx, ctx.session.local.server_said(response))

    @app.report.tx_begin(outgoing=True)
    def begin(ctx: Any, message_id: str) -> None:
        ctx.session.local.begin(message_id)

    @app.report.tx_mail(outgoing=True)
    def sender(ctx: Any, message_id: str, result: Any, sender: str) -> None:
        ctx.session.local.mail_from(result, sender)

    @app.report.tx_envelope(outgoing=True)
    def envelope(ctx: Any, message_id: str, envelope_id: str) -> None:
        ctx.session.local.envelope(message_id, envelope_id)

    @app.report.tx_rcpt(outgoing=True)
    def recipient(ctx: Any, message_id: str, result: Any, recipient: str) -> None:
        write(ctx, ctx.session.local.rcpt_to(message_id, result, recipient))

    @app.report.tx_data(outgoing=True)
    def data(ctx: Any, message_id: str, result: Any) -> None:
        write(ctx, ctx.session.local.data(result))

    @app.report.tx_commit(outgoing=True)
    def delivered(ctx: Any, message_id: str, size: int) -> None:
        write(ctx, ctx.session.local.commit())

    @app.report.tx_rollback(outgoing=True)
    def failed(ctx: Any, message_id: str) -> None:
        write(ctx, ctx.session.local.rollback())

    @app.report.link_disconnect(outgoing=True)
    def end(ctx: Any) -> None:
        write(ctx, ctx.session.local.disconnect())


def _timed(ctx: Any, record: dict[str, Any]) -> dict[str, Any]:
    """Put first what a reader looks for first."""
    at = datetime.fromtimestamp(ctx.time, UTC).isoformat(timespec="milliseconds")
    return {"time": at.replace("+00:00", "Z"), "event": record["event"], **record}


def _text(value: Any) -> Any:
    """Return a value as every JSON parser takes it: what is not UTF-8 is escaped."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    return value


def make_options() -> Options:
    """Make the options."""
    options = Options("delivery_log", f"{SUMMARY}.", MANUAL)
    text = "path of a file, stderr, unix:PATH (stream or datagram) or tcp:HOST:PORT (%(default)s)"
    options.add("--output", path=path_of, metavar="WHERE", default="stderr", help=text)
    text = f"kind of records to write, all by default: {', '.join(EVENTS)}; repeatable"
    options.add("--only", metavar="EVENT", action="append", choices=EVENTS, help=text)
    text = "how long a message may take to be relayed, then nothing is known of it (10d)"
    options.add("--keep", metavar="TIME", type=parse_seconds, default=10 * 86_400.0, help=text)
    options.add_store(DEFAULT_STORE)
    return options


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    return make_options().parse(arguments)
