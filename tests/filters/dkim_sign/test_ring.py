"""Keys in tables and directories: what is found there, and what becomes of it when it changes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from greenfilter.errors import UsageError
from greenfilter.filters import dkim_sign
from greenfilter.filters._dkim_sign import ring as ring_module
from greenfilter.filters._dkim_sign.places import KeyProblem
from greenfilter.filters._dkim_sign.ring import KeyRing
from greenfilter.testing import FakeSmtpd
from tests.filters.support import begin, log_all

from .support import ED25519, RSA, verified, write_key

MESSAGE = b"From: alice@example.org\r\nTo: bob@example.net\r\n\r\nHello\r\n"


@pytest.fixture(autouse=True)
def looks_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for the second to pass."""
    monkeypatch.setattr(ring_module, "_EVERY_SECONDS", 0.0)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory with the key r1 of example.org."""
    domain = tmp_path / "keys" / "example.org"
    domain.mkdir(parents=True)
    write_key(domain / "r1.pem", RSA)
    return domain.parent


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A table with the key r1 of example.org."""
    write_key(tmp_path / "r1.pem", RSA)
    path = tmp_path / "table"
    path.write_text("# ours\nexample.org:r1:r1.pem\n")
    return path


def selectors(ring: KeyRing, domain: str = "example.org") -> list[str]:
    return [key.selector for key in ring.keys(domain)]


def in_directory(directory: Path) -> KeyRing:
    return KeyRing([], [], [str(directory)])


def in_table(table: Path) -> KeyRing:
    return KeyRing([], [str(table)])


# What is there


def test_a_directory_has_a_directory_of_keys_for_each_domain(directory: Path) -> None:
    other = directory / "bücher.example"
    other.mkdir()
    for name in ("b.private", "a.key", "s.sub.pem", "notes.txt", ".hidden.pem", "a.key.txt"):
        write_key(other / name, ED25519)
    write_key(directory / "README.pem", RSA)
    ring = in_directory(directory)
    assert selectors(ring) == ["r1"]
    assert selectors(ring, "xn--bcher-kva.example") == ["a", "b", "s.sub"]


def test_a_table_has_a_key_in_each_line_as_opendkim_writes_them(table: Path) -> None:
    path = write_key(table.with_name("e1.pem"), ED25519)
    with table.open("a") as file:
        file.write(f"\ne1._domainkey.example.org example.org:e1:{path}  # the new one\n")
    assert selectors(in_table(table)) == ["r1", "e1"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("example.org:r2", "table:3: 'example.org:r2' is not DOMAIN:SELECTOR:FILE"),
        ("%:r2:r2.pem", "table:3: '%': verifiers take no such domain"),
        ("example.org:r2:missing.pem", "missing.pem: No such file or directory"),
        ("example.org:r2:table", "table: no unencrypted PEM private key"),
        ("example.org:r1:r1.pem", "two keys have the same domain and selector, example.org:r1"),
    ],
)
def test_at_the_start_a_table_must_be_right(table: Path, line: str, problem: str) -> None:
    with table.open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(UsageError) as caught:
        dkim_sign.build(["--key-table", str(table)])
    assert problem in str(caught.value)


def test_at_the_start_tables_and_directories_must_be_there(tmp_path: Path) -> None:
    for option in ("--key-table", "--key-directory"):
        with pytest.raises(UsageError, match="missing: No such file or directory"):
            dkim_sign.build([option, str(tmp_path / "missing")])


def test_an_empty_directory_is_no_error_for_keys_may_come(tmp_path: Path) -> None:
    directory = tmp_path / "keys"
    directory.mkdir()
    ring = in_directory(directory)
    assert selectors(ring) == []
    (directory / "example.org").mkdir()
    write_key(directory / "example.org" / "r1.pem", RSA)
    assert selectors(ring) == ["r1"]


# What changes


def test_keys_that_come_and_go_are_noticed_and_told(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log_all(caplog)
    ring = in_directory(directory)
    write_key(directory / "example.org" / "e1.pem", ED25519)
    assert selectors(ring) == ["e1", "r1"]
    (directory / "example.org" / "r1.pem").unlink()
    assert selectors(ring) == ["e1"]
    write_key(directory / "example.org" / "e1.pem", RSA)
    assert ring.keys("example.org")[0].algorithm == "rsa-sha256"
    assert caplog.messages == [
        "keys added: example.org:e1",
        "keys removed: example.org:r1",
        "keys changed: example.org:e1",
    ]


def test_the_key_of_an_option_is_read_anew_too(tmp_path: Path) -> None:
    path = write_key(tmp_path / "k.pem", RSA)
    signer = dkim_sign.make_signer(dkim_sign.parse([f"--key=example.org:k:{path}"]))
    assert signer.ring.keys("example.org")[0].algorithm == "rsa-sha256"
    write_key(tmp_path / "k.pem", ED25519)
    assert signer.ring.keys("example.org")[0].algorithm == "ed25519-sha256"


def test_a_key_that_breaks_goes_on_as_it_was_and_is_told_once(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ring = in_directory(directory)
    path = directory / "example.org" / "r1.pem"
    before = ring.keys("example.org")
    path.write_text("half a k")
    write_key(directory / "example.org" / "e1.pem", ED25519)  # others are taken meanwhile
    for _ in range(3):
        assert selectors(ring) == ["e1", "r1"]
        assert ring.keys("example.org")[1] == before[0]
    assert caplog.messages == [
        f"{path}: no unencrypted PEM private key; what was read before goes on"
    ]
    write_key(path, ED25519)
    assert ring.keys("example.org")[1].algorithm == "ed25519-sha256"


def test_a_new_key_that_is_broken_is_left_out_until_it_is_whole(directory: Path) -> None:
    ring = in_directory(directory)
    path = directory / "example.org" / "e1.pem"
    path.write_bytes(b"")
    assert selectors(ring) == ["r1"]
    write_key(path, ED25519)
    assert selectors(ring) == ["e1", "r1"]


@pytest.mark.parametrize("spoil", [lambda path: path.unlink(), lambda path: path.write_text("x")])
def test_a_table_that_breaks_goes_on_as_it_was(
    table: Path, spoil: Any, caplog: pytest.LogCaptureFixture
) -> None:
    ring = in_table(table)
    text = table.read_text()
    spoil(table)
    for _ in range(3):
        assert selectors(ring) == ["r1"]
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(str(table))
    write_key(table.with_name("e1.pem"), ED25519)
    table.write_text(f"{text}example.org:e1:e1.pem\n")
    assert selectors(ring) == ["r1", "e1"]


def test_a_directory_that_is_gone_goes_on_as_it_was(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ring = in_directory(directory)
    shutil.rmtree(directory)
    for _ in range(3):
        assert selectors(ring) == ["r1"]
    assert [message.partition(":")[2] for message in caplog.messages] == [
        " No such file or directory; what was read before goes on",
        " No such file or directory; what was read before goes on",
    ]  # of the directory, and of its key


def test_a_key_twice_is_refused_and_the_first_goes_on(directory: Path, table: Path) -> None:
    with pytest.raises(KeyProblem, match="two keys have the same domain and selector"):
        KeyRing([], [str(table)], [str(directory)])
    ring = in_directory(directory)
    write_key(directory / "example.org" / "r1.key", ED25519)
    assert [key.algorithm for key in ring.keys("example.org")] == ["ed25519-sha256"]


def test_changes_are_looked_for_once_a_second(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ring_module, "_EVERY_SECONDS", 1000.0)
    ring = in_directory(directory)
    write_key(directory / "example.org" / "e1.pem", ED25519)
    assert selectors(ring) == ["r1"]


def test_the_filter_signs_by_the_keys_that_are_there_now(directory: Path) -> None:
    with FakeSmtpd(dkim_sign.build(["--key-directory", str(directory)])) as smtpd:
        session = begin(smtpd, "127.0.0.1:4000")
        session.rcpt_to("bob@example.net")
        assert verified(session.data(MESSAGE).message or b"") == [True]
        write_key(directory / "example.org" / "e1.pem", ED25519)
        session.mail_from("alice@example.org")
        session.rcpt_to("bob@example.net")
        assert verified(session.data(MESSAGE).message or b"") == [True, True]


def test_log_only_signs_nothing_and_tells_by_which_keys(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log_all(caplog)
    app = dkim_sign.build(["--key-directory", str(directory), "--log-only"])
    message = MESSAGE.replace(b"Hello", b"Hel\rlo")
    with FakeSmtpd(app, received=False) as smtpd:
        session = begin(smtpd, "127.0.0.1:4000")
        session.rcpt_to("bob@example.net")
        assert session.data(message).message == message
    assert any("d=example.org s=r1" in text for text in caplog.messages)
