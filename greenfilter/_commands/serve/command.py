"""``greenfilter serve``."""

from __future__ import annotations

import ipaddress
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...errors import UsageError
from ..options import PASS_ON, filter_arguments

if TYPE_CHECKING:
    from .server import Server


class _Ended(BaseException):
    """SIGINT or SIGTERM came."""


@click.command(context_settings=PASS_ON)
@click.option(
    "--listen",
    default="127.0.0.1:2525",
    show_default=True,
    metavar="ADDRESS:PORT",
    help="Where mail clients connect. Port 0 takes a free one.",
)
@click.option(
    "--protocol",
    "version",
    type=click.Choice(["0.6", "0.7"]),
    default="0.7",
    show_default=True,
    help="Version of the filter protocol: 0.6 is OpenSMTPD 6.8, 0.7 is 7.x.",
)
@click.option(
    "--user", "users", multiple=True, metavar="NAME:PASSWORD", help="Offer AUTH, after STARTTLS."
)
@click.option(
    "--require-auth", "auth_required", is_flag=True, help="Refuse mail without TLS and AUTH."
)
@click.option("--maildir", type=click.Path(), help="Store accepted mail in this Maildir.")
@click.option(
    "--smtp-out",
    metavar="HOST:PORT",
    help="Relay accepted mail to this server; the filter gets the smtp-out reports.",
)
@click.option("--src", metavar="ADDRESS", help="Address that clients appear to come from.")
@click.option(
    "--rdns",
    metavar="NAME",
    help="Reverse DNS name that clients appear to have; '<unknown>' for none.",
)
@click.option(
    "--hostname", default="mx.example.org", show_default=True, help="Name of the mail server."
)
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object for each event.")
@click.option(
    "--show-protocol",
    "wants_protocol",
    is_flag=True,
    help="Show each line between smtpd and the filter too.",
)
@click.option(
    "--proc-exec",
    is_flag=True,
    help="FILTER is a command, as after proc-exec in smtpd.conf.",
)
@filter_arguments
def serve(
    target: str,
    args: tuple[str, ...],
    listen: str,
    version: str,
    users: tuple[str, ...],
    auth_required: bool,
    maildir: str | None,
    smtp_out: str | None,
    src: str | None,
    rdns: str | None,
    hostname: str,
    as_json: bool,
    wants_protocol: bool,
    proc_exec: bool,
) -> None:
    """Serve mail clients with FILTER, without a mail server, and show what happens."""
    from ..._process.words import split_command
    from .keeper import Source
    from .server import Options, Server
    from .transcript import Transcript

    if src is not None:
        _check_ip(src)
    if proc_exec:
        split_command(target)
    options = Options(
        Source(target, args, proc_exec),
        address(listen, "--listen"),
        version=version,
        hostname=hostname,
        src=src,
        rdns=rdns,
        users=dict(map(_user, users)),
        maildir=Path(maildir) if maildir else None,
        smtp_out=address(smtp_out, "--smtp-out") if smtp_out else None,
        auth_required=auth_required,
    )
    try:
        server = Server(options, Transcript(_write, as_json, wants_protocol))
    except OSError as error:
        raise UsageError(f"--maildir {maildir}: {error.strerror}") from error
    _run(server)


def _write(line: str) -> None:
    try:
        click.echo(line)
    except BrokenPipeError:
        # Nobody reads on; this is also for what is still to be flushed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        os.kill(os.getpid(), signal.SIGTERM)


def _run(server: Server) -> None:
    import gevent

    main = gevent.getcurrent()
    signals = [
        gevent.signal_handler(number, gevent.kill, main, _Ended)
        for number in (signal.SIGINT, signal.SIGTERM)
    ]
    try:
        server.start()
        gevent.get_hub().join()
    except _Ended:
        pass
    finally:
        for watcher in signals:
            watcher.cancel()
        server.stop()


def address(text: str, option: str) -> tuple[str, int]:
    """Read ``host:port``, an IPv6 address being in brackets.

    Raises:
        UsageError: it is nothing of the kind; names ``option``.
    """
    host, colon, port = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not (colon and bare and port.isdecimal() and int(port) < 65536):
        raise UsageError(f"{option} {text}: write HOST:PORT, as in 127.0.0.1:2525 or [::1]:2525")
    return bare, int(port)


def _check_ip(text: str) -> None:
    try:
        ipaddress.ip_address(text)
    except ValueError as error:
        raise UsageError(f"--src {text}: not a valid address; write it as in 192.0.2.1") from error


def _user(text: str) -> tuple[str, str]:
    name, colon, password = text.partition(":")
    if not (name and colon):
        raise UsageError("--user: write NAME:PASSWORD, as in alice:secret")
    return name, password
