"""What the tests of the filter rspamd share."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.support.rspamd import BODY

if TYPE_CHECKING:
    from collections.abc import Callable

    from greenfilter.testing import FakeSmtpd
    from tests.support.scripted import Connection

FAILED = "4.7.1 Spam check failed, try again later"


def delivered(smtpd: FakeSmtpd, sent: bytes = BODY) -> tuple[list[str], bytes]:
    """Give what was delivered last: its header lines, smtpd's as "Received", and its body.

    What was sent to ask rspamd for something, and what follows a Received line, is left out.
    """
    head, _, body = smtpd.messages[-1].data.partition(b"\r\n\r\n")
    unfolded = head.decode("ascii").replace("\r\n\t", "\t").replace("\r\n ", " ").split("\r\n")
    shown = ["Received" if line.startswith("Received: ") else line for line in unfolded]
    return [line for line in shown if not line.startswith("X-Test:")], body


def answering(
    answer: object,
    *,
    status: str = "200 OK",
    headers: str = "Connection: close\r\n",
    more: bytes = b"",
) -> Callable[[Connection], None]:
    """Make a script that answers each request with JSON, or with bytes as they are."""
    data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(data) + len(more)}\r\n{headers}"
    head = head.replace("OFFSET", str(len(data)))

    def script(connection: Connection) -> None:
        while connection.read_request():
            connection.send(head.encode("latin-1") + b"\r\n" + data + more)
            if "close" in headers:
                return

    return script
