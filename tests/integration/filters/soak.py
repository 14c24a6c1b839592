"""Do something in each phase, wait in some, and add a line to each message."""

import random
import time

from greenfilter import Filter

app = Filter("soak")


@app.filter.mail_from
def mail_from(ctx, sender):
    time.sleep(random.random() * 0.05)


@app.filter.rcpt_to
def rcpt_to(ctx, recipient):
    time.sleep(random.random() * 0.05)


@app.lines
def lines(ctx, lines):
    yield from lines
    yield b"-- edited"


@app.filter.commit
def commit(ctx):
    time.sleep(random.random() * 0.05)
