"""What greylist, ratelimit and delivery_log do with bad options and a store that cannot be used."""

from __future__ import annotations

import socket
import sqlite3
from typing import TYPE_CHECKING

import pytest

from greenfilter.errors import UsageError
from greenfilter.filters import delivery_log, greylist, ratelimit
from greenfilter.testing import FakeSmtpd
from tests.filters.support import deliver

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import ModuleType

NEEDED = {
    greylist: ["--no-spf"],
    ratelimit: ["--limit=sender:messages=1/day"],
    delivery_log: ["--output=tcp:127.0.0.1:9"],
}
FILTERS = pytest.mark.parametrize("module", list(NEEDED), ids=lambda m: m.__name__.split(".")[-1])


def all_pass(module: ModuleType, url: str, spoil: Callable[[], object]) -> None:
    """Spoil the store, and see that mail passes; also what the filter would refuse otherwise."""
    app = module.build(["--store", url, "--store-timeout=0.3", *NEEDED[module]])
    with FakeSmtpd(app) as smtpd:
        spoil()
        for sender in ("a@example.net", "a@example.net", "b@example.net"):
            assert deliver(smtpd, sender=sender).ok
        smtpd.settle()


@FILTERS
def test_a_locked_database_lets_mail_pass(module, tmp_path: Path, caplog):
    path = tmp_path / "store.sqlite"
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("pragma journal_mode = wal")
    all_pass(module, f"sqlite:{path}", lambda: db.execute("begin immediate"))
    db.close()
    assert "is away: database is locked" in caplog.text


@FILTERS
def test_a_broken_database_lets_mail_pass(module, tmp_path: Path, caplog):
    path = tmp_path / "store.sqlite"
    all_pass(module, f"sqlite:{path}", lambda: path.write_bytes(b"no database" * 500))
    assert "is away: file is not a database" in caplog.text


@FILTERS
def test_a_redis_that_never_was_there_lets_mail_pass(module, caplog):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    all_pass(module, f"redis://:secret@127.0.0.1:{port}/0", lambda: None)
    assert f"store redis://127.0.0.1:{port}/0 is away: " in caplog.text
    assert "secret" not in caplog.text


@FILTERS
def test_a_redis_that_never_answers_lets_mail_pass(module, caplog):
    with socket.create_server(("127.0.0.1", 0)) as server:
        all_pass(module, f"redis://127.0.0.1:{server.getsockname()[1]}/0", lambda: None)
    assert "is away: Timeout" in caplog.text


@pytest.mark.parametrize(
    ("module", "words", "error"),
    [
        (greylist, ["--delay=3d"], "--delay must be less than --window"),
        (greylist, ["--no-spf", "--spf-pass"], "exclude each other"),
        (greylist, ["--ipv4-prefix=33"], "is not a number from 0 to 32"),
        (greylist, ["--allow-client=192.0.2.300"], "'192.0.2.300' is not an address"),
        (greylist, ["--resolver=dns.example"], "is not an address"),
        (ratelimit, [], "there is no limit; give at least one --limit"),
        (ratelimit, ["--limit=user:messages=many"], "is not a rate, such as 100/hour"),
        (ratelimit, ["--limit=user:messages=1/day,2/day"], "two limits of the same"),
        (ratelimit, ["--limit=user:messages=1/day", "--answer=500"], "invalid choice"),
        (ratelimit, ["--limit=user:messages=1/day", "--notify=/no/such"], "no such program"),
        (ratelimit, ["--limit=user:messages=1/day", "--notify='"], "No closing quotation"),
        (delivery_log, ["--output=syslog"], "no output; write a path"),
        (delivery_log, ["--only=lost"], "invalid choice: 'lost'"),
        (delivery_log, ["--keep=forever"], "is not a time"),
        *(
            (module, [*words, "--store=memcached:x"], "no store")
            for module, words in NEEDED.items()
        ),
        *((module, [*words, "--nonsense"], "unrecognized") for module, words in NEEDED.items()),
    ],
)
def test_a_bad_option_is_one_line_at_start(module, words: list[str], error: str, tmp_path: Path):
    with pytest.raises(UsageError) as raised:
        module.build(["--store", f"sqlite:{tmp_path}/x.sqlite", *words])
    assert error in str(raised.value)
    assert "\n" not in str(raised.value)


@FILTERS
def test_help_is_a_manual_with_lines_for_smtpd_conf(module, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as raised:
        module.build(["--help"])
    assert not raised.value.code
    text = capsys.readouterr().out
    for part in (
        "proc-exec",
        "listen on",
        "--store",
        "When the store is away",
        module.DEFAULT_STORE,
    ):
        assert part in text
