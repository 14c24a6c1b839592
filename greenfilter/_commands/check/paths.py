"""Paths in the options of stock filters: smtpd starts a filter where it was started itself."""

from __future__ import annotations

from collections.abc import Iterator

from ..._filter import stock
from ..._filter.app import Filter


def relative_paths(app: Filter) -> Iterator[str]:
    """Tell which options name files relative to a place that is another one under smtpd.

    Args:
        app: a filter; others than stock filters read their options themselves.
    """
    for option, value in stock.relative_paths(app):
        yield f"{option} {value}: taken from where smtpd starts, / as a rule; write the whole path"
