"""submission_guard with each kind of table, under FakeSmtpd and under the real smtpd."""

from __future__ import annotations

import smtplib
import sqlite3
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from greenfilter import Filter
from greenfilter.errors import UsageError
from greenfilter.filters import submission_guard
from greenfilter.testing import FakeSmtpd, Session
from tests.conftest import unavailable
from tests.filters.support import lines, log_all
from tests.support import slapd as slapd_support
from tests.support import smtpd as real
from tests.support.sink import Sink
from tests.support.slapd import ADMIN, PASSWORD, SUFFIX, Slapd

# ldap3 2.9.1 uses names of pyasn1 that have others now.
pytestmark = pytest.mark.filterwarnings("ignore:(tag|type)Map is deprecated:DeprecationWarning")

SRC = "192.0.2.10:4711"
SENDERS = "alice: alice@example.org, sales@example.org  # and her tags\nbob: @example.net\n"


def message(sender: str = "alice@example.org", more: str = "") -> bytes:
    return f"From: {sender}\r\n{more}Subject: hello\r\n\r\nHello\r\n".encode()


@pytest.fixture
def senders(tmp_path: Path) -> Path:
    path = tmp_path / "senders"
    path.write_text(SENDERS)
    return path


def guard(table: object, *options: str) -> Filter:
    return submission_guard.build([f"--table={table}", *options])


def file_guard(senders: Path, *options: str) -> Filter:
    return guard(f"file:{senders}", *options)


def log_in(smtpd: FakeSmtpd, user: str | None = "alice") -> Session:
    session = smtpd.connect(src=SRC)
    session.ehlo("client.example.net")
    if user is not None:
        session.starttls()
        session.ehlo("client.example.net")
        assert session.auth(user, "secret").ok
    return session


def send(session: Session, sender: str, content: bytes) -> str:
    """Give the last reply to a message."""
    reply = session.mail_from(sender)
    if reply.ok:
        session.rcpt_to("carol@example.com")
        reply = session.data(content)
    return reply.text


def test_a_user_sends_from_own_addresses(senders: Path) -> None:
    with FakeSmtpd(file_guard(senders), received=False) as smtpd:
        session = log_in(smtpd)
        for address in ("alice@example.org", "Alice+x@Example.org", "sales@example.org"):
            assert send(session, address, message(f"Alice <{address}>")).startswith("2")
        assert send(session, "", message()).startswith("2")
        bob = log_in(smtpd, "BOB")
        assert send(bob, "any@example.net", message("any@example.net")).startswith("2")
    assert smtpd.messages[0].data == message("Alice <alice@example.org>")


def test_what_belongs_to_others_is_refused(senders: Path, caplog: pytest.LogCaptureFixture) -> None:
    log_all(caplog)
    with FakeSmtpd(file_guard(senders)) as smtpd:
        session = log_in(smtpd)
        reply = send(session, "boss@example.org", message())
        assert reply == "5.7.1 boss@example.org is not an address of yours (sender)"
        reply = send(session, "alice@example.org", message("Boss <boss@example.org>"))
        assert reply == "5.7.1 boss@example.org is not an address of yours (From)"
        both = message("alice@example.org", "From: boss@example.org\r\n")
        assert send(session, "alice@example.org", both).startswith("5.7.1 boss@example.org")
        assert send(log_in(smtpd, "nobody"), "a@example.org", message()).startswith("5.7.1")
    assert not smtpd.messages
    assert lines(caplog, "submission_guard")[:2] == [
        "reject user=alice field=sender address=boss@example.org",
        "reject user=alice field=From address=boss@example.org",
    ]


def test_an_address_that_smtpd_will_complete_is_seen_complete(senders: Path) -> None:
    with FakeSmtpd(file_guard(senders)) as smtpd:
        reply = send(log_in(smtpd), "alice@example.org", message("boss"))
        assert "boss@" in reply
        assert reply.startswith("5.7.1")


def test_who_has_not_authenticated_is_left_alone(senders: Path) -> None:
    with FakeSmtpd(file_guard(senders), received=False) as smtpd:
        content = message("boss@example.org")
        assert send(log_in(smtpd, None), "boss@example.org", content).startswith("2")
    assert smtpd.messages[0].data == content


@pytest.mark.parametrize("name", ["Sender", "Reply-To"])
def test_other_fields_are_checked_by_option(senders: Path, name: str) -> None:
    content = message(more=f"{name}: boss@example.org\r\n")
    with FakeSmtpd(file_guard(senders)) as smtpd:
        assert send(log_in(smtpd), "alice@example.org", content).startswith("2")
    with FakeSmtpd(file_guard(senders, f"--header={name}")) as smtpd:
        assert f"({name})" in send(log_in(smtpd), "alice@example.org", content)


def test_a_user_name_that_is_an_address_is_the_users_own(senders: Path) -> None:
    with FakeSmtpd(file_guard(senders)) as smtpd:
        session = log_in(smtpd, "dave@example.org")
        assert send(session, "dave@example.org", message("dave@example.org")).startswith("2")
        assert send(session, "alice@example.org", message()).startswith("5")
    with FakeSmtpd(file_guard(senders, "--domain=example.org")) as smtpd:
        session = log_in(smtpd, "dave")
        assert send(session, "dave@example.org", message("dave@example.org")).startswith("2")


def test_rewrite_makes_it_the_users_first_address(
    senders: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log_all(caplog)
    with FakeSmtpd(file_guard(senders, "--action=rewrite"), received=False) as smtpd:
        session = log_in(smtpd)
        for value in ('"The Boss" <boss@example.org>', "boss@example.org", "a@b@c"):
            assert send(session, "boss@example.org", message(value)).startswith("2")
        assert send(session, "sales@example.org", message("sales@example.org")).startswith("2")
        assert send(log_in(smtpd, "bob"), "x@example.org", message("x@example.org"))[0] == "5"
    assert [each.mail_from for each in smtpd.messages[:2]] == ["alice@example.org"] * 2
    assert [each.data for each in smtpd.messages] == [
        message('"The Boss" <alice@example.org>'),
        message("<alice@example.org>"),
        message("<alice@example.org>"),
        message("sales@example.org"),
    ]
    assert "rewrite user=alice field=From address=boss@example.org to=alice@example.org" in lines(
        caplog, "submission_guard"
    )


@pytest.mark.parametrize("action", ["reject", "rewrite"])
def test_log_only_lets_all_pass(
    senders: Path, action: str, caplog: pytest.LogCaptureFixture
) -> None:
    log_all(caplog)
    app = file_guard(senders, f"--action={action}", "--log-only")
    with FakeSmtpd(app, received=False) as smtpd:
        content = message("boss@example.org")
        assert send(log_in(smtpd), "boss@example.org", content).startswith("2")
    assert smtpd.messages[0].data == content
    assert [text.split()[0] for text in lines(caplog, "submission_guard")] == [action] * 2


def test_a_file_is_read_anew_and_a_broken_one_refused(
    senders: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log_all(caplog)
    with FakeSmtpd(file_guard(senders)) as smtpd:
        session = log_in(smtpd)
        senders.write_text("alice alice@example.org\n")
        assert send(session, "alice@example.org", message()).startswith("2")
        assert f"{senders}:1: not USER: ADDRESS, ...; what was read before goes on" in caplog.text
        senders.unlink()
        assert send(session, "alice@example.org", message()).startswith("2")
        senders.write_text("alice: new@example.org\n")
        assert send(session, "alice@example.org", message()).startswith("5")
        assert send(session, "new@example.org", message("new@example.org")).startswith("2")


# Tables that are asked


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "senders #1.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("create table addresses (user text, address text)")
        rows = [("alice", "alice@example.org"), ("alice", "not an address"), ("alice", None)]
        db.executemany("insert into addresses values (?, ?)", rows)
    db.close()
    return path


def program(tmp_path: Path, body: str) -> str:
    path = tmp_path / "senders.py"
    path.write_text(body)
    return f"command:{sys.executable} {path}"


GOOD = 'import sys\nprint({"alice": "alice@example.org"}.get(sys.argv[1], ""))\n'


@pytest.fixture
def slapd(tmp_path: Path) -> Iterator[Slapd]:
    if reason := slapd_support.missing():
        unavailable(reason)
    directory = tmp_path / "slapd"
    directory.mkdir()
    with Slapd(directory, {"alice": ["alice@example.org", "sales@example.org"]}) as server:
        (directory / "password").write_text(f"{PASSWORD}\n")
        yield server


def ldap_options(slapd: Slapd, tmp_path: Path) -> list[str]:
    return [
        f"ldap://127.0.0.1:{slapd.port}/{SUFFIX}?mail?sub?(uid=%u)",
        f"--ldap-bind-dn={ADMIN}",
        f"--ldap-password-file={tmp_path}/slapd/password",
    ]


@pytest.mark.parametrize("kind", ["sqlite", "command", "ldap"])
def test_tables_are_asked_for_the_users_addresses(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if kind == "ldap":
        options = ldap_options(request.getfixturevalue("slapd"), tmp_path)
    elif kind == "sqlite":
        options = [f"sqlite:{request.getfixturevalue('database')}"]
    else:
        options = [program(tmp_path, GOOD)]
    with FakeSmtpd(guard(*options)) as smtpd:
        session = log_in(smtpd)
        assert send(session, "alice@example.org", message()).startswith("2")
        assert send(session, "boss@example.org", message()).startswith("5.7.1")
        for user in ("*", "x)(uid=*", "alice' or 1=1 --", "-c", "al*"):
            assert send(log_in(smtpd, user), "alice@example.org", message()).startswith("5.7.1")


def broken(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> list[str]:
    """Options for a table that cannot be asked."""
    if kind == "ldap":
        server = request.getfixturevalue("slapd")
        server.stop()
        return ldap_options(server, tmp_path)
    if kind == "ldap password":
        options = ldap_options(request.getfixturevalue("slapd"), tmp_path)
        (tmp_path / "slapd" / "password").write_text("wrong")
        return options
    if kind == "sqlite":
        path = request.getfixturevalue("database")
        path.write_bytes(b"no database" * 100)
        return [f"sqlite:{path}"]
    if kind == "locked":
        path = request.getfixturevalue("database")
        db = sqlite3.connect(path, isolation_level=None)
        request.addfinalizer(db.close)
        db.execute("begin exclusive")
        return [f"sqlite:{path}", "--timeout=0.2"]
    if kind == "silent":
        return [program(tmp_path, "import time\ntime.sleep(30)"), "--timeout=0.3"]
    if kind == "missing":
        return ["command:/nonexistent/program"]
    return [program(tmp_path, "raise SystemExit('no\\nnetwork')")]


@pytest.mark.parametrize(
    "kind", ["ldap", "ldap password", "sqlite", "locked", "silent", "missing", "command"]
)
def test_mail_is_refused_for_now_while_the_table_is_away(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    log_all(caplog)
    with FakeSmtpd(guard(*broken(kind, tmp_path, request))) as smtpd:
        session = log_in(smtpd)
        for _ in range(2):
            reply = session.mail_from("alice@example.org")
            assert (reply.code, reply.text[:5]) == (451, "4.3.0")
        assert send(log_in(smtpd, None), "alice@example.org", message()).startswith("2")
    assert sum("the table is away: " in text for text in caplog.messages) == 1
    assert lines(caplog, "submission_guard") == ["defer user=alice reason=table-away"] * 2


def test_it_recovers_when_the_table_is_back(slapd: Slapd, tmp_path: Path) -> None:
    with FakeSmtpd(guard(*ldap_options(slapd, tmp_path))) as smtpd:
        session = log_in(smtpd)
        slapd.stop()
        assert session.mail_from("alice@example.org").code == 451
        slapd.start()
        assert send(session, "alice@example.org", message()).startswith("2")
        slapd.stop()  # what is known is known for a minute
        assert send(session, "sales@example.org", message()).startswith("2")
        slapd.start()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ([], "give a --table"),
        (["--table=senders"], "'senders' is not a table; write file:PATH"),
        (["--table=file:missing"], "missing: No such file or directory"),
        (["--table=file:wrong"], "wrong:2: 'x' is not an address"),
        (["--table=sqlite:missing"], "missing: no such file"),
        (["--table=command:"], "names no program"),
        (["--table=command:'a"], "No closing quotation"),
        (["--table=ldap://h/b?mail?all?(uid=%u)"], "not ldap://HOST/BASE"),
        (["--table=ldap://h/b?mail?sub?(uid=x)"], "there is no %u in the filter"),
        (["--table=ldap://h/b", "--ldap-bind-dn=x"], "belong together"),
        (["--table=ldap://[x/b"], "ldap://[x/b: Invalid IPv6 URL"),
        (["--table=ldap://h:99999/b"], "ldap://h:99999/b: Port out of range"),
        (["--table=ldap://h:ldap/b"], "ldap://h:ldap/b: Port could not be cast"),
        (["--table=ldap://h/b?mail?sub?((uid=%u"], "'((uid=user': invalid filter"),
        (["--table=ldap://h/b?mail?sub?(%26(uid=%u)"], "'(&(uid=user)': invalid filter"),
        (
            ["--table=ldap://h/b", "--ldap-bind-dn=x", "--ldap-password-file=binary"],
            "binary: 'utf-8' codec can't decode",
        ),
        (["--table=file:right", "--domain=a b"], "'a b' is not a domain"),
        (["--table=file:right", "--domain="], "'' is not a domain"),
        (["--table=file:right", "--domain=\u00e9..x"], "is not a domain"),
        (["--table=file:right", "--domain=a..x"], "'a..x' is not a domain"),
        (["--table=file:right", "--domain=x@y"], "'x@y' is not a domain"),
        (["--table=file:right", "--header=Reply To"], "'Reply To' is not a header field name"),
        (["--table=file:right", "--header=Sender:"], "'Sender:' is not a header field name"),
        (["--table=file:right", "--header="], "'' is not a header field name"),
    ],
)
def test_wrong_options_are_told_in_one_line(
    options: list[str], problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("right").write_text(SENDERS)
    Path("binary").write_bytes(b"\xff")
    Path("wrong").write_text("# x\nalice: x\n")
    with pytest.raises(UsageError) as caught:
        submission_guard.build(options)
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


# The real smtpd


def certificate(directory: Path) -> str:
    """Make a key and a certificate; return the lines for smtpd.conf."""
    key, cert = directory / "key.pem", directory / "cert.pem"
    words = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-subj",
        "/CN=mx",
    ]
    words += ["-keyout", str(key), "-out", str(cert)]
    subprocess.run(words, check=True, capture_output=True)
    key.chmod(0o600)
    return f'pki mx.example.org cert "{cert}"\npki mx.example.org key "{key}"\n'


def login(port: int) -> smtplib.SMTP:
    client = smtplib.SMTP("127.0.0.1", port, timeout=20)
    client.starttls(context=ssl._create_unverified_context())
    client.login("alice", "secret")
    return client


def test_real_smtpd_lets_strangers_pass_unchanged(senders: Path, require_smtpd: None) -> None:
    run = f"{sys.executable} -m greenfilter run submission_guard --table file:{senders}"
    with Sink() as sink, real.Smtpd({"guard": run}, sink=sink) as smtpd:
        with smtplib.SMTP("127.0.0.1", smtpd.port, timeout=20) as client:
            client.sendmail("boss@example.org", ["bob@example.net"], message("boss@example.org"))
        assert sink.by_subject("hello").body == b"Hello\r\n"
        assert smtpd.alive()


@pytest.mark.skipif(real.version() < (7, 0), reason="STARTTLS fails in Debian's build of 6.8")
def test_real_smtpd_lets_users_send_from_their_own_addresses(
    senders: Path, tmp_path: Path, require_smtpd: None
) -> None:
    secret = subprocess.run(
        ["smtpctl", "encrypt", "secret"], capture_output=True, text=True, check=True
    ).stdout.strip()
    conf = certificate(tmp_path) + f'table users {{ alice = "{secret}" }}\n'
    run = f"{sys.executable} -m greenfilter run submission_guard --table file:{senders}"
    options: dict[str, Any] = {
        "extra_conf": conf,
        "listen_options": "tls pki mx.example.org auth-optional <users>",
    }
    with Sink() as sink, real.Smtpd({"guard": run}, sink=sink, **options) as smtpd:
        with login(smtpd.port) as client:
            client.sendmail("alice@example.org", ["bob@example.net"], message())
            with pytest.raises(smtplib.SMTPSenderRefused, match="not an address of yours"):
                client.sendmail("boss@example.org", ["bob@example.net"], message())
            with pytest.raises(smtplib.SMTPDataError, match="not an address of yours"):
                client.sendmail(
                    "alice@example.org", ["bob@example.net"], message("boss@example.org")
                )
        assert sink.by_subject("hello").body == b"Hello\r\n"
        assert smtpd.alive()
