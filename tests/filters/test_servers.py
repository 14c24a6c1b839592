"""Which of several servers is asked first, and what the log says of those away."""

import argparse

import pytest

from greenfilter.filters._servers import Deadline, Server, Servers, ServiceError, server_type

ONE, TWO = Server("one", 1), Server("two", 2)


@pytest.mark.parametrize(
    ("text", "server", "shown"),
    [
        ("host", Server("host", 25), "host:25"),
        ("host.example:1", Server("host.example", 1), "host.example:1"),
        ("192.0.2.1:65535", Server("192.0.2.1", 65535), "192.0.2.1:65535"),
        ("[::1]", Server("::1", 25), "[::1]:25"),
        ("[::1]:26", Server("::1", 26), "[::1]:26"),
        ("unix:/a b", Server("/a b", 0), "unix:/a b"),
    ],
)
def test_what_names_a_server(text, server, shown):
    assert server_type(25)(text) == server
    assert str(server) == shown


@pytest.mark.parametrize(
    "text",
    ["", ":1", "host:", "host:0", "host:65536", "::1", "[::1", "[x]:1", "a/b", "a b:1", "a:1:2",
     "[::::]:1", "[192.0.2.1]",
     "unix:", "unix:a", "unix:/" + "x" * 107, "unix:/\0"],
)  # fmt: skip
def test_what_names_none(text):
    with pytest.raises(argparse.ArgumentTypeError):
        server_type(25)(text)


def test_one_that_failed_is_asked_last_for_a_while(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("greenfilter.filters._servers.time.monotonic", lambda: now[0])
    servers = Servers("test", [ONE, TWO])
    assert servers.in_order() == [ONE, TWO]
    with pytest.raises(OSError, match="gone"), servers.asking(ONE):
        raise OSError("gone")
    assert servers.in_order() == [TWO, ONE]
    with pytest.raises(ServiceError), servers.asking(TWO):
        raise ServiceError("nonsense")
    assert servers.in_order() == [ONE, TWO]
    now[0] += 10.1
    with servers.asking(TWO):
        pass
    assert servers.in_order() == [ONE, TWO]


def test_the_log_says_once_a_minute_that_one_is_away_and_when_it_is_back(monkeypatch, caplog):
    now = [100.0]
    monkeypatch.setattr("greenfilter.filters._servers.time.monotonic", lambda: now[0])
    servers = Servers("test", [ONE])
    for _ in range(13):
        with pytest.raises(OSError, match="gone"), servers.asking(ONE):
            raise OSError("gone\nfar")
        now[0] += 5.0
    for _ in range(2):
        with servers.asking(ONE):
            pass
    away = "test: server one:1 is away: gone far"
    assert caplog.messages == [away, away, "test: server one:1 answers again"]


def test_what_is_no_failure_of_the_server_is_not_held_against_it():
    servers = Servers("test", [ONE, TWO])
    with pytest.raises(ValueError, match="mine"), servers.asking(ONE):
        raise ValueError("mine")
    with pytest.raises(OSError, match="reset"), servers.asking(ONE, TimeoutError):
        raise ConnectionResetError("reset")
    assert servers.in_order() == [ONE, TWO]


def test_a_deadline_is_over_when_it_is_over(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("greenfilter.filters._servers.time.monotonic", lambda: now[0])
    deadline = Deadline(9.0)
    share = deadline.share(3)
    assert (deadline.left(), share.left()) == (9.0, 3.0)
    now[0] += 3.0
    with pytest.raises(TimeoutError, match="timed out"):
        share.left()
    assert deadline.left() == 6.0
