"""Answers seven requests per session and keeps what libopensmtpd keeps of it.

With the argument ``read``, all of it is read once in each session.
"""

import sys

from greenfilter import Filter, Need

READ = "read" in sys.argv
app = Filter(
    "sessions",
    needs=Need.SRC
    | Need.DST
    | Need.RDNS
    | Need.FCRDNS
    | Need.IDENTITY
    | Need.MESSAGE_ID
    | Need.MAIL_FROM
    | Need.RCPT_TO,
)


@app.filter.connect
def connect(ctx, rdns, address):
    return None


@app.filter.ehlo
def ehlo(ctx, identity):
    return None


@app.filter.mail_from
def mail_from(ctx, sender):
    return None


@app.filter.rcpt_to
def rcpt_to(ctx, recipient):
    return None


@app.filter.data
def data(ctx):
    return None


@app.filter.commit
def commit(ctx):
    if READ:
        session, tx = ctx.session, ctx.tx
        assert session.src
        assert session.dst
        assert session.rdns
        assert session.fcrdns
        assert session.identity
        assert tx.message_id
        assert tx.mail_from
        assert tx.rcpt_to


@app.filter.quit
def quit_(ctx):
    return None
