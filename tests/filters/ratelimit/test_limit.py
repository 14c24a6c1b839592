"""How limits are written."""

from __future__ import annotations

from argparse import ArgumentTypeError

import pytest

from greenfilter.filters._ratelimit.limit import Limit, parse_limits


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        (
            "user:recipients=100/hour,500/day",
            [
                Limit("user", "recipients", 100, 3600.0, "100 per hour"),
                Limit("user", "recipients", 500, 86_400.0, "500 per day"),
            ],
        ),
        (
            "network:messages=5 per 10 minutes",
            [Limit("network", "messages", 5, 600.0, "5 per 10 minutes")],
        ),
        (
            "sender:bytes=1G/day, 10M per 2 hours",
            [
                Limit("sender", "bytes", 1 << 30, 86_400.0, "1073741824 per day"),
                Limit("sender", "bytes", 10 << 20, 7200.0, "10485760 per 2 hours"),
            ],
        ),
    ],
)
def test_limits(text: str, limits: list[Limit]):
    assert parse_limits(text) == limits


@pytest.mark.parametrize(
    "text",
    [
        "",
        "user",
        "user:recipients",
        "user:recipients=",
        "user:recipients=many/hour",
        "user:recipients=100",
        "user:recipients=-1/hour",
        "user:recipients=0/hour",
        "user:recipients=1M/hour",
        "user:recipients=1/fortnight",
        "user:letters=1/hour",
        "people:messages=1/hour",
        "user:messages=1 per 0 hours",
        "user:messages=1 per 99999999999999999999 years",
    ],
)
def test_what_is_no_limit_is_told_in_one_line(text: str):
    with pytest.raises(ArgumentTypeError) as raised:
        parse_limits(text)
    assert "\n" not in str(raised.value)
