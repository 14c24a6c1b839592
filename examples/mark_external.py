#!/usr/bin/env -S greenfilter run
"""Mark mail from outside in its subject: a filter to learn from.

Put it on the listener that other mail servers use. A signature that covers the subject is no longer
good afterwards, so verify it first. In smtpd.conf:

    filter "external" proc-exec "/usr/local/bin/greenfilter run /etc/mail/mark_external.py [ext]"
    listen on 0.0.0.0 filter "external"
"""

from __future__ import annotations

import sys
from typing import Any

from greenfilter import Filter

TAG = sys.argv[1] if len(sys.argv) > 1 else "[external]"

# A message that cannot be edited passes as it is.
app = Filter("external", on_error="proceed")


@app.message
def mark(ctx: Any, message: Any) -> None:
    """Put the tag in front of the subject, and say where the message came from."""
    headers, session = message.headers, ctx.session
    headers.remove("X-External")  # only this filter may say so
    if session.authenticated or session.src.ip is None:
        return
    headers.append("X-External", f"from {session.rdns} ({session.src})")
    subject = headers.get_text("Subject", "")
    if TAG not in subject:  # it still has the tag of the message that it replies to
        headers.set_text("Subject", f"{TAG} {subject}".strip())
