"""The filter in front of FakeSmtpd, with a real DNS server: what it marks, refuses, lets pass."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

import pytest

from greenfilter.errors import UsageError
from greenfilter.filters import auth_verify
from greenfilter.filters._auth_verify import results as results_field
from greenfilter.testing import FakeSmtpd
from tests.filters.support import deliver, lines, log_all
from tests.support.dns import DROP, SERVFAIL
from tests.support.wait import wait_until

from .signing import MAIL, record, seal, sign

if TYPE_CHECKING:
    from collections.abc import Callable

    from greenfilter.testing import Reply
    from tests.support.dns import DnsServer

FORGED = b"Authentication-Results: MX.example.org; dmarc=pass header.from=bank.example\r\n"
FOREIGN = b"Authentication-Results: list.example.net; spf=pass\r\n"


@pytest.fixture(autouse=True)
def zones(dns_server: DnsServer) -> None:
    dns_server.zones = {
        "example.com": {"TXT": "v=spf1 ip4:192.0.2.10 -all"},
        "mx.example.com": {"TXT": "v=spf1 ip4:192.0.2.10 -all"},
        "_dmarc.example.com": {"TXT": "v=DMARC1; p=reject"},
        "k1._domainkey.example.com": {"TXT": record()},
        "k1._domainkey.list.example.net": {"TXT": record()},
        "_dmarc.soft.example": {"TXT": "v=DMARC1; p=quarantine"},
        "_dmarc.open.example": {"TXT": "v=DMARC1; p=none"},
        "soft.example": {"A": "192.0.2.1"},
        "open.example": {"A": "192.0.2.1"},
    }


@pytest.fixture
def start(dns_server: DnsServer, caplog: pytest.LogCaptureFixture) -> Callable[..., FakeSmtpd]:
    """Make a FakeSmtpd in front of the filter with some options."""
    log_all(caplog)

    def make(*options: str) -> FakeSmtpd:
        resolver = ("--resolver", f"127.0.0.1@{dns_server.port}", "--authserv-id", "mx.example.org")
        return FakeSmtpd(auth_verify.build([*resolver, *options]))

    return make


def send(
    smtpd: FakeSmtpd,
    mail: bytes,
    src: str = "192.0.2.10:4711",
    sender: str = "alice@example.com",
    helo: str = "mx.example.com",
    **more: Any,
) -> tuple[Reply, bytes]:
    """Send a message; give the reply and what was delivered, b"" for nothing."""
    before = len(smtpd.messages)
    reply = deliver(smtpd, src, sender, message=mail, helo=helo, **more)
    delivered = smtpd.messages[before:]
    return reply, delivered[0].data if delivered else b""


def results(mail: bytes) -> str:
    """Give the value of the topmost header, unfolded, which has to be ours."""
    name, _, value = re.split(rb"\r\n(?![ \t])", mail)[0].replace(b"\r\n", b"").partition(b":")
    assert name == b"Authentication-Results"
    return " ".join(value.decode("ascii").split())


def by(authors: str) -> bytes:
    """Give the mail with other authors, one in each line."""
    folded = authors.replace(", ", ",\r\n ").encode()
    return re.sub(rb"(?m)^From: .*?\r$", b"From: " + folded + b"\r", MAIL)


def from_(domain: str) -> bytes:
    return MAIL.replace(b"alice@example.com", f"alice@{domain}".encode())


def test_mail_in_order_gets_a_header_and_keeps_its_bytes(start):
    mail = sign()
    with start() as smtpd:
        reply, delivered = send(smtpd, mail)
    assert reply.ok
    text = results(delivered)
    assert text.startswith("mx.example.org; spf=pass smtp.mailfrom=alice@example.com; dkim=pass ")
    assert "header.d=example.com header.s=k1 header.a=rsa-sha256; dmarc=pass" in text
    assert text.endswith("header.from=example.com policy.dmarc=reject")
    assert delivered.endswith(mail)


@pytest.mark.parametrize("form", ["simple", "relaxed"])
def test_a_signature_alone_is_enough_for_dmarc(start, form):
    with start("--enforce", "reject") as smtpd:
        reply, delivered = send(smtpd, sign(form=form), "192.0.2.99:1", "list@example.net")
    assert reply.ok
    assert "spf=none" in results(delivered)
    assert "dmarc=pass" in results(delivered)


def test_forged_mail_is_marked_only_unless_it_is_to_be_enforced(start, caplog):
    with start() as smtpd:
        reply, delivered = send(smtpd, MAIL, "192.0.2.99:1")
    assert reply.ok
    assert "spf=fail smtp.mailfrom=alice@example.com; dkim=none; dmarc=fail" in results(delivered)
    assert b"X-Spam" not in delivered
    assert lines(caplog, "auth_verify") == [
        "header spf=fail:example.com dkim=none dmarc=fail policy=reject author=example.com"
        " client=192.0.2.99 from=alice@example.com"
    ]


def test_forged_mail_is_refused_with_domain_and_reason(start, caplog):
    with start("--enforce", "reject") as smtpd:
        reply, delivered = send(smtpd, MAIL, "192.0.2.99:1")
    assert reply.rejected(550, "5.7.1 Mail from example.com refused by the DMARC policy of")
    assert "SPF fail for example.com, DKIM none" in str(reply)
    assert delivered == b""
    assert lines(caplog, "auth_verify")[0].startswith("reject reason=dmarc spf=fail:example.com")


@pytest.mark.parametrize(
    ("options", "domain"), [("reject", "soft.example"), ("junk", "example.com")]
)
def test_what_is_to_be_quarantined_is_junk(start, options, domain):
    with start("--enforce", options) as smtpd:
        reply, delivered = send(smtpd, from_(domain), "192.0.2.99:1")
    assert reply.ok
    assert delivered.startswith(b"X-Spam: Yes\r\nAuthentication-Results: mx.example.org;")
    assert delivered.endswith(from_(domain))


def test_a_policy_of_none_is_never_enforced(start):
    with start("--enforce", "reject") as smtpd:
        reply, delivered = send(smtpd, from_("open.example"), "192.0.2.99:1")
    assert reply.ok
    assert "dmarc=fail" in results(delivered)


def test_forwarders_are_verified_but_not_refused(start, caplog):
    with start("--enforce", "reject", "--forwarder", "192.0.2.96/28") as smtpd:
        reply, delivered = send(smtpd, MAIL, "192.0.2.99:1")
    assert reply.ok
    assert "dmarc=fail" in results(delivered)
    assert lines(caplog, "auth_verify")[0].startswith("header reason=forwarder ")


def test_spf_alone_can_be_enforced_unless_dmarc_passes(start):
    with start("--spf-fail", "reject") as smtpd:
        reply, _ = send(smtpd, from_("other.example"), "192.0.2.99:1")
        assert reply.rejected(550, "5.7.23 192.0.2.99 may not send mail for example.com")
        assert send(smtpd, sign(), "192.0.2.99:1")[0].ok


def test_the_null_sender_is_checked_by_its_helo_name(start):
    with start() as smtpd:
        _, delivered = send(smtpd, from_("mx.example.com"), sender="")
    assert "spf=pass smtp.helo=mx.example.com;" in results(delivered)
    assert "dmarc=pass" in results(delivered)


def test_claims_to_be_ours_are_removed_and_those_of_others_stay(start):
    with start("--remove-id", "old.example.org") as smtpd:
        old = b"authentication-results:\r\n\t(x)OLD.example.org 1; none\r\n"
        _, delivered = send(smtpd, FORGED + FOREIGN + old + FORGED + MAIL)
    assert delivered.endswith(b"\r\n" + FOREIGN + MAIL)
    assert b"bank" not in delivered
    assert b"OLD" not in delivered


def test_thousands_of_claims_are_removed_in_time(start):
    with start() as smtpd:
        _, delivered = send(smtpd, FOREIGN + FORGED * 9000 + MAIL)
    assert delivered.endswith(b"\r\n" + MAIL)
    assert delivered.count(b"Authentication-Results") == 1


def test_authenticated_mail_is_not_verified_but_cannot_claim_to_be(start, caplog, dns_server):
    with start("--enforce", "reject") as smtpd:
        reply, delivered = send(smtpd, FORGED + MAIL, "192.0.2.99:1", user="alice")
    assert reply.ok
    assert delivered.endswith(MAIL)
    assert b"Authentication-Results" not in delivered
    assert dns_server.queries == []
    assert lines(caplog, "auth_verify") == [
        "pass reason=authenticated user=alice client=192.0.2.99 from=alice@example.com"
    ]


@pytest.mark.parametrize("src", ["127.0.0.1:5", "[::1]:5", "198.51.100.7:5"])
def test_mail_from_here_and_from_local_networks_is_left_as_it_is(start, src, caplog, dns_server):
    with start("--enforce", "reject", "--local", "198.51.100.0/24") as smtpd:
        reply, delivered = send(smtpd, FORGED + MAIL, src)
    assert reply.ok
    assert delivered.endswith(FORGED + MAIL)
    assert dns_server.queries == []
    [line] = lines(caplog, "auth_verify")
    assert line.startswith("pass reason=local client=")


@pytest.mark.parametrize(
    "head",
    [
        b"From: alice@example.com\r\nFrom: eve@evil.example\r\n",
        b"From: alice@example.com, eve@evil.example\r\n",
        b"From: eve@evil.example, alice@example.com\r\n",
        b"from : eve@evil.example\r\nFROM:\r\n alice@example.com\r\n",
        b"From: Friends: alice@example.com, eve@evil.example;\r\n",
        b"From: <eve@evil.example> <alice@example.com>\r\n",
    ],
)
def test_a_second_author_does_not_evade_the_policy_of_the_first(start, head, dns_server):
    dns_server.zones["evil.example"] = {"TXT": "v=spf1 +all"}
    mail = head + b"Subject: x\r\n\r\nhello\r\n"
    with start("--enforce", "reject") as smtpd:
        reply, _ = send(smtpd, mail, "192.0.2.99:1", "eve@evil.example")
    assert reply.rejected(550, "Mail from example.com refused by the DMARC policy of example.com")


@pytest.mark.parametrize(
    "head", [b"", b"From: \r\n", b"From: undisclosed:;\r\n", b"From: alice\r\n", b"From: <>\r\n",
             b"From: a@[192.0.2.1]\r\n", b"From: a@\xff\xfe.example\r\n"],
)  # fmt: skip
def test_mail_without_an_author_is_marked_or_refused(start, head):
    mail = head + b"Subject: x\r\n\r\nhello\r\n"
    with start() as smtpd:
        assert "dmarc=permerror reason=" in results(send(smtpd, mail)[1])
    with start("--bad-from", "reject") as smtpd:
        assert send(smtpd, mail)[0].rejected(550, "5.7.1 It is not clear who wrote this mail")
    with start("--bad-from", "junk") as smtpd:
        assert send(smtpd, mail)[1].startswith(b"X-Spam: Yes\r\n")


def test_a_group_of_one_domain_is_in_order(start):
    mail = MAIL.replace(b"Alice <alice@example.com>", b"We: a@example.com, b@EXAMPLE.com;")
    with start() as smtpd:
        assert "dmarc=pass header.from=example.com" in results(send(smtpd, mail)[1])


MANY = ", ".join(f"x@free{number}.example" for number in range(8))


@pytest.mark.parametrize(
    "authors",
    [
        pytest.param(f"{MANY}, alice@example.com", id="eight domains before"),
        pytest.param(f"{'x, ' * 35_000}alice@example.com", id="64 KiB of a name before"),
        pytest.param(
            f"{'x@free.example, ' * 5000}alice@example.com", id="64 KiB of addresses before"
        ),
    ],
)
def test_authors_behind_those_that_are_asked_about_are_treated_as_strictly(start, caplog, authors):
    mail = by(authors)
    with start() as smtpd:
        reply, delivered = send(smtpd, mail, "192.0.2.99:1", "x@free.example")
        assert reply.ok
        assert "dmarc=permerror reason=" in results(delivered)
    with start("--enforce", "junk") as smtpd:
        reply, delivered = send(smtpd, mail, "192.0.2.99:1", "x@free.example")
        assert reply.ok
        assert b"X-Spam: Yes" in delivered
    with start("--enforce", "reject", "--forwarder", "192.0.2.99") as smtpd:
        assert send(smtpd, mail, "192.0.2.99:1", "x@free.example")[0].ok
    caplog.clear()
    with start("--enforce", "reject") as smtpd:
        reply, _ = send(smtpd, mail, "192.0.2.99:1", "x@free.example")
        assert reply.rejected(550, "5.7.1 It cannot be checked who wrote this mail: ")
    assert lines(caplog, "auth_verify")[0].startswith("reject reason=authors ")


def test_authors_whose_dns_is_silent_do_not_hide_the_policy_of_others(dns_server):
    silent = [f"silent{number}.example" for number in range(7)]
    dns_server.zones |= {f"_dmarc.{name}": DROP for name in silent}
    authors = [*(f"x@{name}" for name in silent), "alice@example.com"]
    options = ["--enforce=reject", "--timeout=2", "--dns-timeout=1"]
    command = [sys.executable, "-m", "greenfilter", "run", "--no-supervisor", "auth_verify"]
    with FakeSmtpd([*command, *options, f"--resolver=127.0.0.1@{dns_server.port}"]) as smtpd:
        reply, _ = send(smtpd, by(", ".join(authors)), "192.0.2.99:1", "x@free.example")
    assert reply.rejected(550, "5.7.1 Mail from example.com refused by the DMARC policy of")


def test_authors_that_ask_much_do_not_hide_the_policy_of_others(start, dns_server):
    deep = [f"x@{'a.' * 9}free{number}.example" for number in range(7)]
    mail = by(", ".join([*deep, "alice@example.com"]))
    with start("--enforce", "reject", "--queries", "12") as smtpd:
        reply, _ = send(smtpd, mail, "192.0.2.99:1", "x@free.example")
    assert reply.rejected(550, "5.7.1 Mail from example.com refused by the DMARC policy of")


def test_domains_in_unicode_are_written_as_a_labels(start, dns_server):
    dns_server.zones["_dmarc.xn--bcher-kva.example"] = {"TXT": "v=DMARC1; p=reject"}
    dns_server.zones["xn--bcher-kva.example"] = {"TXT": "v=spf1 ip4:192.0.2.10 -all"}
    with start() as smtpd:
        _, delivered = send(smtpd, from_("bücher.example"), sender="a@xn--bcher-kva.example")
    assert "dmarc=pass header.from=xn--bcher-kva.example" in results(delivered)


def test_arc_is_verified_when_it_is_asked_for(start):
    mail = seal(b"Authentication-Results: list.example.net; dkim=pass\r\n" + sign())
    with start() as smtpd:
        assert "; arc=" not in results(send(smtpd, mail)[1])
    with start("--arc") as smtpd:
        text = results(send(smtpd, mail)[1])
        assert text.endswith("arc=pass header.d=list.example.net header.s=k1 header.i=1")
        text = results(send(smtpd, mail.replace(b"Hello", b"Hullo"))[1])
        assert 'arc=fail reason="body hash did not verify"' in text


def test_dns_that_fails_is_a_temperror_and_mail_is_let_in(start, dns_server):
    dns_server.failure = SERVFAIL
    with start("--enforce", "reject", "--spf-fail", "reject") as smtpd:
        reply, delivered = send(smtpd, sign())
    assert reply.ok
    assert "spf=temperror" in results(delivered)
    assert "dkim=temperror" in results(delivered)
    assert "dmarc=temperror" in results(delivered)


def test_mail_that_could_not_be_checked_can_be_deferred(start, dns_server, caplog):
    dns_server.failure = SERVFAIL
    with start("--enforce", "reject", "--defer-temperror") as smtpd:
        assert send(smtpd, sign())[0].rejected(451, "4.4.3 Your mail could not be checked")
    assert lines(caplog, "auth_verify")[0].startswith("defer reason=temperror ")


def test_a_message_may_ask_so_many_questions_only(start, dns_server):
    dns_server.zones["example.com"] = {"TXT": "v=spf1 a:a.example.com a:b.example.com -all"}
    with start("--queries", "2") as smtpd:
        reply, delivered = send(smtpd, MAIL)
    assert reply.ok
    assert "spf=temperror" in results(delivered)
    assert "more than 2 questions" in results(delivered)
    assert dns_server.count("a.example.com") == 1
    assert dns_server.count("b.example.com") == 0


def test_a_strangers_dns_cannot_keep_us_from_his_victims_policy(start, dns_server):
    mechanisms = " ".join(f"a:{number}.evil.com" for number in range(9))
    dns_server.zones |= {
        "evil.com": {"TXT": f"v=spf1 {mechanisms} +all"},
        "k1._domainkey.sub.evil.com": {"TXT": record()},
        "_dmarc.sub.evil.com": SERVFAIL,
        "_dmarc.evil.com": SERVFAIL,
    }
    with start("--enforce", "reject", "--queries", "4") as smtpd:
        reply, _ = send(smtpd, sign(MAIL, "sub.evil.com"), "192.0.2.99:1", "eve@evil.com")
    assert reply.rejected(550, "DKIM pass for sub.evil.com only")


def test_the_public_suffix_list_decides_when_it_is_given(start, tmp_path, dns_server):
    path = tmp_path / "suffixes.dat"
    path.write_text("// comment\ncom\nco.uk\n*.ck\n!www.ck\nexample\n")
    dns_server.zones["_dmarc.shop.co.uk"] = {"TXT": "v=DMARC1; p=reject; sp=quarantine"}
    with start("--public-suffix-list", str(path)) as smtpd:
        _, delivered = send(smtpd, from_("mail.shop.co.uk"), "192.0.2.99:1")
    assert "dmarc=fail header.from=mail.shop.co.uk policy.dmarc=quarantine" in results(delivered)
    assert dns_server.count("_dmarc.co.uk") == dns_server.count("_dmarc.uk") == 0


def test_an_observing_filter_logs_and_changes_nothing(start, caplog):
    with start("--enforce", "reject", "--log-only") as smtpd:
        reply, delivered = send(smtpd, FORGED + MAIL, "192.0.2.99:1")
        assert reply.ok
        assert delivered.endswith(FORGED + MAIL)
        wait_until(lambda: "auth_verify: " in caplog.text, 10, "the decision to be logged")
    assert lines(caplog, "auth_verify")[0].startswith("reject log-only=yes reason=dmarc spf=fail")


@pytest.mark.parametrize(
    "mail",
    [
        b"",
        b"\r\n",
        b"\r\n\r\n\r\n",
        b"no header at all\r\n",
        b"From: a@example.com\r\nno colon here\r\n\r\nx\r\n",
        b" folded: before\r\nany field\r\n\r\n",
        b"DKIM-Signature:\r\nFrom: a@example.com\r\n\r\nx\r\n",
        b"DKIM-Signature: v=1; a=rsa-sha256; =;;=; d=\xff; b=!;\r\n\r\n",
        b"ARC-Seal: i=1\r\nARC-Seal: i=99999\r\nFrom: \"\r\n\r\n",
        b"Authentication-Results: (((\r\nAuthentication-Results: \"\r\n\r\n\0\xff",
        b"From: " + b"(" * 900 + b"\r\n\r\n",
    ],
)  # fmt: skip
def test_malformed_mail_is_let_in_with_its_header(start, mail):
    with start("--arc") as smtpd:
        reply, delivered = send(smtpd, mail)
    assert reply.ok
    assert results(delivered).startswith("mx.example.org; spf=pass")


@pytest.mark.parametrize(
    "field",
    [
        b"DKIM-Signature: v=1; a=rsa-sha256; d=example.com; s=k1; h=from; bh=AA==; b="
        + b"A " * 400,
        b"DKIM-Signature: " + b"; ".join(b"a%d=1" % number for number in range(150)),
        b"From: " + b"\t" * 900 + b"a@example.com",
        b"Authentication-Results: " + b"(" * 900,
    ],
)  # fmt: skip
def test_hostile_white_space_and_depth_are_read_in_time(start, field):
    # 500 lines of each: more than a quadratic pattern could read within the test's time limit.
    block = b"\r\n".join([field, *[b" " + b" \t" * 450] * 500]) + b"\r\n"
    with start("--arc") as smtpd:
        reply, _ = send(smtpd, block + MAIL)
    assert reply.ok


def test_no_more_than_ten_signatures_are_verified(start, dns_server):
    mail = MAIL
    for number in range(15):
        name = f"d{number}.example.net"
        mail = sign(MAIL, name)[: -len(MAIL)] + mail
    with start() as smtpd:
        _, delivered = send(smtpd, mail)
    assert results(delivered).count("dkim=") == 10
    assert sum("_domainkey" in query.name for query in dns_server.queries) == 10


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--enforce", "always"], "--enforce"),
        (["--authserv-id", "a; dmarc=pass"], "is not a name"),
        (["--public-suffix-list", "/nowhere"], "/nowhere: No such file"),
        (["--public-suffix-list", "/dev/null"], "no names"),
        (["--forwarder", "somebody"], "is not an address or a network"),
        (["--queries", "0"], "is not a number from 1"),
        (["--timeout", "-1"], "is not a time"),
        (["extra"], "unrecognized arguments"),
    ],
)
def test_wrong_options_are_one_line(options, text):
    with pytest.raises(UsageError, match=re.escape(text)) as caught:
        auth_verify.build(options)
    assert "\n" not in str(caught.value)


def test_smtpds_own_name_is_the_default(dns_server):
    app = auth_verify.build(["--resolver", f"127.0.0.1@{dns_server.port}"])
    with FakeSmtpd(app) as smtpd:
        _, delivered = send(smtpd, MAIL)
    assert results(delivered).startswith(f"{app.config.admd}; spf=pass")


def test_a_filter_that_fails_defers_mail_so_that_no_forged_header_passes(
    start, monkeypatch, caplog
):
    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(results_field, "compose", fail)
    with start() as smtpd:
        reply, delivered = send(smtpd, FORGED + MAIL)
        assert reply.rejected(451, "4.3.0")
        assert delivered == b""
    assert "failed: RuntimeError: a bug" in caplog.text


def test_headers_beyond_all_bounds_are_refused(start):
    with start() as smtpd:
        reply, _ = send(smtpd, (b"X-Any: " + b"x" * 900 + b"\r\n") * 1200 + MAIL)
    assert reply.rejected(552)
