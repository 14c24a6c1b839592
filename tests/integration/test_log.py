"""What a client has logged cannot stop the mail: smtpd stops reading stderr at a line of 64 KiB."""

import sys

from tests.support.client import Client
from tests.support.smtpd import Smtpd
from tests.support.wait import wait_until

FILTER = """
from greenfilter import Filter
app = Filter("f", deadline=2.0)
@app.message
def message(ctx, message):
    ctx.log.info("subject %s", message.headers.get("Subject"))
"""


def send(port, subject):
    with Client(port) as client:
        client.reply()
        client.command("EHLO a.example")
        client.command("MAIL FROM:<a@example.net>")
        client.command("RCPT TO:<b@example.org>")
        return client.data(b"Subject: " + subject + b"\r\n\r\nx\r\n")


def test_a_subject_of_66_kilobytes_that_is_logged_stops_nothing(tmp_path_factory):
    directory = tmp_path_factory.mktemp("log")
    for each in (directory, directory.parent):
        each.chmod(0o755)
    path = directory / "f.py"
    path.write_text(FILTER)
    with Smtpd({"f": f"{sys.prefix}/bin/greenfilter run --hang-timeout 2 {path}"}) as server:
        assert send(server.port, b"\r\n ".join([b"x" * 900] * 75)).startswith("250")
        wait_until(lambda: any("... [cut, " in line for line in server.log), 10, "the cut line")
        for _ in range(14):
            assert send(server.port, b"\r\n ".join([b"y" * 900] * 20)).startswith("250")
        assert send(server.port, b"hello").startswith("250")
        wait_until(lambda: any("subject hello" in line for line in server.log), 10, "the log")
