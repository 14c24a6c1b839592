"""Real sessions of both servers, replayed through Connection and Guard."""

from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from greenfilter.errors import RemoteProtocolError
from greenfilter.protocol import EVENTS, LINE_TOO_LONG, Connection, Status
from tests.protocol.driver import Driver, Mail
from tests.protocol.legality import Illegal, Judge
from tests.testing.recordings import LOGS, SERVERS, TRANSCRIPTS, lines

_TLS = "TLSv1.3:TLS_AES_256_GCM_SHA384:256"


def said(log: Path) -> bytes:
    """Everything that smtpd wrote in a recording."""
    data = (TRANSCRIPTS / log).read_bytes().split(b"\n")
    return b"".join(line[2:] + b"\n" for line in data if line.startswith(b"< "))


def replayed(server: str, name: str) -> Driver:
    driver = Driver()
    for direction, line in lines(server, name):
        if direction == "<":
            driver.feed(line + b"\n")
    return driver


def data_lines(data: bytes, kind: bytes, content: int) -> dict[bytes, list[bytes]]:
    """Contents of the data lines of each session."""
    found: dict[bytes, list[bytes]] = {}
    for line in data.split(b"\n"):
        parts = line.split(b"|", content)
        if parts[0] == kind and (kind == b"filter-dataline" or parts[4] == b"data-line"):
            sid = parts[1] if kind == b"filter-dataline" else parts[5]
            found.setdefault(sid, []).append(parts[content])
    return found


def test_the_recordings_are_there():
    assert {log.parts[0] for log in LOGS} == set(SERVERS)
    assert len(LOGS) > 250


@pytest.mark.parametrize("log", LOGS, ids=str)
def test_every_recorded_line_parses(log):
    problems: list[RemoteProtocolError] = []
    everything = [(sub, event.wire) for sub in ("smtp-in", "smtp-out") for event in EVENTS.values()]
    connection = Connection(deliver=everything, on_problem=problems.append)
    for session in connection.receive(said(log)):
        for item in session.queue:
            if hasattr(item, "values"):
                assert len(item.values()) == len(item.hook.fields)
                assert item.time > 1.7e9
                assert item.version == SERVERS[log.parts[0]]
    assert problems == []


@pytest.mark.parametrize("log", LOGS, ids=str)
def test_a_replay_gives_exactly_one_legal_answer_for_each_request(log):
    judge, driver = Judge(), Driver()
    for line in said(log).splitlines(keepends=True):
        judge.asks(line)
        judge.told(driver.feed(line))
    assert judge.unanswered() == 0


@pytest.mark.parametrize("log", LOGS, ids=str)
def test_data_lines_are_written_as_they_came(log):
    data = said(log)
    out = Driver().feed(data.splitlines(keepends=True))
    limit = 1_997 if log.parts[0] == "smtpd-6.8.0p2" else 63_900
    came = data_lines(data, b"filter", 7)
    assert data_lines(out, b"filter-dataline", 3) == {
        sid: [line for line in contents if len(line) <= limit] for sid, contents in came.items()
    }
    too_long = any(len(line) > limit for contents in came.values() for line in contents)
    assert (LINE_TOO_LONG.wire in out) == (too_long and b"|commit|" in data)


@pytest.mark.parametrize("log", LOGS, ids=str)
def test_a_replay_in_one_piece_gives_the_same_answers_as_line_by_line(log):
    data = said(log)
    # Nothing is written of a message whose client has left by the end of the piece.
    left = {sid for sid, found in data_lines(data, b"filter", 7).items() if found[-1] != b"."}

    def answers(out: bytes) -> list[bytes]:
        return sorted(
            line
            for line in out.splitlines()
            if line.startswith(b"filter-result|") or line.split(b"|")[1] not in left
        )

    assert answers(Driver().feed(data)) == answers(Driver().feed(data.splitlines(keepends=True)))


@pytest.mark.parametrize("log", LOGS, ids=str)
def test_sessions_that_smtpd_closed_are_forgotten(log):
    driver = Driver()
    data = said(log)
    driver.feed(data)
    closed = {line.split(b"|")[5] for line in data.split(b"\n") if b"|link-disconnect|" in line}
    assert not closed & set(driver.connection.sessions)
    assert all(driver.seen[sid].session.closed for sid in closed)


def judge_recording(log: Path) -> None:
    judge = Judge()
    for direction, line in lines(log.parts[0], log.stem):
        if direction == "<":
            judge.asks(line + b"\n")
        elif not line.startswith(b"register|"):
            judge.told(line + b"\n")


# The others of these killed smtpd with the filter's exit or its registration, or did not kill it.
_KILLED_BY_A_LINE = [
    log
    for log in LOGS
    if ("misbehave-" in log.name or "fatal-" in log.name)
    and not any(word in log.name for word in ("token-first", "unknown-session", "exit", "register"))
]


@pytest.mark.parametrize("log", _KILLED_BY_A_LINE, ids=str)
def test_the_judge_of_these_tests_finds_what_killed_smtpd(log):
    with pytest.raises(Illegal):
        judge_recording(log)


# What is known of a session is what its script says (each recording's .client has it)


def mails(driver: Driver) -> list[tuple[str | None, list[str]]]:
    for mail in driver.mails():
        assert len(mail.message_id) == 8
        assert len(mail.envelope_ids) == len(mail.rcpt_to)
        assert all(envelope_id.startswith(mail.message_id) for envelope_id in mail.envelope_ids)
    return [(mail.mail_from, mail.rcpt_to) for mail in driver.mails()]


ALICE, BOB = "alice@example.net", "bob@example.org"
both = pytest.mark.parametrize("server", SERVERS)


@both
def test_plain(server):
    driver = replayed(server, "plain")
    session = driver.one()
    assert mails(driver) == [(ALICE, [BOB, "carol@example.com"])]
    assert (session.src.ip, session.dst.port) == (IPv4Address("192.0.2.10"), 3525)
    assert (session.rdns, session.fcrdns) == ("client.example.net", Status.OK)
    assert (session.greeting, session.method) == ("mx.example.org", "EHLO")
    assert session.identity == "client.example.net"
    assert (session.ciphers, session.username, session.authenticated) == (None, None, False)
    assert (session.incoming, session.closed) == (True, True)


@both
def test_helo(server):
    assert replayed(server, "helo").one().method == "HELO"


@both
def test_null_sender(server):
    assert mails(replayed(server, "null-sender")) == [
        ("", [BOB]),
        (ALICE, ["Bob@EXAMPLE.org"]),
        ("localonly", ["postmaster@example.org"]),
        ("@relay.example:alice@example.net", ["bob+tag@example.org"]),
    ]


@both
def test_rejected(server):
    assert mails(replayed(server, "rejected")) == [
        (ALICE, []),
        ("x@spam.example", []),
        (ALICE, ["b|ob@example.org"]),
    ]


@both
def test_rset(server):
    assert mails(replayed(server, "rset")) == [
        (ALICE, []),
        (ALICE, [BOB]),
        ("alice2@example.net", [BOB]),
    ]


@both
def test_pipelining(server):
    assert mails(replayed(server, "pipelining")) == [(ALICE, []), (ALICE, [BOB]), (ALICE, [BOB])]


@both
def test_senders_after_rewrites(server):
    senders = [sender for sender, _ in mails(replayed(server, "decide-mail-from"))]
    # proceed, junk, rewrite to <rewritten>, to <>, to <a> SIZE=10; all other answers refuse.
    assert senders == [ALICE, ALICE, "rewritten@example.net", "", "a@example.net", ALICE]


@both
def test_recipients_after_rewrites(server):
    recipients = [rcpt_to for _, rcpt_to in mails(replayed(server, "decide-rcpt-to"))]
    assert recipients == [[BOB], [], [], [], [], [BOB], ["rewritten@example.org"], [], [BOB]]


@both
def test_identity_after_rewrite(server):
    seen = replayed(server, "decide-ehlo").seen.values()
    name = "client.example.net"
    assert [one.session.identity for one in seen] == [
        name,
        *[None] * 4,
        name,
        "rewritten.example.net",
    ]


@both
def test_ehlo_variants(server):
    seen = replayed(server, "ehlo-variants").seen.values()
    assert [one.session.identity for one in seen] == [
        "[192.0.2.10]",
        "lower.example.net",
        *["second.example.net"] * 6,
        "client.example.net",
    ]


@both
def test_auth_plain(server):
    seen = replayed(server, "auth-plain").seen.values()
    assert [one.session.username for one in seen] == ["alice", "bob", "alice"]
    assert {one.session.ciphers for one in seen} == {_TLS}


@both
def test_auth_login(server):
    seen = replayed(server, "auth-login").seen.values()
    assert [one.session.username for one in seen] == ["alice", "bob", None, None]
    assert [one.session.authenticated for one in seen] == [True, True, False, False]


@both
def test_starttls(server):
    session = replayed(server, "starttls").one()
    assert (session.ciphers, session.authenticated) == (_TLS, False)


@both
def test_ipv6(server):
    session = replayed(server, "ipv6").one()
    assert session.src.ip == session.dst.ip == IPv6Address("::1")
    assert (session.dst.port, session.rdns) == (3525, "localhost")
    assert session.identity == "[IPv6:::1]"


@both
def test_out_plain(server):
    driver = replayed(server, "out-plain")
    session = driver.one()
    assert mails(driver) == [(ALICE, [BOB, "carol@example.com"])]
    assert (session.incoming, session.greeting) == (False, "sink.example.com")
    assert (session.dst.port, session.identity) == (3526, "mx.example.org")


@both
def test_out_and_in(server):
    seen = list(replayed(server, "out-and-in").seen.values())
    assert [one.session.incoming for one in seen] == [True, False]
    (came,), (went,) = (one.mails for one in seen)
    assert isinstance(came, Mail)
    assert came == went
    assert (came.mail_from, came.rcpt_to) == (ALICE, [BOB])


@both
def test_out_two_messages(server):
    driver = replayed(server, "out-two-messages")
    assert mails(driver) == [(ALICE, [BOB])] * 2
    assert len({mail.message_id for mail in driver.mails()}) == 2
    assert driver.one().closed
