"""Options: on the command line, in a file, and what is said when one is wrong."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from greenfilter.errors import UsageError
from greenfilter.filters._options import (
    Options,
    parse_network,
    parse_seconds,
    parse_size,
    parse_whole,
    read_list,
)


def make() -> Options:
    options = Options("guard", "Guard the gate.", "    In smtpd.conf:\n\n        filter guard ...")
    options.add("--zone", action="append", default=[], help="a zone")
    options.add("--action", choices=("reject", "junk"), default="reject", help="what to do")
    options.add("--delay", type=parse_seconds, default=300.0, help="how long")
    options.add("--most", type=parse_whole(1, 10), default=3, help="how many")
    options.add("--limit", type=parse_size, default=1, help="how much")
    options.add_list("--allow", parse_network, "a network", "NETWORK")
    options.add_local()
    options.add_log_only()
    options.add_store("/var/lib/greenfilter/guard.sqlite")
    return options


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_defaults_and_what_is_given():
    options = make().parse([])
    assert (options.delay, options.most, options.allow, options.log_only) == (300.0, 3, [], False)
    assert options.store == "sqlite:/var/lib/greenfilter/guard.sqlite"
    options = make().parse(
        ["--delay", "5m", "--limit=10M", "--allow", "192.0.2.0/24", "--log-only"]
    )
    assert (options.delay, options.limit, options.log_only) == (300.0, 10 << 20, True)
    assert options.allow == [parse_network("192.0.2.0/24")]


def test_lists_come_from_files_too(tmp_path: Path):
    path = write(tmp_path / "allow", "# ours\n192.0.2.0/24  # the office\n\n2001:db8::/32\n")
    options = make().parse(["--allow", f"@{path}", "--allow", "198.51.100.1"])
    assert list(map(str, options.allow)) == ["192.0.2.0/24", "2001:db8::/32", "198.51.100.1/32"]


def test_a_list_that_was_given_is_not_kept_for_the_next_filter():
    make().parse(["--allow", "192.0.2.0/24"])
    options = make()
    options.parse(["--allow", "192.0.2.0/24"])
    assert options.parse([]).allow == []


def test_options_come_from_a_file_and_the_command_line_wins(tmp_path: Path):
    path = write(
        tmp_path / "guard.toml",
        'zone = ["a", "b"]\ndelay = "10m"\nmost = 5\nlog-only = true\nallow = "192.0.2.1"\n',
    )
    options = make().parse(["--config", path, "--most", "7"])
    assert (options.zone, options.delay, options.most) == (["a", "b"], 600.0, 7)
    assert options.log_only
    assert list(map(str, options.allow)) == ["192.0.2.1/32"]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("zome = 'a'", "guard.toml: there is no option 'zome'"),
        ("config = 'a'", "guard.toml: there is no option 'config'"),
        ("most = 11", "guard.toml: most: '11' is not a number from 1 to 10"),
        ("most = 'many'", "guard.toml: most: 'many' is not a number from 1 to 10"),
        ("delay = '5 parsecs'", "guard.toml: delay: '5 parsecs' is not a time"),
        ("log-only = 'yes'", "guard.toml: log-only: 'yes' is neither true nor false"),
        ("delay = true", "guard.toml: delay: takes text, a number, or a list"),
        ("action = 'kill'", "guard.toml: action: 'kill' is not one of reject, junk"),
        ("[zone]\na = 1", "guard.toml: zone: takes text"),
        ("most = " + "9" * 5000, "guard.toml: Exceeds the limit"),
        ("zone = " + "[" * 5000, "guard.toml: "),
        ('store = "sqlite:/a\\u0000b"', r"guard.toml: store: 'sqlite:/a\x00b' has a NUL character"),
        ('zone = ["a", "\\u0000"]', r"guard.toml: zone: '\x00' has a NUL character"),
        ("zone = 'a'\nmost = ?", "guard.toml: Invalid value (at line 2, column 8)"),
    ],
)
def test_a_file_that_is_wrong_is_told_in_one_line_with_its_key(
    tmp_path: Path, text: str, error: str
):
    path = write(tmp_path / "guard.toml", text)
    with pytest.raises(UsageError) as raised:
        make().parse(["--config", path])
    assert error in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--zome", "a"], "unrecognized arguments: --zome a"),
        (["--delay", "0"], "'0' is out of range"),
        (["--delay", "soon"], "'soon' is not a time; units are s, m, h, d, w"),
        (["--limit", "big"], "'big' is not a size"),
        (["--allow", "x"], "'x' is not an address or a network"),
        (["--allow", "192.0.2.1/24"], "'192.0.2.1/24' is not a network; do you mean 192.0.2.0/24?"),
        (["--allow", "@/nonexistent/list"], "/nonexistent/list: No such file or directory"),
        (["--config", "/nonexistent/file"], "/nonexistent/file: No such file or directory"),
        (["--config", "a\0b"], r"'a\x00b' has a NUL character"),
        (["--zone=a\0b"], r"'--zone=a\x00b' has a NUL character"),
        (["--delay"], "expected one argument"),
    ],
)
def test_a_wrong_option_is_told_in_one_line(arguments: list[str], error: str):
    with pytest.raises(UsageError) as raised:
        make().parse(arguments)
    assert error in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_wrong_line_of_a_list_is_named(tmp_path: Path):
    path = write(tmp_path / "allow", "192.0.2.0/24\n192.0.2.0/33\n")
    with pytest.raises(UsageError, match=r"allow:2: '192\.0\.2\.0/33' is not an address"):
        make().parse(["--allow", f"@{path}"])


def test_a_line_of_a_list_with_a_nul_character_is_named(tmp_path: Path):
    # A path in it would raise each time the file is looked at.
    path = write(tmp_path / "keys", "/a\n/b\0c\n")
    with pytest.raises(argparse.ArgumentTypeError, match=r"keys:2: '/b\\x00c' has a NUL"):
        read_list(path, str)


def test_help_is_the_manual(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as raised:
        make().parse(["--help"])
    assert raised.value.code == 0
    text = capsys.readouterr().out
    for part in ("Guard the gate.", "filter guard ...", "--config", "--log-only", "--store URL"):
        assert part in text
