"""Add a header to each message, with the name given, and a decision that the sender names."""

import argparse

from greenfilter import Filter, reject, rewrite

parser = argparse.ArgumentParser()
parser.add_argument("header")
options = parser.parse_args()

app = Filter("stamp")


@app.filter.mail_from
def mail_from(ctx, sender):
    print(f"asked {sender}", flush=True)
    if sender == f"{options.header}-reject@example.net":
        return reject(550, f"refused by {options.header}")
    if sender == f"{options.header}-rewrite@example.net":
        return rewrite("rewritten@example.net")


@app.lines
def stamp(ctx, lines):
    yield f"{options.header}: {ctx.tx.mail_from}".encode()
    yield from lines
