"""``greenfilter check``: what it prints, and how it ends."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.commands.check.checking import call
from tests.commands.check.conftest import HEAD
from tests.commands.check.conftest import check as check

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("rbl", "zen.example.org"),
        ("greylist", ""),
        ("http_scanner", "http://127.0.0.1:11333/checkv2"),
        ("mark_external", "[external]"),
        ("delivery_log", "/tmp/mail.json"),
    ],
)
def test_nothing_is_said_of_the_examples(name, options):
    done = call("--strict", EXAMPLES / f"{name}.py", *options.split())
    assert (done.stderr, done.returncode) == ("", 0)


@pytest.mark.parametrize("action", ["disconnect", "reject", "junk", "header", "log"])
def test_nothing_is_said_of_a_stock_filter(action):
    done = call("--strict", "rbl", "--zone", "zen.example.org", "--action", action)
    assert (done.stderr, done.returncode) == ("", 0)
    assert f"greenfilter run rbl --zone zen.example.org --action {action}" in done.stdout


RELATIVE = [
    ("auth_verify", ["--public-suffix-list=suffixes"]),
    ("auth_verify", ["--forwarder", "@networks"]),
    ("clamav", ["--config", "clamav.toml"]),
    ("delivery_log", ["--store=sqlite:HERE/db", "--output=./log"]),
    ("delivery_log", ["--store=sqlite:HERE/db", "--output=unix:log.sock"]),
    ("dkim_sign", ["--key=example.org:k1:k1.pem"]),
    ("dkim_sign", ["--key-table=keys"]),
    ("dkim_sign", ["--key-directory", "directory"]),
    ("greylist", ["--store=sqlite:db"]),
    ("headers", ["--rules=rules.toml"]),
    ("ratelimit", ["--store=sqlite:HERE/db", "--limit", "@limits"]),
    ("ratelimit", ["--store=sqlite:HERE/db", "--limit=user:bytes=1/day", "--notify=./tell all"]),
    ("submission_guard", ["--table=file:senders"]),
    ("submission_guard", ["--table=sqlite:db"]),
    ("submission_guard", ["--table=command:./tell me"]),
]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the files that options name, here."""
    monkeypatch.chdir(tmp_path)
    key = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    Path("k1.pem").write_bytes(key)
    Path("directory").mkdir()
    for name, text in {
        "suffixes": "com\n",
        "networks": "192.0.2.0/24\n",
        "clamav.toml": 'ignore = "@viruses"\n',
        "viruses": "PUA.*\n",
        "keys": "example.org:k1:k1.pem\n",
        "rules.toml": "",
        "limits": "user:messages=1/day\n",
        "senders": "alice: alice@example.org\n",
        "db": "",
        "tell": "#!/bin/sh\n",
    }.items():
        Path(name).write_text(text)
    Path("tell").chmod(0o755)
    return tmp_path


@pytest.mark.parametrize(("name", "options"), RELATIVE)
def test_a_relative_path_in_an_option_of_a_stock_filter_is_told(name, options, files):
    words = [option.replace("HERE", str(files)) for option in options]
    done = call(name, *words)
    assert done.returncode == 0
    option, value = words[-1].split("=", 1) if "=" in words[-1] else words[-2:]
    told = f"{name}:1: warning: {option} {value}: taken from where smtpd starts, / as a rule"
    assert told in done.stderr
    more = ["--ignore @viruses"] if name == "clamav" else []
    assert all(text in done.stderr for text in more)
    assert done.stderr.count("\n") == 1 + len(more)
    assert call("--strict", name, *words).returncode == 1


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("auth_verify", ["--public-suffix-list=HERE/suffixes", "--forwarder", "@HERE/networks"]),
        ("delivery_log", ["--store=sqlite:HERE/db", "--output=HERE/log"]),
        ("delivery_log", ["--store=redis://127.0.0.1/0", "--output", "stderr"]),
        ("delivery_log", ["--store=redis://127.0.0.1/0", "--output", "tcp:127.0.0.1:1"]),
        ("dkim_sign", ["--key=example.org:k1:HERE/k1.pem", "--network", "192.0.2.0/24"]),
        ("headers", ["--rules", "HERE/rules.toml", "--log-only"]),
        ("ratelimit", ["--store=sqlite:HERE/db", "--limit=@HERE/limits", "--notify=sh -c true"]),
        ("submission_guard", ["--table=command:HERE/tell me"]),
        ("submission_guard", ["--table=command:sh ./tell"]),
    ],
)
def test_nothing_is_said_of_whole_paths(name, options, files):
    done = call("--strict", name, *(option.replace("HERE", str(files)) for option in options))
    assert (done.stderr, done.returncode) == ("", 0)


@pytest.mark.parametrize(("more", "status"), [("", 0), ("1 / 0", 1)])
def test_a_thread_of_the_filters_does_not_hold_up_the_end(more, status, check):
    done = check(
        f"""
        import threading
        threading.Thread(target=time.sleep, args=(3600,)).start()
        app.filter.noop(lambda ctx: None)
        print("printed")
        {more}
        """
    )
    assert done.returncode == status
    assert done.stdout.startswith("printed\n")


def test_the_lines_for_smtpd_conf_name_the_whole_path_of_one_filter_of_a_file(tmp_path):
    path = tmp_path / "guard.py"
    path.write_text(f"{HEAD}app.filter.noop(lambda ctx: None)\n")
    done = call(f"{os.path.relpath(path)}:app")
    assert f' run {path}:app"' in done.stdout
