"""Print every report of outgoing mail, and what is known of its session and transaction."""

from greenfilter import Filter

app = Filter("outgoing")


@app.report.link_connect(outgoing=True)
def link_connect(ctx, rdns, fcrdns, src, dst):
    print("link_connect", ctx.incoming, dst.ip, dst.port, flush=True)


@app.report.link_identify(outgoing=True)
def link_identify(ctx, method, identity):
    print("link_identify", method, identity, flush=True)


@app.report.tx_rcpt(outgoing=True)
def tx_rcpt(ctx, message_id, result, recipient):
    print("tx_rcpt", result, recipient, flush=True)


@app.report.tx_commit(outgoing=True)
def tx_commit(ctx, message_id, size):
    print("tx_commit", ctx.tx.message_id == message_id, ctx.tx.mail_from, flush=True)


@app.report.tx_commit
def incoming(ctx, message_id, size):
    print("incoming", ctx.incoming, ctx.tx.mail_from, *ctx.tx.rcpt_to, flush=True)
