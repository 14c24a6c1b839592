"""What members know of a session when its worker has died, and another one has taken it over."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from ..supervisor.conftest import Supervised, until
from ..supervisor.conftest import run as run

# Rewrites or marks what its options say, and logs at data what it knows.
MEMBER = """
import json, sys
from greenfilter import Filter, junk, rewrite

name, answers = sys.argv[1], json.loads(sys.argv[2])
app = Filter(name)


def decide(answers, value):
    answer = answers.get(value)
    return junk() if answer == "junk" else answer and rewrite(answer)


for phase in answers:
    getattr(app.filter, phase)(lambda ctx, value, phase=phase: decide(answers[phase], value))


@app.filter.data
def data(ctx):
    session, tx = ctx.session, ctx.tx
    of_session = [session.username, session.identity, session.rdns, str(session.src)]
    known = [tx.mail_from, tx.rcpt_to, *of_session, session.ciphers]
    ctx.log.info("%s knows %s", name, json.dumps(known))
"""
# As filter-rspamd: a session that it was not told of ends it.
STRICT = """
import os, sys

for event in ("link-connect", "link-identify", "tx-begin", "tx-mail", "tx-rcpt", "tx-reset"):
    print(f"register|report|smtp-in|{event}")
print("register|report|smtp-in|link-disconnect")
print("register|filter|smtp-in|rcpt-to\\nregister|filter|smtp-in|data\\nregister|ready", flush=True)
sessions = {}
for line in sys.stdin:
    words = line.rstrip("\\n").split("|")
    if len(words) < 6:
        continue
    if words[4] == "link-connect":
        sessions[words[5]] = []
    told = sessions[words[5]]
    told.append(words[4])
    if words[0] == "filter":
        print("|".join(["filter-result", *words[5:7], "proceed"]), flush=True)
    if words[4] == "data":
        print("told", *told, file=sys.stderr, flush=True)
"""


def member(name: str, observe: bool = False, **answers: dict[str, str]) -> str:
    options = [name, json.dumps(answers)]
    more = "observe = true\n" if observe else ""
    return f'[[filter]]\nrun = "member.py"\noptions = {options!r}\n{more}'


@pytest.fixture
def chain(tmp_path: Path):
    (tmp_path / "member.py").write_text(MEMBER)

    def write_chain(*blocks: str) -> Path:
        path = tmp_path / "mx.toml"
        path.write_text("\n".join(blocks))
        return path

    return write_chain


def kill(smtpd: Supervised) -> None:
    old = smtpd.signal_workers()
    until(lambda: bool(smtpd.workers()) and not smtpd.workers() & old, "the next worker")


def known(smtpd: Supervised, count: int) -> dict[str, list]:
    """What the members have logged by now, from so many of them."""

    def found() -> dict[str, list]:
        lines = [re.search(r"(\w+) knows (\[.*\])$", line) for line in smtpd.log]
        return {line[1]: json.loads(line[2]) for line in lines if line}

    until(lambda: len(found()) == count, f"{count} members' lines", lambda: "\n".join(smtpd.log))
    return found()


@pytest.mark.parametrize("when", ["never", "mail_from", "rcpt_to", "refused"])
def test_each_member_knows_the_addresses_as_it_left_them(run, chain, when):
    blocks = [
        member("a"),
        member(
            "b",
            mail_from={"alice@example.net": "b@example.net"},
            rcpt_to={"bob@example.org": "b@example.org", "no@example.org": "refuse@example.org"},
        ),
        member("c", rcpt_to={"b@example.org": "c@example.org", "dora@example.org": "c@x.org"}),
        member("d"),
        member("observing", observe=True),
        '[[filter]]\nrun = "refusing.py"\n',
    ]
    path = chain(*blocks)
    (path.parent / "refusing.py").write_text(
        "from greenfilter import Filter, reject\napp = Filter('refusing')\n"
        "@app.filter.rcpt_to\ndef rcpt(ctx, value):\n"
        "    return reject(550, 'no') if value == 'refuse@example.org' else None\n"
    )
    smtpd = run(path)
    session = smtpd.connect()
    session.ehlo("client.example.net")
    assert session.starttls().ok
    assert session.ehlo("client.example.net").ok
    assert session.auth("alice", "secret").ok
    assert session.mail_from("alice@example.net").ok
    if when == "mail_from":
        kill(smtpd)
    assert session.rcpt_to("bob@example.org").ok
    assert session.rcpt_to("carol@example.org").ok
    assert session.rcpt_to("no@example.org").code == 550
    if when == "refused":
        kill(smtpd)
    assert session.rcpt_to("dora@example.org").ok
    if when == "rcpt_to":
        kill(smtpd)
    assert session.data(b"x: y\r\n").ok
    found = known(smtpd, 5)
    bob, carol, dora = "bob@example.org", "carol@example.org", "dora@example.org"
    of_session = ["alice", "client.example.net", "client.example.net", "192.0.2.10"]
    assert [values[:2] for _, values in sorted(found.items())] == [
        ["alice@example.net", [bob, carol, dora]],
        ["b@example.net", ["b@example.org", carol, dora]],
        ["b@example.net", ["c@example.org", carol, "c@x.org"]],
        ["b@example.net", ["c@example.org", carol, "c@x.org"]],
        ["b@example.net", ["c@example.org", carol, "c@x.org"]],
    ]
    for values in found.values():
        assert values[2:6] == of_session
        assert values[6].startswith("TLSv1.3")


def test_the_rewrites_of_an_earlier_message_are_forgotten(run, chain):
    rewrites = {"bob@example.org": "b@example.org"}
    smtpd = run(chain(member("a"), member("b", mail_from={"x@x.org": "y@x.org"}, rcpt_to=rewrites)))
    session = smtpd.client()
    assert session.mail_from("x@x.org").ok
    assert session.rcpt_to("bob@example.org").ok
    assert session.data(b"x: y\r\n").ok
    smtpd.log.clear()
    assert session.mail_from("y@x.org").ok
    assert session.rcpt_to("b@example.org").ok
    kill(smtpd)
    assert session.data(b"x: y\r\n").ok
    assert known(smtpd, 2)["a"][:2] == ["y@x.org", ["b@example.org"]]


def marked(run, chain):
    """A session with a mark that waits, as a rewrite had to go out instead."""
    marks = member("a", rcpt_to={"bob@example.org": "junk"})
    smtpd = run(chain(marks, member("b", rcpt_to={"bob@example.org": "b@example.org"})))
    session = smtpd.client()
    assert session.mail_from("alice@example.net").ok
    assert session.rcpt_to("bob@example.org").ok
    return smtpd, session


def test_a_mark_of_a_message_that_could_not_be_sent_is_sent_later(run, chain):
    smtpd, session = marked(run, chain)
    kill(smtpd)
    reply = session.data(b"x: y\r\n")
    assert ("data", "junk") in session.decisions
    assert b"X-Spam: Yes" in reply.message


def test_a_mark_of_a_message_that_was_given_up_is_forgotten(run, chain):
    smtpd, session = marked(run, chain)
    assert session.rset().ok
    assert session.mail_from("alice@example.net").ok
    assert session.rcpt_to("carol@example.org").ok
    kill(smtpd)
    assert b"X-Spam: Yes" not in session.data(b"x: y\r\n").message


def test_a_program_is_told_of_the_sessions_of_the_one_before(run, chain, tmp_path):
    script = tmp_path / "strict.py"
    script.write_text(STRICT)
    command = shlex.join([sys.executable, str(script)])
    smtpd = run(chain(f"[[filter]]\nexec = {command!r}\non_error = 'tempfail'\n"))
    session, other = smtpd.client(), smtpd.client()
    assert session.mail_from("alice@example.net").ok
    assert session.rcpt_to("bob@example.org").ok
    assert smtpd.message(other, b"x: y\r\n").ok
    kill(smtpd)
    assert session.data(b"x: y\r\n").ok
    assert smtpd.message(other, b"x: y\r\n").ok
    session.quit()
    smtpd.wait_for_log("told link-connect link-identify tx-begin tx-mail tx-rcpt data")
    assert not [line for line in smtpd.log if "it ended" in line]
