"""``greenfilter serve``."""

from __future__ import annotations

import ipaddress
import os
import signal
import sys
from pathlib import Path
from typing import Any

import click

from .._serve import Options, Server, Source, Transcript
from ..errors import UsageError
from .command import command_words


class _Ended(BaseException):
    """SIGINT or SIGTERM came."""


def serve(
    source: Source,
    listen: str,
    users: tuple[str, ...],
    smtp_out: str | None,
    maildir: str | None,
    src: str | None,
    as_json: bool,
    wants_protocol: bool,
    **others: Any,
) -> None:
    """Serve mail clients until SIGINT or SIGTERM.

    Args:
        source: the filter.
        listen: ``address:port``.
        users: ``name:password`` of each user.
        smtp_out: ``host:port`` of the server where accepted mail is relayed.
        maildir: where it is stored.
        src: address that clients seem to come from.
        as_json: write JSON objects instead of lines for a person.
        wants_protocol: write each line between smtpd and the filter too.
        others: the options of the same name.

    Raises:
        UsageError: an option is wrong, the filter cannot be started, or the address cannot be used.
    """
    if src is not None:
        _check_ip(src)
    if source.proc_exec:
        command_words(source.target)
    options = Options(
        source,
        address(listen, "--listen"),
        users=dict(map(_user, users)),
        smtp_out=address(smtp_out, "--smtp-out") if smtp_out else None,
        maildir=Path(maildir) if maildir else None,
        src=src,
        **others,
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
        raise UsageError(f"--src {text}: no address; write as in 192.0.2.1") from error


def _user(text: str) -> tuple[str, str]:
    name, colon, password = text.partition(":")
    if not (name and colon):
        raise UsageError("--user: write NAME:PASSWORD, as in alice:secret")
    return name, password
