"""Take the decision that the client's own words name: ``EHLO ehlo-reject.example.net``.

The word is looked for in the argument of the command; where it has none, in the identity (rset,
quit, noop) or the sender (data, commit). At connect the client's address stands for it.
"""

import re

from greenfilter import Filter, disconnect, junk, proceed, reject, report, rewrite

app = Filter("decide")

REFUSED = "refused here"
DECISIONS = {
    "nothing": None,
    "proceed": proceed(),
    "junk": junk(),
    "reject": reject(550, REFUSED, enhanced="5.7.1"),
    "tempreject": reject(450, REFUSED, enhanced="4.7.1"),
    "reject421": reject(421, REFUSED),
    "disconnect": disconnect(550, REFUSED, enhanced="5.7.1"),
    "rewrite": rewrite("rewritten.example.net"),
    "report": report("a report"),
}
REWRITES = {
    "mail-from": rewrite("rewritten@example.net"),
    "rcpt-to": rewrite("<rewritten@example.org>"),
}
CONNECT = {f"192.0.2.{number}": word for number, word in enumerate(DECISIONS, 1)}


def decision(phase, text):
    match = re.match(rf"{phase}-(\w+)[.@]", text)
    if match is None:
        return None
    if match[1] == "rewrite" and phase in REWRITES:
        return REWRITES[phase]
    return DECISIONS[match[1]]


@app.filter.connect
def connect(ctx, rdns, address):
    return DECISIONS[CONNECT.get(str(address), "nothing")]


@app.filter.helo
def helo(ctx, identity):
    return decision("helo", identity)


@app.filter.ehlo
def ehlo(ctx, identity):
    return decision("ehlo", identity)


@app.filter.starttls
def starttls(ctx):
    return decision("starttls", ctx.session.identity)


@app.filter.mail_from
def mail_from(ctx, sender):
    return decision("mail-from", sender)


@app.filter.rcpt_to
def rcpt_to(ctx, recipient):
    return decision("rcpt-to", recipient)


@app.filter.data
def data(ctx):
    return decision("data", ctx.tx.mail_from)


@app.filter.rset
def rset(ctx):
    return decision("rset", ctx.session.identity)


@app.filter.quit
def quit(ctx):
    return decision("quit", ctx.session.identity)


@app.filter.noop
def noop(ctx):
    return decision("noop", ctx.session.identity)


@app.filter.commit
def commit(ctx):
    return decision("commit", ctx.tx.mail_from)


@app.report.tx_commit
def committed(ctx, message_id, size):
    print("committed", ctx.session.identity, ctx.tx.mail_from, *ctx.tx.rcpt_to, flush=True)
