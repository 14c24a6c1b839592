"""Stands between smtpd and a filter, and spoils what smtpd says: ``meddler.py COMMAND...``.

The client names what is to happen. ``EHLO add-3.example.net`` puts the garbage of that number
before and after the report of this greeting; ``EHLO spoil-2.example.net`` has all further reports
of the session spoiled in that way. Requests pass as they are: smtpd waits for their answers.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SID, TOKEN = b"00000000deadbeef", b"00000000cafebabe"
GARBAGE = {
    "nothing": b"\n\n\n",
    "noise": bytes(range(256)) * 40 + b"\n",
    "text": b"hello world\n",
    "bars": b"|" * 1000 + b"\n",
    "unknown kind": b"config|late|value\nconfig|ready\nregister|ready\nfilter-result|x|y|z\n",
    "supervisor's": b"greenfilter|hello|{}\ngreenfilter|replay|x\ngreenfilter|alive\n",
    "supervisor's short": b"greenfilter|\ngreenfilter\n",
    "short filter": b"filter\nfilter|\nfilter|0.7|1.0|smtp-in\nfilter|0.7|1.0|smtp-in|mail-from\n",
    "short report": b"report\nreport|0.7\nreport|0.7|1.0|smtp-in|link-connect\n",
    "version": b"report|9.9|1.0|smtp-in|link-greeting|%b|x\n" % SID,
    "versions": b"report|x|y|smtp-in|link-greeting|%b|x\nreport||||||||\n" % SID,
    "subsystem": b"filter|0.7|1.0|smtp-up|noop|%b|%b|\n" % (SID, TOKEN),
    "session": b"filter|0.7|1.0|smtp-in|noop|xyz|%b|\n" % TOKEN,
    "session of a report": b"report|0.7|1.0|smtp-in|tx-reset|..|x\n",
    "token": b"filter|0.7|1.0|smtp-in|noop|%b|xyz|\n" % SID,
    "unknown report": b"report|0.7|1.0|smtp-in|link-new|%b|x\n" % SID,
    "fields": b"report|0.7|1.0|smtp-in|link-connect|%b|only-one\n" % SID,
    "bad address": b"report|0.7|1.0|smtp-in|link-connect|%b|x|pass|[::::|5\n" % SID,
    "transaction": b"report|0.7|1.0|smtp-in|tx-rcpt|%b|deadbeef|ok|a@b\n" % SID,
    "reordered": b"".join(
        b"report|0.7|1.0|smtp-in|%b\n" % line.replace(b"SID", SID)
        for line in (
            b"link-disconnect|SID",
            b"tx-commit|SID|deadbeef|100",
            b"tx-begin|SID|deadbeef",
            b"link-connect|SID|rdns|pass|192.0.2.1:25|192.0.2.2:25",
            b"link-disconnect|SID",
            b"link-disconnect|SID",
        )
    ),
    "time": b"report|0.7|yesterday|smtp-in|link-greeting|%b|x\n" % SID,
    "carriage return": b"report|0.7|1.0|smtp-in|link-greeting|%b|x\r\n\r\n" % SID,
    "nul": b"report|0.7|1.0|smtp-in|link-greeting|%b|\0\0\n" % SID,
    "long": b"report|0.7|1.0|smtp-in|link-greeting|%b|" % SID + b"x" * 3_000_000 + b"\n",
    "not utf-8": b"report|0.7|1.0|smtp-in|link-identify|%b|EHLO|\xff\xfe\n" % SID,
}
SPOILS = ["cut", "lost", "twice", "swapped"]
_IDENTIFY = re.compile(rb"\|link-identify\|([0-9a-f]{16})\|EHLO\|(add|spoil)-(\d+)\.example\.net$")


class _Meddler:
    """Gives the lines that a line of smtpd's becomes."""

    def __init__(self) -> None:
        self._spoiled: dict[bytes, str] = {}
        self._held: dict[bytes, bytes] = {}

    def lines(self, line: bytes) -> Iterator[bytes]:
        if found := _IDENTIFY.search(line):
            sid, what, number = found[1], found[2], int(found[3])
            if what == b"spoil":
                self._spoiled[sid] = SPOILS[number]
            garbage = list(GARBAGE.values())[number] if what == b"add" else b""
            yield garbage + line + b"\n" + garbage
            return
        parts = line.split(b"|", 6)
        sid = parts[5] if len(parts) > 5 and parts[0] == b"report" else b""
        for spoiled in self._spoil(sid, line, self._spoiled.get(sid, "")):
            yield spoiled + b"\n"

    def _spoil(self, sid: bytes, line: bytes, how: str) -> list[bytes]:
        if how == "swapped":
            if sid in self._held:
                return [line, self._held.pop(sid)]
            self._held[sid] = line
            return []
        return {"cut": [line[: len(line) * 2 // 3]], "lost": [], "twice": [line, line]}.get(
            how, [line]
        )


def _to_filter(ours: socket.socket) -> None:
    meddler = _Meddler()
    with open(0, "rb", closefd=False) as said:
        for line in said:
            ours.sendall(b"".join(meddler.lines(line.removesuffix(b"\n"))))
    ours.shutdown(socket.SHUT_WR)


def main() -> None:
    """Run the filter, and end as it does."""
    for fd in (0, 1):
        os.set_blocking(fd, True)
    ours, theirs = socket.socketpair()
    with theirs:
        child = subprocess.Popen(sys.argv[1:], stdin=theirs, stdout=theirs)
    threading.Thread(target=_to_filter, args=(ours,), daemon=True).start()
    while data := ours.recv(65536):
        while data:
            data = data[os.write(1, data) :]
    sys.exit(child.wait())


if __name__ == "__main__":
    main()
