"""The recordings of real servers, read for the tests of the testing kit."""

from __future__ import annotations

from pathlib import Path

from greenfilter._smtpd.oracle import Effect, Oracle, OracleError

TRANSCRIPTS = Path(__file__).parent.parent / "data" / "transcripts"
SERVERS = {"smtpd-7.8.0": (0, 7), "smtpd-6.8.0p2": (0, 6)}
LOGS = sorted(path.relative_to(TRANSCRIPTS) for path in TRANSCRIPTS.glob("*/*.log"))

_RESPONSE_PHASES = {"connected": "connect", "tls": "starttls"}


def lines(server: str, name: str) -> list[tuple[str, bytes]]:
    """What was read ("<") and written (">"), in order."""
    data = (TRANSCRIPTS / server / f"{name}.log").read_bytes()
    return [(chr(line[0]), line[2:]) for line in data.split(b"\n") if line]


class Judged:
    """A recording, fed to the oracle in recorded order."""

    def __init__(self, server: str, name: str) -> None:
        self.oracle = Oracle(SERVERS[server])
        self.errors: list[OracleError] = []
        self.effects: list[Effect] = []
        for direction, line in lines(server, name):
            if direction == "<":
                self._from_smtpd(line)
            else:
                self._from_filter(line)

    def _from_smtpd(self, line: bytes) -> None:
        words = line.decode("latin-1").split("|", 7)
        if words[0] == "filter":
            phase, session_id, token = words[4:7]
            if phase == "data-line":
                self.oracle.data_line(session_id, token, line.split(b"|", 7)[7])
            else:
                self.oracle.ask(session_id, phase, token)
        elif words[0] == "report" and words[3] == "smtp-in":
            event, session_id = words[4:6]
            if event == "link-connect":
                self.oracle.begin(session_id)
            elif event == "link-disconnect":
                self.oracle.end(session_id)
            elif event == "filter-response":
                phase = _RESPONSE_PHASES.get(words[6], words[6])
                if phase not in self.oracle.phases:
                    self.oracle.skip(session_id, phase)

    def _from_filter(self, line: bytes) -> None:
        try:
            self.effects.append(self.oracle.receive(line))
        except OracleError as error:
            self.errors.append(error)
