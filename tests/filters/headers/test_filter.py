"""headers under FakeSmtpd and under the real smtpd."""

from __future__ import annotations

import smtplib
import sys
import textwrap
from pathlib import Path

import pytest

from greenfilter import Filter
from greenfilter.errors import UsageError
from greenfilter.filters import headers
from greenfilter.testing import FakeSmtpd
from tests.filters.support import deliver, lines, log_all
from tests.support import smtpd as real
from tests.support.sink import Sink

MASQUERADE = '[[rule]]\nmasquerade = { "*.example.org" = "example.org" }\n'
MESSAGE = (
    b"Received: from x\r\n\tby y\r\nFrom: Anna <anna@pc7.example.org>\r\nX-Mailer: m\r\n"
    b"X-Internal-Id: 7\r\nSubject: =?utf-8?q?=5BEXT=5D_Gr=C3=BC=C3=9Fe?=\r\n\r\nHello\r\n"
)


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "rules.toml"
    path.write_text(MASQUERADE)
    return path


def build(rules: Path, text: str | None = None, *options: str) -> Filter:
    if text is not None:
        rules.write_text(text)
    return headers.build([f"--rules={rules}", *options])


def sent(app: Filter, message: bytes = MESSAGE, **more: str) -> bytes:
    """Give what becomes of a message."""
    with FakeSmtpd(app, received=False) as smtpd:
        assert deliver(smtpd, message=message, **more).ok
    return smtpd.messages[0].data


def test_a_rule_edits_fields_and_nothing_else(rules: Path) -> None:
    app = build(
        rules,
        """
        [[rule]]
        remove = ["x-mailer", "X-Internal-*"]
        replace = { header = "Subject", pattern = '/^\\[EXT\\] */', with = "" }
        set = { Precedence = "bulk" }
        add = { X-Tag = ["one", "two"] }
        """,
    )
    assert sent(app) == (
        b"Received: from x\r\n\tby y\r\nFrom: Anna <anna@pc7.example.org>\r\n"
        b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nPrecedence: bulk\r\n"
        b"X-Tag: one\r\nX-Tag: two\r\n\r\nHello\r\n"
    )


def test_a_long_value_is_folded(rules: Path) -> None:
    data = sent(build(rules, f'[[rule]]\nadd = {{ X-Long = "{"word " * 60}end" }}\n'))
    assert max(map(len, data.split(b"\r\n"))) <= 78
    assert b"X-Long: word" in data


def test_a_message_that_no_rule_is_for_stays_as_it_is(rules: Path) -> None:
    text = '[[rule]]\nmatch.header = { Subject = "nothing" }\nset = { Subject = "x" }\n'
    odd = b"No field\r\nX-Odd :  a\r\n\tb  \r\nSubject:x\r\n\r\nHi"
    assert sent(build(rules, text), odd) == odd + b"\r\n"


@pytest.mark.parametrize(
    ("conditions", "holds"),
    [
        ('match.header = { subject = "*Grüße" }', True),
        ('match.header = { Subject = "Grüße" }', False),
        ('match.header = { X-None = "*" }', False),
        ('match.header = { Subject = ["x", "/gr.ße/"], From = "*pc7*" }', True),
        ('unless.header = { Subject = "*" }', False),
        ('match.sender = "*@EXAMPLE.net"', True),
        ('match.sender = "/^bob@/"', False),
        ('match.recipient = "bob@*"', True),
        ('match.recipient = "carol@*"', True),
        ('match.recipient = "dave@*"', False),
        ('match.helo = "client.*"', True),
        ('match.rdns = "mail.example.net"', True),
        ('match.client = ["10.0.0.0/8", "192.0.2.0/24"]', True),
        ('match.client = "10.0.0.0/8"', False),
        ("match.authenticated = true", False),
        ("match = { authenticated = false, tls = false }", True),
        ("match.tls = true", False),
        ('match.user = "*"', True),
        ('match.user = "anna"', False),
    ],
)
def test_conditions(rules: Path, conditions: str, holds: bool) -> None:
    app = build(rules, f'[[rule]]\n{conditions}\nadd = {{ X-Held = "yes" }}\n')
    recipients = "bob@example.org carol@example.org"
    data = sent(app, recipients=recipients, rdns="mail.example.net")
    assert (b"X-Held: yes" in data) is holds


def test_conditions_about_users(rules: Path) -> None:
    text = '[[rule]]\nmatch = { user = "an*", authenticated = true, tls = true }\n'
    app = build(rules, text + 'add = { X-Held = "yes" }\n')
    assert b"X-Held: yes" in sent(app, user="anna")


SLOW = "/a*a?a?a?a?b/"
HOSTILE = b"".join(b"X-A: " + b"a" * 500 + b"\r\n" for _ in range(50)) + b"Subject: x\r\n\r\nHi\r\n"


@pytest.mark.parametrize(
    "rule",
    [
        f"match.header = {{ X-A = '{SLOW}' }}\nset = {{ X-Held = 'yes' }}",
        f"replace = {{ header = 'X-A', pattern = '{SLOW}', with = '' }}",
    ],
)
def test_a_hostile_message_cannot_take_long_with_many_slow_rules(
    rules: Path, rule: str, caplog: pytest.LogCaptureFixture
) -> None:
    log_all(caplog)
    app = build(rules, f"[[rule]]\n{rule}\n" * 50)  # 100 s of work
    with FakeSmtpd(app, received=False) as smtpd:
        assert deliver(smtpd, message=HOSTILE).rejected(451, "4.3.0 Rules for your mail take too")
        assert deliver(smtpd, message=MESSAGE).ok
    assert lines(caplog, "headers") == [f"defer reason=too-slow pattern={SLOW}"]


def test_recipients_of_a_message_share_its_time(rules: Path) -> None:
    slow = "/[^#]*[^#]?[^#]?[^#]?[^#]?#/"
    app = build(rules, f"[[rule]]\nknown = '{slow}'\ncatch_all = {{ x = 'a@x' }}\n" * 10)
    domain = f"{'a' * 60}.{'a' * 60}.example.org"
    with FakeSmtpd(app, received=False) as smtpd:
        session = smtpd.connect()
        session.ehlo("client.example.net")
        session.mail_from("alice@example.net")
        replies = [session.rcpt_to(f"{'a' * 60}{number}@{domain}") for number in range(100)]
        assert replies[0].ok
        assert replies[-1].rejected(451)
        assert session.rset().ok
        session.mail_from("alice@example.net")
        assert session.rcpt_to("bob@example.org").ok


def test_what_takes_too_long_passes_where_it_only_observes(
    rules: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log_all(caplog)
    text = f"[[rule]]\nmatch.header = {{ X-A = '{SLOW}' }}\nset = {{ X-Held = 'yes' }}\n" * 50
    assert sent(build(rules, text, "--log-only"), HOSTILE) == HOSTILE
    assert lines(caplog, "headers")[0].startswith("defer log-only=yes reason=too-slow")


def test_there_is_time_for_many_fields_of_one_name(rules: Path) -> None:
    many = b"From: nobody\r\n" * 10_000 + b"\r\nHi\r\n"
    assert sent(build(rules), many) == many


def test_masquerading_of_sender_and_from(rules: Path, caplog: pytest.LogCaptureFixture) -> None:
    log_all(caplog)
    with FakeSmtpd(build(rules), received=False) as smtpd:
        assert deliver(smtpd, sender="anna@pc7.example.org", message=MESSAGE).ok
        assert deliver(smtpd, sender="", message=MESSAGE).ok
        assert deliver(smtpd, sender="bob@example.net", message=b"From: b@example.net\n\nx\n").ok
    assert [each.mail_from for each in smtpd.messages] == [
        "anna@example.org",
        "",
        "bob@example.net",
    ]
    expected = MESSAGE.replace(b"@pc7.", b"@")
    assert [each.data for each in smtpd.messages[:2]] == [expected] * 2
    assert lines(caplog, "headers")[:2] == [
        "rewrite rule=1 what=sender address=anna@pc7.example.org to=anna@example.org",
        "edit rule=1",
    ]


def test_masquerading_where_the_rule_says(rules: Path) -> None:
    text = '[[rule]]\nmasquerade = { "root@*" = "admin@example.org" }\nmasquerade_in = "Reply-To"\n'
    with FakeSmtpd(build(rules, text), received=False) as smtpd:
        message = b"From: root@a.example\r\nReply-To: R <root@a.example>\r\n\r\nx\r\n"
        assert deliver(smtpd, sender="root@a.example", message=message).ok
    assert smtpd.messages[0].mail_from == "root@a.example"
    assert smtpd.messages[0].data == message.replace(b"<root@a.", b"<admin@").replace(
        b"admin@example>", b"admin@example.org>"
    )


def test_recipients_are_rewritten(rules: Path) -> None:
    app = build(
        rules,
        """
        [[rule]]
        strip_plus = "example.org"
        catch_all = { "example.org" = "office@example.org" }
        known = ["anna@example.org", "sales-*@example.org"]
        """,
    )
    given = (
        "anna@example.org Anna+x@Example.org sales-eu@example.org no@example.org a+b@example.com"
    )
    with FakeSmtpd(app) as smtpd:
        for recipient in given.split():
            assert deliver(smtpd, recipients=recipient).ok
    assert [list(each.rcpt_to) for each in smtpd.messages] == [
        ["anna@example.org"],
        ["Anna@Example.org"],
        ["sales-eu@example.org"],
        ["office@example.org"],
        ["a+b@example.com"],
    ]


def test_log_only_changes_nothing(rules: Path, caplog: pytest.LogCaptureFixture) -> None:
    log_all(caplog)
    with FakeSmtpd(build(rules, None, "--log-only"), received=False) as smtpd:
        assert deliver(smtpd, sender="anna@pc7.example.org", message=MESSAGE).ok
    assert smtpd.messages[0].mail_from == "anna@pc7.example.org"
    assert smtpd.messages[0].data == MESSAGE
    assert [each.split()[0] for each in lines(caplog, "headers")] == ["rewrite", "edit"]


def test_a_file_is_read_anew_and_a_broken_one_refused(
    rules: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log_all(caplog)
    broken = (
        "[[rule]]\nx = \n",
        "[[rule]]\nx = 1\n",
        "x = " + "9" * 5000,
        "x = " + "[" * 5000,
        "[[rule]]\nmatch.sender = '/(?<=a+)x/'\nremove = 'X-A'\n",
        None,
    )
    with FakeSmtpd(build(rules), received=False) as smtpd:
        for text in broken:
            rules.unlink() if text is None else rules.write_text(text)
            assert deliver(smtpd, sender="a@pc.example.org").ok
        rules.write_text('[[rule]]\nmasquerade = { "*.example.org" = "example.com" }\n')
        assert deliver(smtpd, sender="a@pc.example.org").ok
    senders = [each.mail_from for each in smtpd.messages]
    assert senders == ["a@example.org"] * len(broken) + ["a@example.com"]
    assert f"{rules}:2: Invalid value" in caplog.text
    assert f"{rules}:1: rule 1: x: is not known" in caplog.text
    assert f"{rules}: Exceeds the limit" in caplog.text
    assert f"{rules}: maximum recursion depth exceeded" in caplog.text
    assert f"{rules}:1: rule 1: match.sender: /(?<=a+)x/ is not a regular expression" in caplog.text
    assert f"{rules}: No such file or directory" in caplog.text
    assert caplog.text.count("what was read before goes on") == len(broken)


def test_the_rules_in_the_manual_are_right(rules: Path) -> None:
    manual = textwrap.dedent(headers.MANUAL)
    start, end = manual.index("    [[rule]]"), manual.index("match and unless know")
    build(rules, textwrap.dedent(manual[start:end]))
    assert rules.read_text().count("[[rule]]") == 3


def test_all_errors_of_a_file_are_told_at_once(rules: Path) -> None:
    with pytest.raises(UsageError) as caught:
        build(
            rules,
            """rules = 1
[[rule]]
name = "first"
match = { sender = "/(a+)+/", tls = "yes", client = "10.0.0.1/8", colour = "*" }
set = { "a b" = "x" }
[[rule]]
add = { X-A = 1 }
replace = { header = "Subject", pattern = "/a/", with = '\\1' }
[[rule]]
match.header.Subject = "*"
masquerade = { "*" = "not a domain" }
catch_all = { "*" = "example.org" }
[[rule]]
name = "idle"
""",
        )
    expected = [
        f"{rules}: rules: is not known",
        f"{rules}:2: rule 1 (first): match.sender: /(a+)+/ could take too long",
        f"{rules}:2: rule 1 (first): match.tls: 'yes' is neither true nor false",
        f"{rules}:2: rule 1 (first): match.client: '10.0.0.1/8' is not a network",
        f"{rules}:2: rule 1 (first): match.colour: is not known",
        f"{rules}:2: rule 1 (first): set.a b: 'a b' is not a valid header field name",
        f"{rules}:6: rule 2: add.X-A: 1 is not text",
        f"{rules}:6: rule 2: replace.with: '\\\\1': invalid group reference",
        f"{rules}:9: rule 3: masquerade.*: 'not a domain' is not an address or domain",
        f"{rules}:9: rule 3: catch_all.*: 'example.org' is not an address",
        f"{rules}:9: rule 3: catch_all: match.header is not known yet",
        f"{rules}:9: rule 3: masquerade: match.header is not known yet",
        f"{rules}:13: rule 4 (idle): rule: does nothing",
    ]
    found = str(caught.value).splitlines()
    assert [line[: len(start)] for line, start in zip(found, expected, strict=True)] == expected


def test_a_field_that_cannot_be_written_stays_and_the_log_says_so(
    rules: Path, caplog: pytest.LogCaptureFixture
) -> None:
    message = b"From: a@pc.example.org, b@\xff.example\r\nSubject: x\r\n\r\nx\r\n"
    assert sent(build(rules), message) == message
    assert "headers: rule 1: left as it is: the value of From cannot be encoded" in caplog.text


def test_a_message_with_too_large_a_header_block_passes(
    rules: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log_all(caplog)
    message = b"From: a@pc.example.org\r\n" + b"X-Big: x\r\n" * 120_000 + b"\r\nx\r\n"
    assert sent(build(rules), message) == message
    assert lines(caplog, "headers")[0].startswith("pass reason=")


@pytest.mark.parametrize(
    ("options", "problem"),
    [([], "give --rules"), (["--rules=/nowhere/x"], "/nowhere/x: No such file or directory")],
)
def test_wrong_options_are_told(options: list[str], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        headers.build(options)


def test_real_smtpd(rules: Path, require_smtpd: None) -> None:
    rules.write_text(
        MASQUERADE + 'strip_plus = "example.net"\nadd = { X-Tag = "yes" }\nremove = "X-Mailer"\n'
    )
    run = f"{sys.executable} -m greenfilter run headers --rules {rules}"
    message = b"From: a@pc.example.org\r\nX-Mailer: m\r\nSubject: hello\r\n\r\nHello\r\n"
    with Sink() as sink, real.Smtpd({"headers": run}, sink=sink) as smtpd:
        with smtplib.SMTP("127.0.0.1", smtpd.port, timeout=20) as client:
            client.sendmail("a@pc.example.org", ["bob+x@example.net"], message)
        received = sink.by_subject("hello")
        assert smtpd.alive()
    assert (received.mail_from, received.rcpt_tos) == ("a@example.org", ("bob@example.net",))
    assert received.headers["From"] == "a@example.org"
    assert received.headers["X-Tag"] == "yes"
    assert "X-Mailer" not in received.headers
    assert received.body == b"Hello\r\n"
