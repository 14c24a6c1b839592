#!/usr/bin/env -S greenfilter run
"""Log each message that comes in or is handed on, as a line of JSON: a filter to learn from.

It decides nothing, and no mail waits for it. The stock one logs refusals and retries as well:
``greenfilter run delivery_log --help``. In smtpd.conf, with a file that smtpd's user may write:

    filter "log" proc-exec "/usr/local/bin/greenfilter run /etc/mail/delivery_log.py /srv/mail.json"
    listen on 0.0.0.0 filter "log"
    action "out" relay filter "log"
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Any

from greenfilter import Filter

FILE = sys.argv[1]

app = Filter("log")


@app.report.tx_commit
def accepted(ctx: Any, message_id: str, size: int) -> None:
    """Log a message that smtpd has accepted from a client."""
    write(ctx, "accepted", client=str(ctx.session.src), user=ctx.session.username, size=size)


@app.report.tx_commit(outgoing=True)
def delivered(ctx: Any, message_id: str, size: int) -> None:
    """Log a message that another server has accepted from smtpd."""
    write(ctx, "delivered", server=ctx.session.rdns)


def write(ctx: Any, event: str, **facts: Any) -> None:
    """Append a line, which is one write, so that lines of several workers never mix."""
    record = {
        "time": datetime.fromtimestamp(ctx.time, UTC).isoformat(timespec="milliseconds"),
        "event": event,
        "message_id": ctx.tx.message_id,
        "mail_from": ctx.tx.mail_from,
        "rcpt_to": ctx.tx.rcpt_to,
        **facts,
    }
    with open(FILE, "a", encoding="ascii") as file:
        file.write(json.dumps(record) + "\n")
