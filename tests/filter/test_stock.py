"""Stock filters: their names on the command line, and what is said when one cannot be run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from greenfilter import Filter
from greenfilter._filter import stock
from greenfilter._filter.load import file_of, load
from greenfilter.errors import UsageError
from greenfilter.testing import FakeSmtpd

ZONE = ["--zone", "zen.example.org"]


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Loading sets sys.argv."""
    monkeypatch.setattr(sys, "argv", ["greenfilter"])
    monkeypatch.chdir(tmp_path)


def call(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "greenfilter", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=50)


def refused(target: str, args: list[str]) -> str:
    with pytest.raises(UsageError) as caught:
        load(target, args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_bare_name_is_a_stock_filter_whatever_files_are_here():
    Path("rbl").write_text("1 / 0")
    Path("rbl.py").write_text("1 / 0")
    assert load("rbl", ZONE).name == "rbl"
    assert file_of("rbl") is None
    assert "ZeroDivisionError" in refused("./rbl", [])
    assert "ZeroDivisionError" in refused("rbl.py", [])


def test_one_can_be_made_twice():
    first, second = stock.build("rbl", ZONE), stock.build("rbl", [*ZONE, "--action=junk"])
    assert isinstance(first, Filter)
    assert first is not second
    assert list(first._registry.filters) == ["rcpt_to"]
    assert list(second._registry.filters) == ["data"]


def test_an_unknown_name_is_told_with_what_to_do():
    assert refused("rlb", []) == "rlb: no stock filter has this name; do you mean rbl?"
    assert refused("dkim-sign", []).endswith("do you mean dkim_sign?")
    Path("guardian").write_text("")
    assert refused("guardian", []).endswith("for the file write ./guardian")
    assert "greenfilter filters lists them" in refused("something", [])


def test_a_wrong_option_is_told_in_one_line():
    assert refused("rbl", ["--zone=", "--x"]).startswith("rbl: argument --zone: ")


def test_a_missing_package_is_told_with_its_extra(monkeypatch: pytest.MonkeyPatch):
    for name in [name for name in sys.modules if name.startswith("greenfilter.filters.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "dns", None)
    monkeypatch.setitem(sys.modules, "dns.exception", None)
    text = refused("rbl", ZONE)
    assert text.startswith("rbl: ")
    assert "install what it needs: pip install 'greenfilter[rbl]'" in text


HIDDEN = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hidden())
"""
OPTIONAL = {"authres", "cryptography", "dns", "idna", "ldap3", "limits", "redis", "spf"}
KEY = "--key=example.org:k1:/nowhere"
REDIS = "--store=redis://127.0.0.1/0"
# What each needs a package for, and the package that is missed first.
NEEDS = [
    ("auth_verify", [], "authres cryptography dns idna"),
    ("auth_verify", ["--public-suffix-list=/dev/null"], "idna"),
    ("delivery_log", [REDIS], "redis"),
    ("dkim_sign", [KEY], "cryptography"),
    ("greylist", ["--store=sqlite:greylist"], "dns"),
    ("greylist", ["--no-spf", REDIS], "redis"),
    ("ratelimit", ["--limit=user:messages=1/hour"], "limits"),
    ("rbl", ZONE, "dns"),
    ("submission_guard", ["--table=ldap://127.0.0.1/dc=x?mail?sub?(uid=%u)"], "ldap3"),
]


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have processes find none of the packages that only some filters need."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(HIDDEN.replace("{names!r}", repr(OPTIONAL)))
    path = [str(hidden), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    done = subprocess.run([sys.executable, "-c", "import dns"], capture_output=True, text=True)
    assert "No module named 'dns'" in done.stderr


@pytest.mark.usefixtures("bare")
def test_they_are_listed_without_their_packages():
    assert call("filters").stdout.count("\n") == len(stock.names())


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("name", stock.names())
def test_the_manual_of_each_is_there_without_its_packages(name: str):
    done = call("run", name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: greenfilter run {name} [options]")


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize(("name", "options", "missing"), NEEDS)
def test_a_filter_without_its_packages_tells_what_to_install(
    name: str, options: list[str], missing: str
):
    done = call("check", name, *options)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert any(f"{name}: No module named '{each}" in done.stderr for each in missing.split())
    extra = name.replace("_", "-")
    assert f"install what it needs: pip install 'greenfilter[{extra}]'" in done.stderr


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("options", [[], ["--no-supervisor"]])
def test_under_smtpd_it_ends_with_that_line(options: list[str]):
    smtpd = FakeSmtpd([sys.executable, "-m", "greenfilter", "run", *options, "rbl", *ZONE])
    with pytest.raises(Exception, match="its exit status was 2"), smtpd:
        pass
    [line] = smtpd.log
    assert "rbl: No module named 'dns" in line
    assert "pip install 'greenfilter[rbl]'" in line


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("clamav", []),
        ("delivery_log", ["--store=sqlite:log"]),
        ("greylist", ["--store=sqlite:greylist", "--no-spf"]),
        ("headers", ["--rules=rules.toml"]),
        ("rspamd", []),
        ("submission_guard", ["--table=file:senders"]),
    ],
)
def test_a_filter_that_needs_none_of_them_works(name: str, options: list[str]):
    Path("senders").write_text("")
    Path("rules.toml").write_text("")
    assert call("check", name, *options).returncode == 0


def test_each_has_an_extra_of_its_name_and_a_summary_and_a_row_in_the_readme():
    root = Path(__file__).parents[2]
    extras = (root / "pyproject.toml").read_text().partition("[project.optional-dependencies]")[2]
    readme = (root / "README.md").read_text()
    for name in stock.names():
        assert len(stock.summary(name)) > 20
        assert f"\n| `{name}` |" in readme, name
        extra = name.replace("_", "-")
        assert f"\n{extra} = [" in extras, name


def test_they_are_listed_with_a_line_each():
    done = call("filters")
    assert done.stderr == ""
    assert [line.split()[0] for line in done.stdout.splitlines()] == stock.names()
    assert "Refuse or mark mail from clients that DNS blocklists name (RFC 5782)." in done.stdout


@pytest.mark.parametrize("words", [["run", "rbl"], ["check", "rbl", "--zone=x"], ["serve", "rbl"]])
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_its_help_is_its_manual(words: list[str], option: str):
    done = call(*words, option)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: greenfilter run rbl [options]")


@pytest.mark.parametrize("options", [[], ["--no-supervisor"], ["--workers", "2"]])
def test_it_runs_as_smtpd_runs_it(options: list[str]):
    command = [sys.executable, "-m", "greenfilter", "run", *options, "rbl", *ZONE]
    with FakeSmtpd(command) as smtpd:
        assert smtpd.connect(src="127.0.0.1:40").ehlo("client.example.net").ok


def test_a_wrong_option_under_smtpd_ends_it_with_status_2_and_one_line():
    command = [sys.executable, "-m", "greenfilter", "run", "rbl", "--zone=a", "--zone=a"]
    smtpd = FakeSmtpd(command)
    with pytest.raises(Exception, match="its exit status was 2"), smtpd:
        pass
    assert smtpd.log == ["greenfilter: rbl: argument --zone: a zone is named twice; see --help"]


def test_bench_takes_it():
    done = call("bench", "--sessions", "20", "rbl", *ZONE, "--allow", "0.0.0.0/0")
    assert done.returncode == 0, done.stderr
    assert "rbl: 20 sessions" in done.stdout


def test_replay_takes_it(tmp_path: Path):
    log = tmp_path / "log"
    program = [sys.executable, "-m", "greenfilter"]
    rbl = ["rbl", *ZONE, "--allow", "0.0.0.0/0"]
    with FakeSmtpd([*program, "record", "-o", str(log), "--", *program, "run", *rbl]) as smtpd:
        assert smtpd.connect(src="192.0.2.1:40").ehlo("client.example.net").ok
    options = [f"--filter-option={option}" for option in rbl[1:]]
    done = call("replay", *options, "rbl", str(log))
    assert done.returncode == 0, done.stdout + done.stderr
