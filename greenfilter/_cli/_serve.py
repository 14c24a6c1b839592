"""``greenfilter serve``."""

from __future__ import annotations

import signal

import click

from .._serve import Options, Server, Transcript


def serve(options: Options, as_json: bool, wants_protocol: bool) -> None:
    """Serve mail clients until SIGINT or SIGTERM.

    Args:
        options: how.
        as_json: write JSON objects instead of lines for a person.
        wants_protocol: write each line between smtpd and the filter too.

    Raises:
        UsageError: the filter cannot be started, or the address cannot be used.
        OSError: the Maildir cannot be made.
    """
    import gevent
    import gevent.event

    ended = gevent.event.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        gevent.signal_handler(number, ended.set)
    server = Server(options, Transcript(click.echo, as_json, wants_protocol))
    starting = gevent.spawn(server.start)
    try:
        gevent.wait([starting, ended], count=1)
        if starting.ready():
            starting.get()
        ended.wait()
    finally:
        starting.kill()
        server.stop()
