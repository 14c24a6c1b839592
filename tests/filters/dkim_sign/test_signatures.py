"""What dkim_sign signs verifies with dkimpy; its options and choice of keys."""

from __future__ import annotations

import hashlib
import ipaddress
import re
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import dkim
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from greenfilter import Headers
from greenfilter.errors import UsageError
from greenfilter.filters import dkim_sign
from greenfilter.filters._dkim_sign.canonical import NotSigned, body_hash
from greenfilter.filters._dkim_sign.signer import Signer, from_domain, signature
from greenfilter.filters._smtpd_edits import complete_addresses
from greenfilter.protocol import Address

from .support import RSA, key_options, verified, write_key

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PLAIN = (
    b"Received: from client.example.net\r\n\tby mx.example.org; Mon, 23 Nov 2026 09:00:00 +0000\r\n"
    b"From: Alice <alice@example.org>\r\nTo: bob@example.net\r\nSubject: hello\r\n"
    b"Date: Mon, 23 Nov 2026 09:00:00 +0000\r\nMessage-ID: <1@example.org>\r\n"
    b"\r\nHello Bob\r\n"
)


@pytest.fixture
def keys(tmp_path: Path) -> list[str]:
    return key_options(tmp_path)


@pytest.fixture
def signer(keys: list[str]) -> Signer:
    return make_signer(*keys)


def make_signer(*options: str) -> Signer:
    return dkim_sign.make_signer(dkim_sign.parse(options))


def sign(signer: Signer, raw: bytes, host: str = "mx.example.org") -> bytes:
    head, blank, body = raw.partition(b"\r\n\r\n")
    headers = Headers(head + b"\r\n")
    lines = body.split(b"\r\n")
    if not lines[-1]:
        lines.pop()
    assert signer.sign(headers, lines, host)
    return bytes(headers) + (blank and b"\r\n" + body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\r\n",
        b"\r\n\r\n\r\n",
        b" \r\n\t\r\n",
        b"no newline at the end",
        b"white  space \t here\t \r\n  leading\r\n \r\nend\r\n\r\n \r\n",
        b".\r\n..dots\r\n",
        b"caf\xc3\xa9 \xff\xfe\x80\r\n",
        b"x" * 998 + b"\r\n",
        b"vertical\x0btab \x0c\r\n",
    ],
)
def test_rsa_and_ed25519_signatures_verify_for_any_body(signer: Signer, body: bytes) -> None:
    head, _, _ = PLAIN.partition(b"\r\n\r\n")
    assert verified(sign(signer, head + b"\r\n\r\n" + body)) == [True, True]


def test_signatures_of_a_message_without_a_blank_line_verify(signer: Signer) -> None:
    head, _, _ = PLAIN.partition(b"\r\n\r\n")
    assert verified(sign(signer, head + b"\r\n")) == [True, True]


@pytest.mark.parametrize(
    "field",
    [
        b"Subject: a subject\r\n\tfolded  twice \r\n  and spaced\t",
        b"Subject:",
        b"Subject:no space",
        b"Subject: caf\xc3\xa9 \xff",
        b"Subject: one\r\nSubject: two\r\nSubject: three",
        b"Reply-To: a@example.org\r\nReply-To: b@example.org",
        b"X-Not-Signed: x\x0c",
        b"Subject: within\x0cthe value",
    ],
)
def test_signatures_verify_for_odd_headers(signer: Signer, field: bytes) -> None:
    raw = PLAIN.replace(b"Subject: hello", field)
    assert verified(sign(signer, raw)) == [True, True]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(alphabet=" \tabc.\r=", max_size=12).map(str.encode), max_size=12))
def test_body_hash_is_what_dkimpy_makes_of_the_same_lines(lines: list[bytes]) -> None:
    body = b"".join(line + b"\r\n" for line in lines)
    relaxed = dkim.canonicalization.Relaxed.canonicalize_body(body)
    assert body_hash(lines) == hashlib.sha256(relaxed).digest()


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=' \t\\"(),<>@:;ab', max_size=30))
def test_completing_addresses_twice_changes_nothing_more(value: str) -> None:
    once = complete_addresses(value, "mx.example.org")
    assert complete_addresses(once, "mx.example.org") == once
    assert re.sub(r"@mx\.example\.org|[ \t]", "", once) == re.sub(r"[ \t]", "", value)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda raw: raw.replace(b"Hello Bob", b"Hello Eve"),
        lambda raw: raw.replace(b"alice@", b"eve@"),
        lambda raw: b"Subject: another\r\n" + raw,
        lambda raw: b"From: eve@example.org\r\n" + raw,
        lambda raw: b"Cc: eve@example.org\r\n" + raw,
        lambda raw: raw.replace(b"Subject: hello", b"Subject: hello\r\nReply-To: eve@example.org"),
    ],
)
def test_a_changed_message_does_not_verify(signer: Signer, spoil: Callable[[bytes], bytes]) -> None:
    assert verified(spoil(sign(signer, PLAIN))) == [False, False]


def test_headers_that_are_not_signed_may_be_added(signer: Signer) -> None:
    assert verified(b"X-Seen: yes\r\n" + sign(signer, PLAIN)) == [True, True]


def test_signature_lines_are_folded_and_lie_on_top(signer: Signer) -> None:
    signed = sign(signer, PLAIN)
    head = signed[: signed.index(b"Received:")]
    assert signed.startswith(b"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;")
    assert head.count(b"DKIM-Signature:") == 2
    assert max(map(len, head.split(b"\r\n"))) <= 78


def test_hostile_white_space_takes_linear_time() -> None:
    def seconds(size: int) -> float:
        lines = [b" " * size + b"x" + b"\t" * size] * 4
        field = [("Subject", "a" + " " * size + "b")]
        start = time.process_time()
        body_hash(lines)
        signature(field, ["subject"], b"", SimpleNamespace(**FAKE_KEY), 0)
        return time.process_time() - start

    seconds(1000)
    # Sixteen times the size in about sixteen times the time, where a quadratic one takes 256.
    assert seconds(4_000_000) < 100 * max(seconds(250_000), 0.001)


FAKE_KEY = {"algorithm": "a", "domain": "d", "selector": "s", "sign": lambda data: b"x"}


@pytest.mark.parametrize(
    ("value", "completed"),
    [
        ("bob", "bob@mx"),
        ("Bob <bob>", "Bob <bob@mx>"),
        ("Bob <bob >", "Bob <bob@mx >"),
        ("bob (at home)", "bob@mx (at home)"),
        ("bob@example.org, carol", "bob@example.org, carol@mx"),
        ('"Doe, Jane" <jane>, bob', '"Doe, Jane" <jane@mx>, bob@mx'),
        ("(a, b) bob", "(a, b) bob@mx"),
        ("<>", "<>"),
        ("", ""),
        ("  ", "  "),
        ("(only a comment)", "(only a comment)"),
        ("undisclosed-recipients:;", "undisclosed-recipients:;"),
        ('"open <bob>', '"open <bob>'),
        ("bob >", "bob >@mx"),
        ("<bob", "<bob"),
        ("bob@example.org,, carol", "bob@example.org,, carol@mx"),
        # What smtpd makes of malformed ones, seen from smtpd 6.8.0p2.
        ("bob\\", "bob\\@mx"),
        ("bob,)", "bob@mx,)@mx"),
        ("bob,(c)", "bob@mx, (c)"),
        ("<bob> c>", "<bob@mx> c>"),
        ("x" * 5000, "x" * 5000),
    ],
)
def test_addresses_without_a_domain_are_completed(value: str, completed: str) -> None:
    assert complete_addresses(value, "mx") == completed


def test_the_edits_that_smtpd_would_make_are_made_first(signer: Signer) -> None:
    raw = b"From: alice@example.org\r\nTo: bob, carol@example.net\r\nBcc: dan\r\n\r\nx\r\n"
    signed = sign(signer, raw)
    headers = Headers(signed.partition(b"\r\n\r\n")[0] + b"\r\n")
    assert headers.get_all("To") == ["bob@mx.example.org, carol@example.net"]
    assert headers.get_all("Bcc") == []
    assert len(headers.get_all("Date")) == 1
    assert re.fullmatch(r"<\S+@mx\.example\.org>", headers.get("Message-ID") or "")
    assert verified(signed) == [True, True]


@pytest.mark.parametrize("name", [b"Date", b"Message-ID"])
def test_a_field_that_smtpd_does_not_know_for_its_space_is_added(
    signer: Signer, name: bytes
) -> None:
    signed = sign(signer, PLAIN.replace(name + b":", name + b" :"))
    assert signed.partition(b"\r\n\r\n")[0].count(b"\n" + name + b": ") == 1


@pytest.mark.parametrize(
    ("value", "domain"),
    [
        ("alice@example.org", "example.org"),
        ("Alice <alice@Example.ORG.>", "example.org"),
        ('"x@evil.example" <alice@example.org>', "example.org"),
        ("alice@example.org (was x@evil.example)", "example.org"),
        ("alice@example.org, eve@evil.example", "example.org"),
        ("x@evil.example <alice@example.org>", "example.org"),
        ("alice", ""),
        ("", ""),
        ("friends: alice@example.org;", "example.org"),
    ],
)
def test_domain_of_the_from_header(value: str, domain: str) -> None:
    assert from_domain(value) == domain


def test_keys_of_a_parent_domain_are_used_only_if_asked_for(signer: Signer) -> None:
    ring = signer.ring
    found = ring.keys("example.org")
    assert [key.selector for key in found] == ["r1", "e1"]
    assert ring.keys("mail.example.org") == []
    assert ring.keys("a.mail.example.org", parents=True) == found
    assert ring.keys("badexample.org", parents=True) == []


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"To: bob@example.org\r\n", "0 From headers"),
        (b"From: a@example.org\r\nFrom: b@example.org\r\n", "2 From headers"),
        (b"From: a@example.net\r\n", "no key for 'example.net'"),
        (b"From: a@mail.example.org\r\n", "no key for 'mail.example.org'"),
        (b"From: a@example.org\r\n" + b"To: b\r\n" * 100, "more than 100 address headers"),
        (
            b"From: a@example.org\r\nIn-Reply-To: b\r\r\n",
            "a control character at one end of In-Reply-To",
        ),
        (
            b"From: a@example.org\r\nSubject: \x0cb\r\n",
            "a control character at one end of Subject",
        ),
        (
            b"From: a@example.org\r\nMy Field: x\r\nTo: b\r\n",
            "a header line that is not a field: b'My Field: x'",
        ),
        (b"From: a@example.org\r\n: x\r\n", "a header line that is not a field: b': x'"),
        (b"From: a@example.org\r\nX\r: x\r\n", "a header line that is not a field: b'X\\r: x'"),
        (
            b"From: a@example.org\r\nX: " + b"x" * 996 + b"\r\n",
            "X needs a line of 999 octets",
        ),
        (
            b"From: a@example.org\r\n" + b"X: a\rb\r\n" * 101,
            "more than 100 headers with a bare CR",
        ),
    ],
)
def test_what_cannot_be_signed_is_left_as_it_is(signer: Signer, raw: bytes, problem: str) -> None:
    headers = Headers(raw)
    with pytest.raises(NotSigned) as caught:
        signer.sign(headers, [], "mx.example.net")
    assert str(caught.value) == problem
    assert bytes(headers) == raw


def test_an_address_header_that_cannot_be_written_is_not_lost(signer: Signer) -> None:
    raw = (
        b"From: a@example.org\r\nTo: "
        + b",".join([b"bob"] * 100)
        + b"\r\nCc: carol\r\nBcc: dan\r\n"
    )
    headers = Headers(raw)
    with pytest.raises(ValueError, match="To"):
        signer.sign(headers, [], "mx.example.org")
    assert bytes(headers) == raw


def test_a_cr_in_a_header_becomes_a_space(signer: Signer) -> None:
    raw = PLAIN.replace(b"Subject: hello", b"Subject: a\rb\r\nX-Seen: c\rd\r\nTo: bo\rb")
    signed = sign(signer, raw)
    assert b"\r\nSubject: a b\r\nX-Seen: c d\r\nTo: bo b@mx.example.org\r\n" in signed
    assert verified(signed) == [True, True]


def test_only_the_field_with_a_cr_is_changed(signer: Signer) -> None:
    raw = PLAIN.replace(b"Subject: hello", b"Subject:one\r\nsubject:  two\rthree\r\nSubject:\r\n x")
    assert b"Subject:one\r\nsubject: two three\r\nSubject:\r\n x\r\n" in sign(signer, raw)


@pytest.mark.parametrize(
    ("head", "body", "problem"),
    [
        (b"", b"x" * 999, "a line of 999 octets in the body"),
        (b"", b"one\rtwo", "a bare CR in the body"),
        (b"Bcc: dan\r\nSubject: c\rd\r\n", b"x" * 999, "a line of 999 octets in the body"),
    ],
)
def test_a_body_that_changes_on_its_way_is_not_signed(
    signer: Signer, head: bytes, body: bytes, problem: str
) -> None:
    raw = b"From: a@example.org\r\nTo: bob\r\n" + head
    headers = Headers(raw)
    with pytest.raises(ValueError, match=problem):
        signer.sign(headers, [b"first", body], "mx.example.org")
    assert bytes(headers) == raw


@pytest.mark.parametrize(
    ("value", "domain"),
    [
        ("anna@B\u00fccher.example", "xn--bcher-kva.example"),
        ("anna@xn--BCHER-kva.example", "xn--bcher-kva.example"),
        ("<anna@bu\u0308cher\u3002example>", "xn--bcher-kva.example"),
        ("anna@stra\u00dfe.example.", "xn--strae-oqa.example"),
        ("anna@\udcff.example", ""),
        ("anna@" + "\u00fc" * 70 + ".example", ""),
    ],
)
def test_an_international_domain_is_compared_as_a_labels(value: str, domain: str) -> None:
    assert from_domain(value) == domain


@pytest.mark.parametrize(
    ("configured", "domain"),
    [
        ("B\u00fccher.example", "xn--bcher-kva.example"),
        ("xn--bcher-kva.EXAMPLE.", "xn--bcher-kva.example"),
        ("mail.b\u00fccher.example", "mail.xn--bcher-kva.example"),
    ],
)
def test_the_domain_of_a_key_is_written_as_a_labels(
    tmp_path: Path, configured: str, domain: str
) -> None:
    path = write_key(tmp_path / "r1.pem", RSA)
    signer = make_signer(f"--key={configured}:r1:{path}")
    signed = sign(signer, PLAIN.replace(b"example.org>\r\nTo", f"{configured}>\r\nTo".encode()))
    assert f" d={domain};".encode() in signed.replace(b"\r\n", b"")


@pytest.mark.parametrize(
    ("src", "authenticated", "own"),
    [
        ("127.0.0.1:40000", False, True),
        ("[::1]:40000", False, True),
        ("[::ffff:127.0.0.1]:40000", False, True),
        ("unix:/var/run/smtpd.sock", False, True),
        ("nonsense", False, False),
        (None, False, False),
        (None, True, True),
        ("192.0.2.1:40000", False, False),
        ("192.0.2.1:40000", True, True),
        ("198.51.100.7:40000", False, True),
        ("[2001:db8::1]:40000", False, False),
    ],
)
def test_whose_mail_is_signed(src: str | None, authenticated: bool, own: bool) -> None:
    session = SimpleNamespace(src=src and Address(src), authenticated=authenticated)
    assert dkim_sign.is_own(session, [ipaddress.ip_network("198.51.100.0/24")]) is own


def bad_keys(tmp_path: Path) -> dict[str, Any]:
    return {
        "EMPTY": b"",
        "PUBLIC": RSA.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ),
        "EC": ec.generate_private_key(ec.SECP256R1()),
        "ENCRYPTED": RSA.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        ),
    }


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ([], "give one --key, --key-table or --key-directory at least"),
        (["--key=example.org:sel"], "'example.org:sel' is not DOMAIN:SELECTOR:FILE"),
        (["--key=example.org:sel:"], "is not DOMAIN:SELECTOR:FILE"),
        (["--key=example:sel:MISSING"], "'example': verifiers take no such domain"),
        (["--key=192.0.2.1:sel:MISSING"], "'192.0.2.1': verifiers take no such domain"),
        (["--key=ex_ample.org:sel:MISSING"], "'ex_ample.org': verifiers take no such domain"),
        (["--key=-a.example:sel:MISSING"], "'-a.example': verifiers take no such domain"),
        (["--key=a..example:sel:MISSING"], "'a..example': verifiers take no such domain"),
        (["--key=" + "a" * 64 + ".example:sel:MISSING"], "verifiers take no such domain"),
        (["--key=" + "a." * 125 + "org:sel:MISSING"], "is not a name in DNS: too long"),
        (["--key=example.org:s_l:MISSING"], "'s_l': verifiers take no such selector"),
        (["--key=example.org:.s:MISSING"], "'.s': verifiers take no such selector"),
        (["--key=example.org::MISSING"], "'': verifiers take no such selector"),
        (["GOOD", "GOOD"], "two keys have the same domain and selector, example.org:r1"),
        (["GOOD", "--headers=from:a;b"], "--headers: 'from:a;b' is not valid"),
        (["GOOD", "--headers=from:gr\u00fc\u00df"], "is not valid"),
        (["--key=example.org:sel:MISSING"], "MISSING: No such file or directory"),
        (["--key=example.org:sel:EMPTY"], "EMPTY: no unencrypted PEM private key"),
        (["--key=example.org:sel:PUBLIC"], "PUBLIC: no unencrypted PEM private key"),
        (["--key=example.org:sel:ENCRYPTED"], "ENCRYPTED: no unencrypted PEM private key"),
        (["--key=example.org:sel:EC"], "EC: neither an RSA nor an Ed25519 key"),
        (["GOOD", "--headers=to:subject"], "--headers: From must be signed"),
        (["GOOD", "--headers=from", "--oversign=from:to"], "--oversign: to: not in --headers"),
        (["GOOD", "--network=192.0.2.1/24"], "--network"),
        (["GOOD", "--sign"], "unrecognized arguments: --sign"),
    ],
)
def test_wrong_options_are_told_in_one_line(
    keys: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    problem: str,
) -> None:
    for name, value in bad_keys(tmp_path).items():
        if isinstance(value, bytes):
            (tmp_path / name).write_bytes(value)
        else:
            write_key(tmp_path / name, value)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        dkim_sign.build([keys[0] if option == "GOOD" else option for option in options])
    error = str(caught.value)
    assert problem in error
    assert error.startswith("dkim_sign: ")
    assert "\n" not in error


def test_help_shows_the_smtpd_conf_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        dkim_sign.build(["--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert 'filter "dkim" proc-exec "/usr/local/bin/greenfilter run dkim_sign ' in out
    assert "--parent-domains" in out
