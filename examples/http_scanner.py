#!/usr/bin/env -S greenfilter run
r"""Ask rspamd over HTTP what it makes of each message: a filter to learn from.

Needs nothing but Python. The one to put before a mail server is stock, and tells rspamd much more:
``greenfilter run rspamd --help``. In smtpd.conf:

    filter "scanner" proc-exec "/usr/local/bin/greenfilter run /etc/mail/http_scanner.py \
        http://127.0.0.1:11333/checkv2"
    listen on 0.0.0.0 filter "scanner"
"""

from __future__ import annotations

import json
import sys
from typing import Any
from urllib.request import Request, urlopen

from greenfilter import Filter, reject

URL = sys.argv[1]

# Without a verdict, the client is told to try again later.
app = Filter("scanner", deadline=60.0, on_error="tempfail")


@app.message
def scan(ctx: Any, message: Any) -> Any:
    """Refuse or mark what the scanner does not like."""
    verdict = judge(message.raw, ctx.session.src)
    ctx.log.info("%s, score %.1f", verdict["action"], verdict["score"])
    if verdict["action"] == "reject":
        return reject(554, "This looks like spam", enhanced="5.7.1")
    if verdict["action"] in ("soft reject", "greylist"):
        return reject(451, "Try again later", enhanced="4.7.1")
    if verdict["action"] in ("add header", "rewrite subject"):
        message.headers.prepend("X-Spam", "Yes")
    return None


def judge(raw: bytes, src: Any) -> Any:
    """Return rspamd's verdict. This blocks, and no other session waits for it."""
    request = Request(URL, data=raw)
    if src.ip is not None:
        request.add_header("IP", str(src.ip))
    with urlopen(request, timeout=50.0) as response:
        return json.load(response)
