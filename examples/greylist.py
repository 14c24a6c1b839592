#!/usr/bin/env -S greenfilter run
"""Tell unknown clients to try again in five minutes: a filter to learn from.

Spammers rarely do. Clients are kept in memory: run it with one worker (the default), and expect it
to forget them when it is restarted. The one to put before a mail server is stock, and keeps them
in a database: ``greenfilter run greylist --help``. In smtpd.conf:

    filter "greylist" proc-exec "/usr/local/bin/greenfilter run /etc/mail/greylist.py"
    listen on 0.0.0.0 filter "greylist"
"""

from __future__ import annotations

import time
from typing import Any

from cachetools import TTLCache

from greenfilter import Filter, Need, reject

WAIT = 5 * 60.0
KEEP = 30 * 86_400.0

# When each client, sender and recipient were first seen together.
first_seen: TTLCache[tuple[str, str, str], float] = TTLCache(1_000_000, KEEP)

app = Filter("greylist", on_error="proceed", needs=Need.SRC | Need.USERNAME | Need.MAIL_FROM)


@app.filter.rcpt_to
def greylist(ctx: Any, recipient: str) -> Any:
    """Refuse a recipient for now, unless the client has waited long enough."""
    session = ctx.session
    if session.authenticated or session.src.ip is None:
        return None
    key = (str(session.src.ip), ctx.tx.mail_from.lower(), recipient.lower())
    waited = time.time() - first_seen.setdefault(key, time.time())
    if waited >= WAIT:
        return None
    return reject(451, f"Try again in {WAIT - waited:.0f} seconds", enhanced="4.7.1")
