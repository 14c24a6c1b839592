"""Refuse one sender, cut another off, and add a footer to each message; options change it."""

import argparse
import os

from greenfilter import Filter, disconnect, reject, rewrite

parser = argparse.ArgumentParser()
parser.add_argument("--refuse", default="spammer@example.net")
parser.add_argument("--cut", default="nobody@example.net")
parser.add_argument("--footer", default="checked")
parser.add_argument("--die", action="store_true")
options = parser.parse_args()

app = Filter("judge")


@app.filter.ehlo
def ehlo(ctx, identity):
    if options.die:
        os._exit(7)
    if identity == "raise":
        raise RuntimeError("as asked")
    return rewrite("known.example.net") if identity == "unknown.example.net" else None


@app.filter.mail_from
def mail_from(ctx, sender):
    if sender == options.cut:
        return disconnect(550, "go away")
    return reject(550, "refused", enhanced="5.7.1") if sender == options.refuse else None


@app.filter.commit
def commit(ctx):
    return None


@app.lines
def footer(ctx, lines):
    yield from lines
    yield options.footer.encode()
