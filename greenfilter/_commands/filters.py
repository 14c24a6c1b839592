"""``greenfilter filters``."""

from __future__ import annotations

import click


@click.command()
def filters() -> None:
    """List the stock filters, which greenfilter run NAME runs."""
    from .._filter import stock

    for name in stock.names():
        click.echo(f"{name:<18}{stock.summary(name)}")
