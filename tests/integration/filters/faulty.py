"""Go wrong in the way that the sender names: ``MAIL FROM:<raise@example.net>``."""

import os
import subprocess
import sys
import threading
import time

from greenfilter import Filter, junk, reject, rewrite

app = Filter("faulty", deadline=5.0)
late = []


@app.filter.mail_from(deadline=1.0)
def mail_from(ctx, sender):
    return FAULTS[sender.partition("@")[0]](ctx)


@app.filter.rcpt_to(on_error="proceed")
def rcpt_to(ctx, recipient):
    raise RuntimeError("this recipient passes by policy")


@app.filter.data_line
def data_line(ctx, line):
    if line == b"raise":
        raise RuntimeError("in a data line")


def fail(ctx):
    raise RuntimeError("on purpose")


def leave(ctx):
    sys.exit("on purpose")


def sleep(ctx):
    time.sleep(600)


def write_to_stdout(ctx):
    print("filter-result|0123456789abcdef|0123456789abcdef|proceed", flush=True)
    os.write(1, b"register|ready\n")
    subprocess.run(["sh", "-c", "echo nonsense; cat"], check=True, timeout=5)


def defer_to_thread(ctx):
    threading.Timer(0.1, ctx.reply, [reject(550, "from a thread")]).start()
    return ctx.defer()


def answer_twice(ctx):
    answers = [ctx.reply(reject(550, "first")), ctx.reply(reject(550, "second"))]
    print("answers", *answers, flush=True)
    return junk()


def answer_late(ctx):
    late.append(ctx)
    return ctx.defer()


def late_answers(ctx):
    print("late", *[each.reply(reject(550, "too late")) for each in late], flush=True)


FAULTS = {
    "raise": fail,
    "exit": leave,
    "sleep": sleep,
    "number": lambda ctx: 5,
    "text": lambda ctx: "550 no",
    "newline": lambda ctx: rewrite("a@example.net\nfilter-result|x"),
    "reject-newline": lambda ctx: reject(550, "one\r\ntwo\0three"),
    "stdout": write_to_stdout,
    "thread": defer_to_thread,
    "twice": answer_twice,
    "late": answer_late,
    "late-answers": late_answers,
    "fine": lambda ctx: None,
}
