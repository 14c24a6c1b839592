"""port.c line by line."""

# ruff: noqa: F403, F405

import sys

from greenfilter.osmtpd import *


class Session:
    commands = 0


class Message:
    def __init__(self):
        self.lines = []
        self.refuse = 0


held = None


def conf(key, value):
    if key is None:
        print("conf: end", file=sys.stderr)
    elif key == "subsystem":
        print(f"conf: {key}={value}", file=sys.stderr)


def session_new(ctx):
    return Session()


def session_free(ctx, session):
    print(f"session: {session.commands} commands", file=sys.stderr)


def message_new(ctx):
    return Message()


def message_free(ctx, message):
    print(f"message: {len(message.lines)} lines", file=sys.stderr)


def count(ctx):
    ctx.local_session.commands += 1


def filter_connect(ctx, rdns, ss):
    count(ctx)
    print(
        f"connect: type {ctx.type} phase {ctx.phase} incoming {ctx.incoming} "
        f"reqid {ctx.reqid != 0:d} token {ctx.token != 0:d} version {ctx.version_major}",
        file=sys.stderr,
    )
    print(f"connect: {rdns} {ctx.rdns} fcrdns {ctx.fcrdns}", file=sys.stderr)
    osmtpd_filter_proceed(ctx)


def filter_helo(ctx, identity):
    count(ctx)
    osmtpd_filter_disconnect_enh(ctx, 4, 7, 0, "no HELO, %s", identity)


def filter_ehlo(ctx, identity):
    count(ctx)
    print(f"ehlo: {identity} {ctx.identity}, we are {ctx.greeting.identity}", file=sys.stderr)
    if identity == "spam.example.net":
        osmtpd_filter_reject(ctx, 550, "%s is 100%% spam, %ld times", identity, 3)
    elif identity == "gone.example.net":
        osmtpd_filter_disconnect(ctx, "go away, %s", identity)
    else:
        osmtpd_filter_proceed(ctx)


def filter_mailfrom(ctx, sender):
    global held
    count(ctx)
    if sender.startswith("held@"):
        held = ctx
    elif sender.startswith("bad@"):
        osmtpd_filter_reject_enh(ctx, 550, 5, 7, 1, "%s is bad", sender)
    else:
        osmtpd_filter_proceed(ctx)


def filter_rcptto(ctx, rcpt):
    count(ctx)
    print(f"rcptto: {rcpt} from {ctx.mailfrom} msgid {ctx.msgid != 0:d}", file=sys.stderr)
    if rcpt.startswith("nobody@"):
        osmtpd_filter_reject(ctx, 450, "no %s here", rcpt)
    else:
        osmtpd_filter_proceed(ctx)


def filter_data(ctx):
    count(ctx)
    i = len(ctx.rcptto)
    print(f"data: {i} rcptto, evpid {ctx.evpid != 0:d}", file=sys.stderr)
    if i > 2:
        osmtpd_filter_reject(ctx, 554, "%d are too many", i)
    else:
        osmtpd_filter_proceed(ctx)


def filter_dataline(ctx, line):
    message = ctx.local_message
    if line != b".":
        if line == b"Subject: refuse":
            message.refuse = 1
        message.lines.append(line)
        return
    osmtpd_filter_dataline(ctx, "X-Lines: %d from %s", len(message.lines), ctx.mailfrom)
    for line in message.lines:
        osmtpd_filter_dataline(ctx, "%s", line)
    osmtpd_filter_dataline(ctx, "..footer, 100%%")
    osmtpd_filter_dataline(ctx, ".")


def filter_commit(ctx):
    count(ctx)
    if ctx.local_message.refuse:
        osmtpd_filter_reject(ctx, 550, "refused for its subject")
    else:
        osmtpd_filter_proceed(ctx)


def filter_noop(ctx):
    global held
    count(ctx)
    if held is not None:
        osmtpd_filter_reject(held, 451, "released by another session")
    held = None
    osmtpd_filter_proceed(ctx)


def filter_simple(ctx):
    count(ctx)
    osmtpd_filter_proceed(ctx)


def report_connect(ctx, rdns, fcrdns, src, dst):
    print(
        f"report connect: type {ctx.type} phase {ctx.phase} token {ctx.token != 0:d}: "
        f"{rdns} {fcrdns}",
        file=sys.stderr,
    )


def report_disconnect(ctx):
    print("report disconnect", file=sys.stderr)


def report_begin(ctx, msgid):
    print(f"report begin: {msgid == ctx.msgid:d}", file=sys.stderr)


def report_mail(ctx, msgid, sender, status):
    print(f"report mail: {msgid == ctx.msgid:d} {sender} {status}", file=sys.stderr)


def report_rcpt(ctx, msgid, rcpt, status):
    print(f"report rcpt: {msgid == ctx.msgid:d} {rcpt} {status}", file=sys.stderr)


def report_envelope(ctx, msgid, evpid):
    print(f"report envelope: {msgid == ctx.msgid:d} {evpid >> 32 == msgid:d}", file=sys.stderr)


def report_data(ctx, msgid, status):
    print(f"report data: {msgid == ctx.msgid:d} {status}", file=sys.stderr)


def report_commit(ctx, msgid, size):
    print(f"report commit: {msgid == ctx.msgid:d} {size > 0:d}", file=sys.stderr)


def report_rollback(ctx, msgid):
    print(f"report rollback: {msgid == ctx.msgid:d}", file=sys.stderr)


def report_client(ctx, command):
    print(f"report client: {command}", file=sys.stderr)


def report_response(ctx, response):
    print(f"report response: {response}", file=sys.stderr)


if len(sys.argv) > 1:
    osmtpd_errx(2, "usage: %s", "port")
osmtpd_register_conf(conf)
osmtpd_local_session(session_new, session_free)
osmtpd_local_message(message_new, message_free)
osmtpd_need(OSMTPD_NEED_RDNS | OSMTPD_NEED_FCRDNS | OSMTPD_NEED_IDENTITY)
osmtpd_need(OSMTPD_NEED_GREETING | OSMTPD_NEED_MSGID | OSMTPD_NEED_MAILFROM)
osmtpd_need(OSMTPD_NEED_RCPTTO | OSMTPD_NEED_EVPID)
osmtpd_register_filter_connect(filter_connect)
osmtpd_register_filter_helo(filter_helo)
osmtpd_register_filter_ehlo(filter_ehlo)
osmtpd_register_filter_mailfrom(filter_mailfrom)
osmtpd_register_filter_rcptto(filter_rcptto)
osmtpd_register_filter_data(filter_data)
osmtpd_register_filter_dataline(filter_dataline)
osmtpd_register_filter_rset(filter_simple)
osmtpd_register_filter_quit(filter_simple)
osmtpd_register_filter_noop(filter_noop)
osmtpd_register_filter_commit(filter_commit)
osmtpd_register_report_connect(1, report_connect)
osmtpd_register_report_disconnect(1, report_disconnect)
osmtpd_register_report_begin(1, report_begin)
osmtpd_register_report_mail(1, report_mail)
osmtpd_register_report_rcpt(1, report_rcpt)
osmtpd_register_report_envelope(1, report_envelope)
osmtpd_register_report_data(1, report_data)
osmtpd_register_report_commit(1, report_commit)
osmtpd_register_report_rollback(1, report_rollback)
osmtpd_register_report_client(1, report_client)
osmtpd_register_report_response(1, report_response)
osmtpd_run()
