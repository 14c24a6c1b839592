"""``check --run``: what sessions show."""

from __future__ import annotations

import pytest

from .checking import HEAD, call

NAP = """
import ctypes
C = ctypes.CDLL(None)
@app.filter.ehlo
def look(ctx, identity):
    time.sleep(0.2)
    nap()
def nap():
    C.usleep(150_000)
@app.filter.helo(thread=True)
def aside(ctx, identity):
    C.usleep(150_000)
@app.lines
def footer(ctx, lines):
    yield from lines
    C.usleep(150_000)
@app.report.tx_commit(outgoing=True)
def never(ctx, message_id, size): pass
"""
HOLDS_PYTHONS_LOCK = """
import re
@app.filter.commit
def look(ctx):
    text = "a" * 23 + "b"
    re.match(r"(a+)+$", text)
"""
PATIENT = """
@app.filter.connect
def wait(ctx, rdns, address):
    time.sleep(0.3)
@app.filter.rcpt_to
def refuse(ctx, recipient):
    threading.Event().wait(0.2)
    return reject(550, "no")
@app.filter.quit
def last(ctx): return None
"""
ENDLESS = """
app.deadline = 1.0
@app.filter.mail_from
def spin(ctx, sender):
    forever()
def forever():
    number = 0
    while True:
        number += 1
"""


@pytest.fixture
def run(tmp_path):
    """Run a filter whose text is given; give exit status, output, and errors without its path."""

    def check(text: str, *options: str) -> tuple[int, list[str], list[str]]:
        path = tmp_path / "guard.py"
        path.write_text(HEAD + text)
        done = call("--run", *options, path)
        errors = [line.replace(f"{tmp_path}/", "") for line in done.stderr.splitlines()]
        return done.returncode, done.stdout.splitlines(), errors

    return check


def kept(errors: list[str]) -> list[str]:
    return [line for line in errors if "kept the loop" in line]


def test_handlers_that_keep_the_loop_are_told_with_the_line_that_does(run):
    status, output, errors = run(NAP)
    assert status == 0
    look, footer = kept(errors)
    assert look.startswith("guard.py:12: warning: filter.ehlo: look kept the loop, ")
    assert look.endswith(": C.usleep(150_000); register with thread=True")
    assert footer.startswith("guard.py:19: warning: lines: footer kept the loop, ")
    assert footer.endswith(": C.usleep(150_000); use @app.message(thread=True) instead")
    assert "  not called: never (report.tx_commit)" in output
    assert "no handler kept the loop for 100 ms or more" not in output


def test_a_warning_of_the_run_is_an_error_if_strict(run):
    assert run(HOLDS_PYTHONS_LOCK, "--strict")[0] == 1


def test_code_that_holds_pythons_lock_is_seen_too(run):
    _, _, errors = run(HOLDS_PYTHONS_LOCK)
    (line,) = kept(errors)
    assert line.startswith("guard.py:9: warning: filter.commit: look kept the loop, ")
    assert line.endswith(r"""re.match(r"(a+)+$", text); register with thread=True""")


def test_it_says_so_when_nothing_kept_the_loop(run):
    status, output, errors = run(PATIENT)
    assert (status, errors) == (0, [])
    assert "no handler kept the loop for 100 ms or more" in output
    # Every handler is called in each session, also after a refusal.
    (played,) = [line for line in output if line.startswith("played ")]
    assert played.startswith("played 24 sessions with 24 messages in ")
    assert played.endswith(": 72 calls of handlers")


def test_an_endless_loop_is_told_with_its_line_and_is_an_error(run):
    text = ENDLESS.replace("app.deadline", "app = Filter('guard', deadline=1.0) #", 1)
    status, _, errors = run(text)
    assert status == 1
    (line,) = errors
    place, _, said = line.partition(": ")
    assert place in ("guard.py:11", "guard.py:12")
    assert said.startswith("--run: no answer for 6 s to 6 requests; it stands in forever, or loops")


def test_a_handler_that_fails_is_told_without_what_the_client_sent(run):
    _, _, errors = run("@app.filter.auth\ndef log_in(ctx, credentials): int(credentials)\n")
    assert errors == ["guard.py:4: warning: filter.auth: log_in raised ValueError, 24 of 24 times"]


def test_a_filter_that_ends_is_an_error(run):
    status, _, errors = run("@app.filter.ehlo\ndef end(ctx, identity): os._exit(3)\n")
    assert status == 1
    assert errors == ["guard.py:1: --run: the filter ended:"]
