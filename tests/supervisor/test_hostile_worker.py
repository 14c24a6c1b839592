"""A worker whose code writes to its own socket: the supervisor lets nothing illegal out."""

import json

import pytest

from greenfilter._control import HELLO, parse_hello

# SID and TOKEN are those of the request at which the lines are written.
LINES = {
    "wrong token": b"filter-result|SID|0123456789abcdef|proceed\n",
    "token first": b"filter-result|TOKEN|SID|proceed\n",
    "unknown session": b"filter-result|0123456789abcdef|TOKEN|proceed\n",
    "twice": b"filter-result|SID|TOKEN|proceed\n" * 2,
    "other answers": b"filter-result|SID|TOKEN|junk\nfilter-result|SID|TOKEN|reject|550 x\n",
    "bare reject": b"filter-result|SID|TOKEN|reject\n",
    "empty reject": b"filter-result|SID|TOKEN|reject|\n",
    "unknown decision": b"filter-result|SID|TOKEN|nonsense|x\n",
    "proceed with a value": b"filter-result|SID|TOKEN|proceed|x\n",
    "not text": b"filter-result|SID|TOKEN|\xff\xfe|\xff\n",
    "carriage return": b"filter-result|SID|TOKEN|reject|550 a\rb\n",
    "long": b"filter-result|SID|TOKEN|reject|550 " + b"x" * 20_480 + b"\n",
    "short": b"filter-result\nfilter-result|\nfilter-result|SID\nfilter-result|SID|TOKEN\n",
    "report": b"report|0.7|1.0|smtp-in|link-disconnect|SID\n",
    "decision report": b"filter-result|SID|TOKEN|report|x\n",
    "registration": b"register|filter|smtp-out|noop\nregister|ready\n",
    "empty": b"\n\n\r\n",
    "noise": bytes(range(256)) * 20 + b"\n",
    "data line": b"filter-dataline|SID|TOKEN|x\nfilter-dataline|SID|TOKEN|.\n",
    "data lines cut": b"filter-dataline\nfilter-dataline|\nfilter-dataline|SID|TOKEN\n",
    "hello": b"greenfilter|hello|{}\ngreenfilter|hello|nonsense\ngreenfilter|hello|[1]\n",
    "control": b"greenfilter|\ngreenfilter|nonsense\ngreenfilter|replay|x\n",
    "facts": b"greenfilter|keep|x\ngreenfilter|keep|report|0.7|0|smtp-in|greenfilter-memo-k|SID\n",
    "long line": b"x" * 3_000_000 + b"\n",
}
FILTER = """
app = Filter("hostile", deadline=2.0)
LINES = {lines!r}
def write(ctx, data):
    sid, token = ctx._call.line.split(b"|")[5:7]
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd > 2 and os.path.lexists(f"/proc/self/fd/{{fd}}"):
            if os.readlink(f"/proc/self/fd/{{fd}}").startswith("socket"):
                os.set_blocking(fd, True)
                data = data.replace(b"SID", sid).replace(b"TOKEN", token)
                while data:
                    data = data[os.write(fd, data):]
                os.set_blocking(fd, False)
def act(ctx, address):
    write(ctx, LINES.get(address.partition("@")[0].replace("-", " "), b""))
@app.filter.mail_from
def mail_from(ctx, sender): act(ctx, sender)
@app.filter.commit
def commit(ctx): act(ctx, ctx.tx.rcpt_to[0])
@app.lines
def lines(ctx, lines):
    for line in lines:
        if line.startswith(b"write "):
            write(ctx, LINES[line[6:].decode()])
        yield line
"""


@pytest.fixture
def hostile(run, write):
    return run(write(FILTER.format(lines=LINES)))


def serves(smtpd):
    reply = smtpd.message(smtpd.client(), b"Subject: next\n\n.dot\nlast\n")
    assert reply.ok
    assert reply.message.endswith(b"\r\n\r\n.dot\r\nlast\r\n")


def test_lines_of_its_own_at_a_request(hostile):
    workers = hostile.workers()
    for name in LINES:
        session = hostile.client()
        assert session.mail_from(f"{name.replace(' ', '-')}@example.net").code in (250, 451, 550)
        serves(hostile)
    assert hostile.workers() == workers


def test_lines_of_its_own_at_commit(hostile):
    for name in LINES:
        session = hostile.client()
        session.mail_from("fine@example.net")
        session.rcpt_to(f"{name.replace(' ', '-')}@example.org")
        before = len(hostile.messages)
        reply = session.data(b"Subject: x\n\nbody\n")
        assert reply.code in (250, 451, 550), (name, reply)
        assert len(hostile.messages) == before + reply.ok
        serves(hostile)


def test_lines_of_its_own_in_a_message(hostile):
    for name in LINES:
        if name == "data line":
            continue  # what it writes as the message is the message
        session = hostile.client()
        session.mail_from("fine@example.net")
        session.rcpt_to("bob@example.org")
        reply = session.data(b"Subject: x\n\nwrite " + name.encode() + b"\nmore\n")
        assert reply.code in (250, 451), (name, reply)
        if reply.ok:
            assert reply.message.endswith(b"\r\nmore\r\n"), name
        serves(hostile)


def test_a_message_that_it_ends_before_its_end_is_refused(hostile):
    session = hostile.client()
    session.mail_from("fine@example.net")
    session.rcpt_to("bob@example.org")
    session.data_begin()
    session.data_lines([b"Subject: x", b"", b"write data line"])
    hostile.wait_for_log("ended a message before its end")
    session.data_lines([b"more"])
    assert session.data_end().code == 451
    assert hostile.messages == []


@pytest.mark.parametrize(
    "change",
    [
        {"deadlines": {"noop": "soon"}},
        {"deadlines": {"noop": float("nan")}},
        {"deadlines": {"noop": -1}},
        {"deadlines": [1]},
        {"policies": ["x"]},
        {"policies": {"noop": 5}},
        {"reports": [[["x"]]]},
        {"phases": 5},
        {"max_sessions": None},
    ],
)
def test_a_hello_that_is_none_is_told_from_one_that_is(change):
    good = {"name": "x", "reports": [], "phases": [], "deadlines": {"noop": 1}, "policies": {}}
    good["max_sessions"] = 5
    assert parse_hello(HELLO + json.dumps(good).encode()).deadlines == {"noop": 1.0}
    with pytest.raises(ValueError, match="not a hello line"):
        parse_hello(HELLO + json.dumps({**good, **change}).encode())
