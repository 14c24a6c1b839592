"""What a filter prints goes to the log, whatever bytes mail holds."""

import sys

import pytest

from greenfilter.testing import FakeSmtpd

FILTER = """
import sys
from greenfilter import Filter

app = Filter("printer")

@app.message
def message(ctx, message):
    subject = message.headers.get("Subject")
    print("out", subject)
    print("err", subject, file=sys.stderr)
    ctx.log.info("log %s", subject)
"""


@pytest.mark.parametrize("options", [[], ["--no-supervisor"]])
@pytest.mark.parametrize("encoding", ["utf-8:strict", "latin-1:strict", "ascii:strict"])
@pytest.mark.parametrize(
    ("subject", "shown"), [(b"Caf\xe9", r"Caf\udce9"), ("Grüße €".encode(), "Grüße €")]
)
def test_text_of_any_bytes_can_be_printed_under_any_locale(
    monkeypatch, tmp_path, options, encoding, subject, shown
):
    file = tmp_path / "printer.py"
    file.write_text(FILTER)
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    command = [sys.executable, "-m", "greenfilter", "run", *options, str(file)]
    with FakeSmtpd(command) as smtpd:
        session = smtpd.connect()
        session.ehlo("client.example.net")
        session.mail_from("a@example.net")
        session.rcpt_to("b@example.org")
        assert session.data(b"Subject: " + subject + b"\r\n\r\nhi\r\n").ok
    text = "\n".join(smtpd.log)
    for kind in ("out", "err", "log"):
        assert f"{kind} {shown}" in text
