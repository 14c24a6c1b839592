"""Which reply belongs to which command, from the reports protocol-client and protocol-server.

Reports such as tx-rcpt repeat the last command with the code of the last reply, be they related or
not: after an accepted RCPT, a complaint about pipelining comes as a refused RCPT. So what counts is
the first reply after a command.
"""

from __future__ import annotations

import re

_PHASES = {
    "EHLO": "ehlo",
    "HELO": "helo",
    "LHLO": "ehlo",
    "STARTTLS": "starttls",
    "AUTH": "auth",
    "MAIL": "mail-from",
    "RCPT": "rcpt-to",
    "DATA": "data",
    ".": "commit",
    "RSET": "rset",
    "QUIT": "quit",
}
_ADDRESS = re.compile(r"^(?:MAIL FROM|RCPT TO):\s*<([^>]*)>", re.I)


class Dialogue:
    """What was said last in a session.

    Attributes:
        phase: of the last command, as filters name it; ``connect`` before the first one, empty for
            a command that is of no interest.
        address: of the last MAIL or RCPT.
        reply: the last whole reply, its lines in one.
        fresh: the last reply is the first one to the last command.
        by_filter: a filter has refused the last command.
    """

    __slots__ = ("_answered", "_lines", "address", "by_filter", "fresh", "phase", "reply")

    def __init__(self) -> None:
        self.phase = "connect"
        self.address: str | None = None
        self.reply = ""
        self.fresh = False
        self.by_filter = False
        self._answered = False
        self._lines: list[str] = []

    @property
    def code(self) -> int:
        """Code of the last reply, 0 if there was none."""
        return int(self.reply[:3]) if self.reply[:3].isdecimal() else 0

    @property
    def refused(self) -> bool:
        """Whether the last command was refused."""
        return self.fresh and self.code >= 400

    def client_said(self, command: str) -> None:
        """Take a command. Credentials may be among them: only what is needed is kept."""
        verb = command.split(" ", 1)[0].upper()
        self.phase = _PHASES.get(verb, "")
        found = _ADDRESS.match(command)
        self.address = found[1] if found else None
        self.reply, self.fresh, self.by_filter, self._answered = "", False, False, False

    def server_said(self, line: str) -> bool:
        """Take a line of a reply; return whether it ends the first reply to a command."""
        self._lines.append(line[4:] if self._lines else f"{line[:3]} {line[4:]}")
        if line[3:4] == "-":
            return False
        self.reply, self._lines = " ".join(self._lines), []
        self.fresh, self._answered = not self._answered, True
        return self.fresh

    def filter_said(self, response: str) -> None:
        """Take a filter's answer to the last command."""
        self.by_filter = response in ("reject", "disconnect")
