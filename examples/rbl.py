#!/usr/bin/env -S greenfilter run
"""Refuse clients that a DNS blocklist names (RFC 5782): a filter to learn from.

Needs dnspython. The one to put before a mail server is stock: ``greenfilter run rbl --help``.
In smtpd.conf, for the listener that other mail servers use:

    filter rbl proc-exec "/usr/local/bin/greenfilter run /etc/mail/rbl.py zen.example.org"
    listen on 0.0.0.0 filter rbl
"""

from __future__ import annotations

import sys
from typing import Any

import dns.exception
import dns.resolver

from greenfilter import Filter, Need, reject

ZONES = sys.argv[1:]

# A client waits for 5 seconds at most, and is let in when DNS is away.
app = Filter("rbl", deadline=5.0, on_error="proceed", needs=Need.SRC | Need.USERNAME)
app.local_session(dict)  # what was found out about a client, for as long as it is there


@app.filter.rcpt_to
def refuse_listed(ctx: Any, recipient: str) -> Any:
    """Refuse whom a list names; by recipient, so that the log tells whose mail was refused."""
    if ctx.session.authenticated or ctx.session.src.ip is None:
        return None
    if "list" not in ctx.session.local:
        ctx.session.local["list"] = listing(ctx, ctx.session.src.ip)
    zone = ctx.session.local["list"]
    return reject(550, f"Listed by {zone}", enhanced="5.7.1") if zone else None


def listing(ctx: Any, ip: Any) -> str | None:
    """Return the first list that has an address. This blocks, and no other session waits for it."""
    reverse = ip.reverse_pointer.removesuffix("in-addr.arpa").removesuffix("ip6.arpa")
    for zone in ZONES:
        try:
            answers = dns.resolver.resolve(f"{reverse}{zone}.", "A")
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            continue
        except dns.exception.DNSException as error:
            ctx.log.warning("%s: %s", zone, error)
            continue
        if any(answer.to_text().startswith("127.0.0.") for answer in answers):
            ctx.log.info("%s is listed by %s", ip, zone)
            return zone
    return None
