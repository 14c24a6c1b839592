"""The short filter that asks a scanner does what it shows, in front of a real rspamd."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest

from greenfilter.testing import FakeSmtpd
from tests.filters.support import deliver, log_all
from tests.support import rspamd
from tests.support.rspamd import RspamdServer, asking_for

from .conftest import load_example

if TYPE_CHECKING:
    from collections.abc import Iterator

    from greenfilter.testing import Reply


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RspamdServer]:
    with rspamd.running(tmp_path_factory) as server:
        yield server


def sent(port: int, src: str = "192.0.2.10:4711", **test: Any) -> Reply:
    app = load_example("http_scanner", f"http://127.0.0.1:{port}/checkv2").app
    with FakeSmtpd(app) as smtpd:
        return deliver(smtpd, src, message=asking_for(**test))


@pytest.mark.parametrize(
    ("action", "reply"),
    [
        ("reject", "554 5.7.1 This looks like spam"),
        ("soft reject", "451 4.7.1 Try again later"),
        ("greylist", "451 4.7.1 Try again later"),
    ],
)
def test_what_the_scanner_refuses_is_refused(action: str, reply: str, server: RspamdServer) -> None:
    assert sent(server.port, action=action).lines == (reply,)


def test_what_it_finds_doubtful_is_marked(server: RspamdServer) -> None:
    assert b"X-Spam: Yes\r\n" in (sent(server.port, action="add header").message or b"")


def test_the_rest_passes_and_the_log_has_the_score(
    server: RspamdServer, caplog: pytest.LogCaptureFixture
) -> None:
    log_all(caplog)
    for src in ("192.0.2.10:4711", "unix:/run/smtpd.sock"):
        message = sent(server.port, src).message or b""
        assert b"Subject: hello" in message
        assert b"X-Spam" not in message
        assert "no action, score 1.5" in caplog.messages


def test_mail_waits_while_the_scanner_is_away() -> None:
    with socket.socket() as bound:  # and does not listen
        bound.bind(("127.0.0.1", 0))
        assert sent(bound.getsockname()[1]).code == 451
