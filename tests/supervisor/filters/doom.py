"""End the worker, or hang it, in the way that the sender names: ``MAIL FROM:<segv@...>``.

A line ``doom: NAME`` in a message does the same from the data handler.
"""

import faulthandler
import os
import signal
import sys
import time

from greenfilter import Filter, reject

app = Filter("doom", deadline=float(sys.argv[1]) if sys.argv[1:] else 3.0)


def spin(ctx):
    while True:
        pass


def swallow_memory(ctx):
    ctx.session.local = [b"x" * (8 << 20) for _ in range(40)]
    time.sleep(600)


def slow(ctx):
    time.sleep(600)


def show(ctx):
    session, tx = ctx.session, ctx.tx
    fields = ["src", "dst", "rdns", "fcrdns", "greeting", "identity", "method", "ciphers"]
    facts = [f"{name}={getattr(session, name)}" for name in [*fields, "username"]]
    if tx is not None:
        facts += [f"{name}={getattr(tx, name)}" for name in ("message_id", "mail_from", "rcpt_to")]
        facts.append(f"envelopes={len(tx.envelope_ids)}")
    return reject(550, " ".join(facts))


DOOMS = {
    "os-exit": lambda ctx: os._exit(3),
    "os-exit-0": lambda ctx: os._exit(0),
    "abort": lambda ctx: os.abort(),
    "segv": lambda ctx: faulthandler._sigsegv(),
    "kill": lambda ctx: os.kill(os.getpid(), signal.SIGKILL),
    "close-all": lambda ctx: os.closerange(3, 256),
    "sys-exit": lambda ctx: sys.exit(3),
    "memory": swallow_memory,
    "spin": spin,
    "slow": slow,
    "show": show,
    "pid": lambda ctx: reject(550, str(os.getpid())),
}


def act(ctx, name):
    return DOOMS.get(name, lambda ctx: None)(ctx)


@app.filter.mail_from
def mail_from(ctx, sender):
    return act(ctx, sender.partition("@")[0])


@app.filter.rcpt_to
def rcpt_to(ctx, recipient):
    return act(ctx, recipient.partition("@")[0])


@app.filter.noop
def noop(ctx):
    return show(ctx)


@app.lines
def lines(ctx, lines):
    for line in lines:
        if line.startswith(b"doom: "):
            act(ctx, line[6:].decode())
        yield line
    yield b"-- seen"
