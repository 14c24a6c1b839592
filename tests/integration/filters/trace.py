"""Write down what is called, in which order, to the file given: ``trace.py FILE``."""

import random
import sys
import time

from greenfilter import Filter, SessionClosed

app = Filter("trace")
trace = open(sys.argv[1], "a", buffering=1)  # noqa: SIM115


def note(ctx, *words):
    print(ctx.session.id, *words, file=trace)


def new_session(ctx):
    note(ctx, "session-create")
    return "session"


def delete_session(ctx, local):
    note(ctx, f"{local}-delete")


def new_message(ctx):
    note(ctx, "message-create")
    return "message"


def delete_message(ctx, local):
    note(ctx, f"{local}-delete")


app.local_session(new_session, delete_session)
app.local_message(new_message, delete_message)


def follow(hooks, name):
    """Register a handler that blocks for a moment before it writes its name down."""

    def handler(ctx, *fields):
        time.sleep(random.random() / 50)
        note(ctx, name)

    getattr(hooks, name)(handler)


for phase in ("connect", "ehlo", "mail_from", "rcpt_to", "data", "quit"):
    follow(app.filter, phase)
for event in [
    "link_connect",
    "link_greeting",
    "link_identify",
    "tx_begin",
    "tx_mail",
    "tx_envelope",
] + ["tx_rcpt", "tx_commit", "tx_rollback", "tx_reset", "link_disconnect"]:
    follow(app.report, event)


@app.filter.data_line(cancel_on_close=True)
def data_line(ctx, line):
    if line == b"HOLD":
        note(ctx, "holding")
        try:
            time.sleep(600)
        except SessionClosed:
            note(ctx, "cancelled")
            raise
    elif line.startswith(b"LINE"):
        time.sleep(random.random() / 50)
        note(ctx, line.decode())


@app.filter.commit
def commit(ctx):
    time.sleep(random.random() / 50)
    note(ctx, "commit")
