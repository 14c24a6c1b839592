"""Recorded between real smtpd and a filter, then replayed."""

import os
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.conftest import unavailable
from tests.support.client import Client
from tests.support.filters import command

from .link import GREENFILTER
from .test_replay import JUDGE, replay

DKIMSIGN = "/usr/libexec/opensmtpd/filter-dkimsign"
ECHO = Path(__file__).parents[2] / "benchmarks" / "peers" / "echo.c"
MESSAGE = b"Subject: recorded\r\n\r\n.dot\r\n8-bit \xe9\r\nbare \r CR\r\n"


def recorded(log, filter_command, *options):
    words = [*GREENFILTER, "record", "-o", str(log), *options, "--"]
    return f"{shlex.join(words)} {filter_command}"


def talk(server):
    """Three sessions: a message that passes, a sender that is refused, one that is cut."""
    with Client(server.port) as client:
        client.greet("unknown.example.net")
        client.envelope("alice@example.net", "bob@example.org")
        assert client.data(MESSAGE).startswith("250 ")
        client.quit()
    with Client(server.port) as client:
        client.greet()
        refused = client.command("MAIL FROM:<spammer@example.net>")
        client.command("RSET")
        client.envelope("alice@example.net", "bob@example.org")
        assert client.data(MESSAGE).startswith("250 ")
        client.quit()
    with Client(server.port) as client:
        client.greet()
        cut = client.command("MAIL FROM:<nobody@example.net>")
    return refused, cut


@pytest.fixture
def log(tmp_path, smtpd, sink):
    """What was recorded in front of filters/judge.py."""
    log = tmp_path / "judge.log"
    server = smtpd({"judge": recorded(log, command(JUDGE))}, sink=sink)
    refused, cut = talk(server)
    assert refused.startswith("550 5.7.1 refused")
    assert cut.startswith("550 go away")
    message, _ = sink.wait_for(2)
    server.stop()
    assert message.body.endswith(b"CR\r\nchecked\r\n")
    return log


def test_the_recorded_filter_makes_no_difference_when_replayed(log):
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    done = replay(JUDGE, log)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "3 sessions, 9 requests, 2 messages: 0 differences\n"


def test_a_changed_filter_makes_exactly_the_difference_that_was_made(log):
    options = ["--filter-option=--refuse", "--filter-option=alice@example.net"]
    done = replay(JUDGE, log, options=options)
    assert done.returncode == 1
    heads = [line for line in done.stdout.splitlines() if line.startswith("session ")]
    assert [line.partition(", ")[2].partition("  ")[0] for line in heads] == [
        "mail-from alice@example.net",
        "mail-from spammer@example.net",
        "mail-from alice@example.net",
    ]
    assert done.stdout.count("    recorded: proceed\n    now:      reject|550 5.7.1 refused") == 2
    assert done.stdout.count("    recorded: reject|550 5.7.1 refused\n    now:      proceed") == 1
    assert done.stdout.endswith("3 differences in 2 sessions\n")


def test_a_message_that_is_changed_otherwise_is_exactly_the_difference(log):
    done = replay(JUDGE, log, options=["--filter-option=--footer=seen"])
    assert done.stdout.count("line 10: checked\n") == 2, done.stdout
    assert done.stdout.count("line 10: seen\n") == 2
    assert done.stdout.endswith("2 differences in 2 sessions\n")


def test_a_recording_of_many_files_is_replayed_as_a_whole(tmp_path, smtpd, sink):
    log = tmp_path / "judge.log"
    server = smtpd(
        {"judge": recorded(log, command(JUDGE), "--max-size", "1", "--keep", "50")}, sink=sink
    )
    body = b"".join(b"%06d %b\r\n" % (number, b"x" * 900) for number in range(1000))
    with Client(server.port) as client:
        client.greet()
        for _ in range(2):
            client.envelope("alice@example.net", "bob@example.org")
            assert client.data(b"Subject: big\r\n\r\n" + body).startswith("250 ")
    server.stop()
    logs = sorted(tmp_path.iterdir())
    assert len(logs) > 2
    assert all(path.stat().st_size <= 1 << 20 for path in logs)
    done = replay(JUDGE, *logs)
    assert done.stdout == "1 session, 5 requests, 2 messages: 0 differences\n"


@pytest.fixture(scope="module")
def echo(tmp_path_factory):
    """A C filter on libopensmtpd that echoes each line."""
    program = tmp_path_factory.mktemp("echo") / "echo"
    done = subprocess.run(
        ["cc", "-o", str(program), str(ECHO), "-lopensmtpd"], capture_output=True, text=True
    )
    if done.returncode:
        unavailable(f"no libopensmtpd (Debian: libopensmtpd-dev): {done.stderr}")
    return program


def test_a_filter_in_c_is_recorded_and_replayed(require_smtpd, tmp_path, smtpd, sink, echo):
    log = tmp_path / "echo.log"
    server = smtpd({"echo": recorded(log, str(echo))}, sink=sink)
    talk(server)
    message, _ = sink.wait_for(2)
    server.stop()
    assert message.body == MESSAGE.partition(b"\r\n\r\n")[2]
    same = replay(echo, log, options=["--command"])
    assert (same.returncode, same.stderr) == (0, "")
    assert same.stdout.endswith("0 requests, 2 messages: 0 differences\n")
    other = replay(JUDGE, log)
    assert other.returncode == 1
    assert other.stdout.count("now:      10 lines, line 10: checked\n") == 2


def test_a_signer_is_compared_by_what_it_signs(tmp_path, smtpd, sink):
    if not os.access(DKIMSIGN, os.X_OK):
        unavailable("filter-dkimsign is not installed (Debian: opensmtpd-filter-dkimsign)")
    keys = []
    for name in ("old", "new"):
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        keys.append(tmp_path / f"{name}.key")
        keys[-1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.TraditionalOpenSSL,
                serialization.NoEncryption(),
            )
        )
    old, new = (f"{DKIMSIGN} -d example.net -s mail -k {key}" for key in keys)
    log = tmp_path / "sign.log"
    server = smtpd({"sign": recorded(log, old)}, sink=sink)
    talk(server)
    server.stop()
    assert "DKIM-Signature" in sink.messages[0].headers
    assert replay(old, log, options=["--command"]).returncode == 0
    changed = replay(new, log, options=["--command"])
    assert changed.returncode == 1
    assert changed.stdout.count(", data-line") == 2


def test_smtpd_ends_with_the_filter_as_it_would_without_the_recorder(tmp_path, smtpd):
    log = tmp_path / "log"
    dying = tmp_path / "dying.py"
    dying.write_text(
        "import sys, os\n"
        "os.write(1, b'register|filter|smtp-in|ehlo\\nregister|ready\\n')\n"
        "[sys.exit(3) for line in sys.stdin if '|ehlo|' in line]\n"
    )
    server = smtpd({"dying": recorded(log, f"{sys.executable} {dying}")})
    with Client(server.port) as client:
        client.reply()
        client.send(b"EHLO client.example.net\r\n")
        server.wait_for_log("(lost child|exited|terminated|shutdown|lookup).*")
        assert client.closed()
    assert log.read_bytes().rstrip().endswith(b"|client.example.net")


def test_a_recording_that_cannot_be_written_does_not_stop_real_smtpd(smtpd, sink):
    server = smtpd({"judge": recorded("/nowhere/log", command(JUDGE))}, sink=sink)
    server.wait_for_log("recording stopped, the mail goes on: /nowhere/log")
    refused, _ = talk(server)
    assert refused.startswith("550 ")
    assert server.alive()


def test_the_timeline_of_a_real_recording_shows_its_sessions_and_changes(log, chromium, tmp_path):
    file = tmp_path / "timeline.html"
    done = replay(JUDGE, log, options=["--timeline", file, "--filter-option=--footer=seen"])
    assert done.returncode == 1
    chromium.open(file.as_uri())
    sessions = chromium.settled("return timeline.shown")
    assert len(sessions) == 3
    message = f"timeline.place('{sessions[0]}', 2)"
    for times, expected in (("replay", "line 10: seen"), ("recorded", "line 10: checked")):
        chromium.run(
            f"const times = document.getElementById('times'); times.value = '{times}';"
            "times.dispatchEvent(new Event('change'))"
        )
        chromium.settled("document.getElementById('zoom-in').click(); return 0")
        chromium.settled("document.getElementById('fit').click(); return 0")
        found = chromium.settled(f"return {message}")
        chromium.move(found["x"], found["y"])
        text = chromium.settled("return document.getElementById('details').innerText")
        assert text.startswith("data-line")
        assert expected in text
        assert "not known" not in text
