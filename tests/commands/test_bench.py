"""``greenfilter bench``: the load that it makes, and what it says of it."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from typing import Any

import pytest

from greenfilter._commands.bench.figures import Latencies
from greenfilter._commands.bench.load import Load
from greenfilter._commands.bench.measure import BenchError, measure
from tests.testing.driving import tap

BENCH = [sys.executable, "-m", "greenfilter", "bench"]
FILTER = """
    import hashlib, os, sys, time
    from greenfilter import Filter, disconnect, junk, reject

    app = Filter("loaded")

    @app.filter.connect
    def wait(ctx, rdns, address):
        time.sleep(0.02)

    @app.filter.ehlo(thread=True)
    def compute(ctx, identity):
        hashlib.pbkdf2_hmac("sha256", b"", b"", 20000)

    @app.filter.mail_from
    def sender(ctx, address):
        if "all" in sys.argv or address == "sender3@example.net":
            return reject(550, "no")
        if address == "sender4@example.net":
            return disconnect(550, "no")

    @app.lines
    def footer(ctx, lines):
        yield from lines
        yield b"-- loaded"

    @app.report.tx_commit
    def count(ctx, message_id, size):
        if "log" in sys.argv: ctx.log.warning("%d", size)
"""


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "loaded.py"
    path.write_text(textwrap.dedent(FILTER))
    return path


@pytest.fixture
def figures(path) -> Callable[..., dict[str, Any]]:
    def run(*options: str, args: tuple[str, ...] = ()) -> dict[str, Any]:
        command = [*BENCH, "--json", *options, str(path), *args]
        done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=True)
        return json.loads(done.stdout)

    return run


def test_every_session_and_message_is_accounted_for(figures):
    found = figures("--sessions", "40", "--concurrency", "10", "--messages", "3")
    assert found["sessions"] == 40
    assert found["messages"] == 38 * 3
    requests = {phase: entry["requests"] for phase, entry in found["phases"].items()}
    assert requests == {
        "connect": 40,
        "ehlo": 40,
        "mail-from": 39 * 3 + 1,
        "data-line": 38 * 3,
        "commit": 38 * 3,
    }
    assert found["decisions"]["reject"] == 3
    assert found["decisions"]["disconnect"] == 1
    assert found["decisions"]["proceed"] == 40 + 40 + 38 * 3 * 2
    assert found["sessions_per_second"] == pytest.approx(40 / found["seconds"])


def test_latencies_and_handler_times_are_those_of_the_handlers(figures):
    found = figures("--sessions", "20", "--concurrency", "2")
    connect = found["phases"]["connect"]
    assert 0.02 <= connect["p50"] <= connect["p90"] <= connect["p99"] <= connect["max"]
    handlers = {entry["name"]: entry for entry in found["handlers"]}
    assert handlers["wait"]["calls"] == 20
    assert handlers["wait"]["seconds"] >= 20 * 0.02
    assert handlers["wait"]["cpu_seconds"] < handlers["wait"]["seconds"] / 2
    # Most of what is computed is computed there, in a thread of the pool.
    assert handlers["compute"]["cpu_seconds"] == max(h["cpu_seconds"] for h in handlers.values())
    assert handlers["count"]["calls"] == found["messages"]
    # One call for each line, one for the footer, and one that says that there are no more.
    assert handlers["footer"]["calls"] % found["messages"] == 0


def test_size_is_that_of_each_message(figures):
    small = figures("--sessions", "10", "--size", "10000")
    large = figures("--sessions", "10", "--size", "1000000")
    assert large["bytes"] - small["bytes"] > 900_000 * 8
    assert large["messages"] == 8
    assert large["lines"] > 8 * 1_000_000 / 80


def test_without_a_number_of_sessions_time_decides(figures):
    found = figures("--seconds", "0.5", "--concurrency", "5", "--no-supervisor")
    assert found["sessions"] >= 5
    assert found["seconds"] >= 0.5


def test_a_filter_that_refuses_everything_is_measured_too(figures):
    found = figures("--sessions", "10", "--messages", "2", args=("all",))
    assert (found["sessions"], found["messages"]) == (10, 0)
    assert found["decisions"]["reject"] == 20


def test_the_filters_processor_time_is_told(figures):
    found = figures("--sessions", "50")
    if sys.platform == "linux":
        assert 0 < found["filter_cpu_seconds"] < 2 * found["seconds"] * (os.cpu_count() or 1)


def test_people_get_a_table(path):
    command = [*BENCH, "--sessions", "10", str(path), "log"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=True)
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert lines[0].startswith(f"{path}: 10 sessions, 100 at once, each with 1 of 2,048 bytes; ")
    assert any(line.startswith("phase requests 50 % 90 % 99 % max") for line in lines)
    assert any(line.startswith("data-line 8 ") for line in lines)
    assert any(
        line.startswith("handler calls a call computes waits share queued") for line in lines
    )
    assert any(line.startswith("filter.ehlo compute 10 ") for line in lines)
    assert "the end of the filter's log:" in lines
    assert done.stderr.splitlines() == ["loading", "timing handlers"]


def test_a_terminal_gets_a_bar(path):
    ours, theirs = pty.openpty()
    command = [*BENCH, "--sessions", "30", str(path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        try:
            while data := os.read(ours, 4096):
                shown += data
        except OSError:
            pass  # Linux's end of file of a terminal
    os.close(ours)
    assert process.returncode == 0
    assert b"100%" in shown


# What goes wrong


def failed(*arguments: str) -> str:
    done = subprocess.run([*BENCH, *arguments], capture_output=True, text=True, timeout=50)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_filter_that_does_not_start_is_told_with_its_log(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("1 / 0\n")
    errors = failed("--no-supervisor", str(path))
    assert "greenfilter: the filter " in errors
    assert f"{path}:1: ZeroDivisionError: division by zero" in errors


def test_a_filter_that_ends_is_told(tmp_path):
    path = tmp_path / "ending.py"
    path.write_text(
        "import os\nfrom greenfilter import Filter\napp = Filter('x')\n"
        "app.filter.ehlo(lambda ctx, identity: os._exit(3))\n"
    )
    assert "greenfilter: the filter ended:" in failed("--no-supervisor", str(path))


def test_figures_of_a_filter_whose_worker_ends_are_given_without_its_handlers_times(tmp_path):
    path = tmp_path / "ending.py"
    path.write_text(
        "import os\nfrom greenfilter import Filter\napp = Filter('x')\n"
        "app.filter.ehlo(lambda ctx, identity: os._exit(3))\n"
    )
    command = [*BENCH, "--sessions", "1", "--json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0
    figures = json.loads(done.stdout)
    assert figures["decisions"] == {"reject": 1}
    assert figures["handlers"] == []
    assert figures["filter_cpu_seconds"] is None or figures["filter_cpu_seconds"] >= 0
    assert "handlers were not timed: the filter ended:" in done.stderr


def test_an_answer_to_nothing_is_told():
    text = """
import sys
print("register|filter|smtp-in|connect")
print("register|ready")
for line in sys.stdin:
    if line.startswith("filter"): print("garbage")
"""
    with pytest.raises(BenchError, match="the filter wrote what nobody asked for: b'garbage'"):
        measure([sys.executable, "-u", "-c", text], Load(sessions=1))


def test_a_foreign_filter_can_be_measured():
    found = measure(tap(), Load(sessions=5, messages=2, size=100_000))
    assert (found.sessions, found.messages) == (5, 10)
    assert found.log == ["registered"]


def test_a_filter_that_only_listens_is_measured_by_what_it_takes():
    found = measure(tap(), Load(sessions=None, seconds=0.3))
    silent = [sys.executable, "-c", _REPORTS_ONLY]
    only_reports = measure(silent, Load(sessions=None, seconds=0.3))
    assert found.latencies
    assert not only_reports.latencies
    assert only_reports.lines >= 2 * only_reports.sessions > 0


_REPORTS_ONLY = """
import sys
print("register|report|smtp-in|link-connect")
print("register|report|smtp-in|tx-commit")
print("register|ready", flush=True)
sys.stdin.read()
"""


def test_percentiles_are_those_of_the_sorted_values():
    latencies = Latencies()
    for value in range(100, 0, -1):
        latencies.add(value)
    assert latencies.summary() == {"p50": 51, "p90": 91, "p99": 100, "max": 100}
    one = Latencies()
    one.add(2.5)
    assert one.summary() == {"p50": 2.5, "p90": 2.5, "p99": 2.5, "max": 2.5}


HANGING = """
    import time
    from greenfilter import Filter

    app = Filter("hanging", deadline=20.0)

    def look_up(identity):
        while True:
            identity = identity[::-1]

    @app.filter.ehlo
    def hang(ctx, identity):
        return look_up(
            identity
        )
"""


@pytest.mark.parametrize("options", [(), ("--no-supervisor",)], ids=["supervised", "alone"])
def test_a_hang_ends_it_early_and_is_told_with_the_line(tmp_path, options):
    path = tmp_path / "hanging.py"
    path.write_text(textwrap.dedent(HANGING))
    begun = time.monotonic()
    errors = failed("--sessions", "50", *options, str(path))
    assert time.monotonic() - begun < 40  # and not the deadline of each session
    assert "greenfilter: the filter hangs: no answer for " in errors
    assert re.search(r"filter\.ehlo hang has kept the loop for 3 s at hanging\.py:[89]: ", errors)
    assert "(register it with thread=True), or it loops" in errors


def test_a_filter_that_waits_is_no_hang(tmp_path):
    path = tmp_path / "waiting.py"
    path.write_text(
        "import time\nfrom greenfilter import Filter\napp = Filter('waiting')\n"
        "app.filter.ehlo(lambda ctx, identity: time.sleep(4.5))\n"
    )
    command = [*BENCH, "--sessions", "2", "--json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=True)
    assert json.loads(done.stdout)["decisions"]["proceed"] == 2


def test_queueing_is_told_from_the_handlers_own_time(tmp_path):
    path = tmp_path / "computing.py"
    path.write_text(
        "import time\nfrom greenfilter import Filter\napp = Filter('computing')\n\n"
        "@app.filter.ehlo\n"
        "def compute(ctx, identity):\n"
        "    end = time.perf_counter() + 0.01\n"
        "    while time.perf_counter() < end: pass\n\n"
        "app.report.tx_commit(lambda ctx, message_id, size: None)\n"
    )
    command = [*BENCH, "--sessions", "40", "--concurrency", "20", "--json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=True)
    entries = {entry["hook"]: entry for entry in json.loads(done.stdout)["handlers"]}
    compute = entries["filter.ehlo"]
    assert 0.01 <= compute["seconds"] / 40 < 0.05
    # Twenty at a time, and one at a time is computed: each waits for several others.
    assert compute["queued_seconds"] > 2 * compute["seconds"]
    assert entries["report.tx_commit"]["queued_seconds"] is None
