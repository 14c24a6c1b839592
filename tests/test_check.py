"""``greenfilter check``: what it prints, and how it ends."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.checks.checking import call
from tests.checks.conftest import HEAD
from tests.checks.conftest import check as check

EXAMPLES = Path(__file__).parents[1] / "examples"


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
