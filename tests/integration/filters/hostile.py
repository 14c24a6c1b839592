"""Misbehave in the way that the client names, in the phase that it names: ``PHASE.FAULT``.

At connect the last octet of the client's address tells which fault; else it is the identity
(ehlo), the sender, the recipient, or for data and commit the recipient too.

    hostile.py lines|message|data_line [DIRECTORY]   DIRECTORY becomes a full disk
"""

import ctypes
import faulthandler
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import gevent
import greenlet

from greenfilter import DROP, Decision, Filter, disconnect, junk, reject, report, rewrite

mode = sys.argv[1]
if len(sys.argv) > 2:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", sys.argv[2]], check=True)
    os.environ["TMPDIR"] = sys.argv[2]

app = Filter("hostile", deadline=0.5)
kept = []
JUNK_LINES = b"filter-result|x\nregister|ready\n\nreport|0.7|x\nnonsense\r\n\0\n"


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError("no text")


def raising(error):
    def fault(ctx):
        raise error

    return fault


def recurse(ctx):
    return recurse(ctx)


def overflow_the_stack(ctx):
    sys.setrecursionlimit(10**9)
    nested = []
    for _ in range(10**6):
        nested = [nested]
    return repr(nested)


def write_to_stdout(ctx):
    print(JUNK_LINES.decode(), flush=True)
    os.write(1, JUNK_LINES)
    ctypes.CDLL(None).puts(b"filter-result|y")
    ctypes.CDLL(None).fflush(None)


def write_everywhere(ctx):
    for fd in range(3, 200):
        try:
            os.write(fd, JUNK_LINES)
        except OSError:
            continue


def forge(ctx):
    """Write well-formed lines past everything: answers, with wrong ids too, and data lines."""
    sid, token = ctx._call.line.split(b"|")[5:7]
    lines = [
        b"filter-result|%b|%b|proceed" % (sid, sid),
        b"filter-result|%b|%b|proceed" % (token, sid),
        b"filter-dataline|%b|%b|x" % (sid, token),
        b"filter-dataline|%b|%b|." % (sid, token),
        *[b"filter-result|%b|%b|proceed" % (sid, token)] * 3,
    ]
    for fd in range(3, 200):
        try:
            os.write(fd, b"\n".join([*lines, b""]))
        except OSError:
            continue


def children_write(ctx):
    subprocess.run(["sh", "-c", "echo register; echo; echo x >&2"], check=False)
    os.system("echo filter-result")
    child = multiprocessing.get_context("fork").Process(target=write_everywhere, args=(ctx,))
    child.start()
    while child.is_alive():
        time.sleep(0.005)


def close_standard_files(ctx):
    sys.stdout.close()
    os.closerange(0, 2)


def reply_twice(ctx):
    ctx.reply(reject(550, "first"))
    ctx.reply(reject(550, "second"))
    return reject(550, "third")


def reply_late(ctx):
    def late():
        time.sleep(1.0)
        ctx.reply(reject(550, "late"))

    threading.Thread(target=late).start()
    return ctx.defer()


def reply_from_native_thread_late(ctx):
    from gevent import monkey

    sleep = monkey.get_original("time", "sleep")

    def late():
        sleep(1.0)
        ctx.reply(reject(550, "late"))

    monkey.get_original("_thread", "start_new_thread")(late, ())
    return ctx.defer()


def keep(ctx):
    kept.append(ctx)
    return ctx.defer()


def drop(ctx):
    ctx.defer()
    return ctx.defer()


def never(ctx):
    time.sleep(600)


def stubborn(ctx):
    while True:
        try:
            time.sleep(600)
        except BaseException:
            continue


def compute(ctx):
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        pass


def kill_the_hub(ctx):
    gevent.get_hub().throw(SystemExit)


def signals(ctx):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGUSR2):
        if number != signal.SIGUSR2:
            os.kill(os.getpid(), number)
            os.kill(os.getppid(), signal.SIGTERM)


def silence_logs(ctx):
    logging.getLogger().handlers.clear()
    raise RuntimeError("nobody hears")


REFUSED = "451 4.3.0 "
CODE = {name: value for name, value in vars(signal).items() if name.startswith("SIG")}

# fault -> (what it does, reply that the client gets: of a policy unless said)
FAULTS = {
    "number": (lambda ctx: 5, REFUSED),
    "true": (lambda ctx: True, REFUSED),
    "text": (lambda ctx: "550 no", REFUSED),
    "bytes": (lambda ctx: b"550 no", REFUSED),
    "list": (lambda ctx: [reject(550, "no")], REFUSED),
    "class": (lambda ctx: Filter, REFUSED),
    "function": (lambda ctx: reject, REFUSED),
    "exception-returned": (lambda ctx: ValueError("x"), REFUSED),
    "generator": (lambda ctx: (line for line in ()), REFUSED),
    "drop-returned": (lambda ctx: DROP, REFUSED),
    "ctx": (lambda ctx: ctx, REFUSED),
    "no-code": (lambda ctx: reject("550", "no"), REFUSED),
    "code-250": (lambda ctx: reject(250, "no"), REFUSED),
    "code-huge": (lambda ctx: reject(10**30, "no"), REFUSED),
    "text-none": (lambda ctx: reject(550, None), REFUSED),
    "line-ends": (lambda ctx: reject(550, "a\r\nfilter-result|b\0c"), "550 a  filter-result|b c"),
    "long": (lambda ctx: reject(550, "x" * 20480), "550 xxxx"),
    "binary": (lambda ctx: reject(550, "\udcff\ud800 \x80"), "550 ?? ?"),
    "long-disconnect": (lambda ctx: disconnect(550, "x" * 20480), "550 xxxx"),
    "made-bare": (lambda ctx: Decision("reject"), REFUSED),
    "made-unknown": (lambda ctx: Decision("nonsense", "x"), REFUSED),
    "made-proceed": (lambda ctx: Decision("proceed", "x"), REFUSED),
    "made-no-reply": (lambda ctx: Decision("reject", "no"), REFUSED),
    "made-line-ends": (lambda ctx: Decision("reject", "550 a\r\nfilter-result|b\0c"), REFUSED),
    "rewrite-line-ends": (lambda ctx: rewrite("a\nb"), REFUSED),
    "rewrite-empty": (lambda ctx: rewrite(""), REFUSED),
    "rewrite-number": (lambda ctx: rewrite(5), REFUSED),
    "rewrite-long": (lambda ctx: rewrite("a" * 20480), REFUSED),
    "report-old-server": (lambda ctx: report("x"), REFUSED),
    "exception": (raising(RuntimeError("x")), REFUSED),
    "unprintable": (raising(Unprintable()), REFUSED),
    "newlines": (raising(RuntimeError("a\nfilter-result|x\n")), REFUSED),
    "system-exit": (raising(SystemExit(0)), REFUSED),
    "sys-exit": (lambda ctx: sys.exit("bye"), REFUSED),
    "keyboard": (raising(KeyboardInterrupt()), REFUSED),
    "greenlet-exit": (raising(greenlet.GreenletExit()), REFUSED),
    "memory-error": (raising(MemoryError()), REFUSED),
    "generator-exit": (raising(GeneratorExit()), REFUSED),
    "stop-iteration": (raising(StopIteration(5)), REFUSED),
    "base": (raising(BaseException("x")), REFUSED),
    "group": (raising(BaseExceptionGroup("x", [SystemExit(1)])), REFUSED),
    "gevent-timeout": (raising(gevent.Timeout(1)), REFUSED),
    "recursion": (recurse, REFUSED),
    "stack": (overflow_the_stack, REFUSED),
    "stdout": (write_to_stdout, None),
    "everywhere": (write_everywhere, None),
    "forged": (forge, None),
    "children": (children_write, None),
    "closed": (close_standard_files, None),
    "logs": (silence_logs, REFUSED),
    "twice": (reply_twice, "550 first"),
    "late": (reply_late, REFUSED),
    "late-native": (reply_from_native_thread_late, REFUSED),
    "kept": (keep, REFUSED),
    "dropped": (drop, REFUSED),
    "never": (never, REFUSED),
    "stubborn": (stubborn, REFUSED),
    "compute": (compute, REFUSED),
    "signals": (signals, None),
    "hub": (kill_the_hub, REFUSED),
    "exit": (lambda ctx: os._exit(0), REFUSED),
    "abort": (lambda ctx: os.abort(), REFUSED),
    "segv": (lambda ctx: faulthandler._sigsegv(), REFUSED),
    "kill": (lambda ctx: os.kill(os.getpid(), signal.SIGKILL), REFUSED),
    "all-closed": (lambda ctx: os.closerange(3, 1024), REFUSED),
}
AT_COMMIT = {
    "junk": (lambda ctx: junk(), REFUSED),
    "rewrite": (lambda ctx: rewrite("a@example.net"), REFUSED),
}
CONNECT_FAULTS = ["number", "exception", "long", "line-ends", "stdout", "kept", "twice", "kill"]


def act(ctx, phase, name):
    wanted, dot, fault = name.partition("@")[0].partition(".")
    if dot and wanted == phase:
        return {**FAULTS, **AT_COMMIT}[fault][0](ctx)
    return None


@app.filter.connect
def connect(ctx, rdns, address):
    octet = int(str(address).rpartition(".")[2]) if "." in str(address) else 0
    if str(address).startswith("192.0.2.") and octet < len(CONNECT_FAULTS):
        return FAULTS[CONNECT_FAULTS[octet]][0](ctx)
    return None


@app.filter.ehlo
def ehlo(ctx, identity):
    return act(ctx, "ehlo", identity)


@app.filter.mail_from
def mail_from(ctx, sender):
    return act(ctx, "mail", sender)


@app.filter.rcpt_to
def rcpt_to(ctx, recipient):
    return act(ctx, "rcpt", recipient)


def recipient_of(ctx):
    return ctx.tx.rcpt_to[0] if ctx.tx and ctx.tx.rcpt_to else ""


@app.filter.data
def data(ctx):
    return act(ctx, "data", recipient_of(ctx))


@app.filter.commit
def commit(ctx):
    return act(ctx, "commit", recipient_of(ctx))


@app.filter.noop
def noop(ctx):
    return act(ctx, "noop", ctx.session.identity or "")


@app.filter.rset
def rset(ctx):
    return act(ctx, "rset", ctx.session.identity or "")


@app.filter.quit
def quit(ctx):
    return act(ctx, "quit", ctx.session.identity or "")


@app.report.tx_rcpt
def tx_rcpt(ctx, message_id, result, recipient):
    act(ctx, "report", recipient)


LINES = {
    "text": lambda: "text",
    "number": lambda: 5,
    "line-end": lambda: b"one\ntwo",
    "nul": lambda: b"a\0b",
    "cr": lambda: b"one\r",
    "dot": lambda: b".",
    "dots": lambda: [b".", b"..", b".x"],
    "huge": lambda: b"x" * 70_000,
    "old-limit": lambda: b"x" * 3_000,
    "decision": lambda: reject(550, "no"),
    "list-of-text": lambda: ["a"],
    "raise": lambda: 1 / 0,
    "exit": lambda: os._exit(1),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "never": lambda: time.sleep(600),
    "stdout": lambda: write_to_stdout(None),
    "everywhere": lambda: write_everywhere(None),
    "system-exit": lambda: sys.exit(1),
}


def strange(ctx):
    phase, _, fault = recipient_of(ctx).partition("@")[0].partition(".")
    return LINES[fault] if phase == "lines" else None


if mode == "data_line":

    @app.filter.data_line
    def data_line(ctx, line):
        fault = strange(ctx)
        return fault() if fault and line == b"here" else None

elif mode == "lines":

    @app.lines
    def lines(ctx, lines):
        fault = strange(ctx)
        for line in lines:
            yield fault() if fault and line == b"here" else line

else:

    @app.message
    def message(ctx, message):
        fault = strange(ctx)
        result = fault() if fault else None
        return message.raw + result if isinstance(result, bytes) else result
