"""``greenfilter reload``."""

from __future__ import annotations

import click


@click.command()
@click.argument("pidfile", type=click.Path())
def reload(pidfile: str) -> None:
    """Make the filter that wrote PIDFILE (run --pidfile) load its code again."""
    from .pidfile import signal_reload

    signal_reload(pidfile)
