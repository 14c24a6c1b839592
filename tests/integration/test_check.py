"""What ``greenfilter check`` prints for smtpd.conf is what smtpd takes."""

import subprocess
import sys

from tests.support.client import Client
from tests.support.filters import FILTERS


def test_the_filter_line_that_check_prints_starts_the_filter(smtpd):
    checked = subprocess.run(
        [sys.executable, "-m", "greenfilter", "check", FILTERS / "decide.py"],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    [line] = [line for line in checked.stdout.splitlines() if "proc-exec" in line]
    # The files of a checkout may not be readable for smtpd's own user.
    server = smtpd(chain=["decide"], extra_conf=f"{line} user root")
    with Client(server.port) as client:
        assert client.greet("ehlo-reject.example.net") == "550 5.7.1 refused here"
