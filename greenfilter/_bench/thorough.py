"""Sessions in which a filter is asked and told everything that it registered for."""

from __future__ import annotations

from collections.abc import Generator

from .load import Script, Session

_CREDENTIALS = b"PLAIN AGNoZWNrAGNoZWNr"  # check, check


class Thorough(Script):
    """Makes sessions of which each comes to its end, whatever the filter decides.

    A client that was refused would not go on; here it does, so that every handler is called.
    """

    def _conduct(self, sid: bytes, number: int) -> Session:
        address = b"192.0.%d.%d" % (number >> 8 & 255, number & 255)
        self._report(
            sid, "link-connect", b"client.example.net|pass|%b:4711|192.0.2.25:25" % address
        )
        yield from self._decide(sid, "connect", b"client.example.net|" + address)
        self._report(sid, "link-greeting", b"mx.example.org")
        yield from self._decide(sid, "helo", b"client.example.net")
        yield from self._decide(sid, "ehlo", b"client.example.net")
        self._report(sid, "link-identify", b"EHLO|client.example.net")
        self._report(sid, "protocol-client", b"EHLO client.example.net")
        self._report(sid, "protocol-server", b"250 mx.example.org")
        yield from self._decide(sid, "starttls", b"")
        self._report(sid, "link-tls", b"TLSv1.3:TLS_AES_256_GCM_SHA384:256")
        yield from self._decide(sid, "auth", _CREDENTIALS)
        self._report(sid, "link-auth", b"pass|check")
        for phase in ("noop", "rset", "help", "wiz"):
            yield from self._decide(sid, phase, b"")
        self._report(sid, "filter-response", b"rset|proceed")
        self._report(sid, "filter-report", b"builtin|other|text")
        yield from self._transaction(sid, number, 0)
        yield from self._decide(sid, "quit", b"")
        self._report(sid, "timeout", None)
        self._report(sid, "link-disconnect", None)
        self._figures.sessions += 1

    def _decide(self, sid: bytes, phase: str, argument: bytes) -> Generator[str, bytes, str]:
        decision = yield from super()._decide(sid, phase, argument)
        return "proceed" if decision in ("reject", "disconnect") else decision
