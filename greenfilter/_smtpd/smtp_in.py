"""An incoming SMTP session as smtpd conducts it, with no client attached.

The state machine of ``smtp_session.c``: it takes commands, asks the filter where smtpd does,
sends smtpd's reports in smtpd's order, and collects what the client would see.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from ..protocol._stuffing import unstuff
from . import smtp_commands, texts
from .link import FilterLink, new_id
from .model import Listener, Message, Peer, State, Transaction
from .oracle import Answer, ClientCut
from .smtp_auth import AuthDialogue
from .wire import Version, decode, vis

if TYPE_CHECKING:
    from collections.abc import Callable

# SMTP_LINE_MAX, and LINE_MAX with its ending NUL.
MAX_LINE_BYTES = 65_535
_MAX_COMMAND_BYTES = 2047

_PHASES = {
    "HELO": "helo",
    "EHLO": "ehlo",
    "STARTTLS": "starttls",
    "AUTH": "auth",
    "MAIL FROM": "mail-from",
    "RCPT TO": "rcpt-to",
    "DATA": "data",
    "RSET": "rset",
    "QUIT": "quit",
    "NOOP": "noop",
}
# What a filter-response report calls a phase.
_REPORTED_PHASES = {"connect": "connected", "starttls": "tls"}


class SmtpIn:
    """smtpd's side of one session.

    Args:
        link: to the filter.
        version: protocol version.
        listener: where the client connected.
        peer: the client.
        deliver: called with each accepted message.

    Attributes:
        id: session id, 16 hexadecimal digits.
        decisions: ``(phase, decision)`` for each answer of the filter, as on the wire.
        lines: reply lines since they were last taken.
        ending: smtpd closes the connection as soon as the lines are sent.
        in_data: 354 was said, the final dot did not come yet.
    """

    def __init__(
        self,
        link: FilterLink,
        version: Version,
        listener: Listener,
        peer: Peer,
        deliver: Callable[[Message], None],
    ) -> None:
        self.id = new_id()
        self.decisions: list[tuple[str, str]] = []
        self.lines: list[str] = []
        self.ending = False
        self.in_data = False
        self._link = link
        self._version = version
        self._listener = listener
        self._peer = peer
        self._deliver = deliver
        self._result = "ok"
        self._state = State(authenticated=peer.local)
        self._dialogue = AuthDialogue()
        self._line = ""
        self._verb = ""

    @property
    def junk(self) -> bool:
        """Whether a message that begins now, or is open, gets ``X-Spam: Yes``."""
        return self._state.junk or (self._state.tx is not None and self._state.tx.junk)

    def begin(self) -> None:
        """Greet the client that connected."""
        peer = self._peer
        self._link.begin(self.id)
        self.report("link-connect", peer.rdns, peer.fcrdns, peer.src, peer.dst)
        self._filter("connect", "", (peer.rdns, peer.address))

    def tls_started(self, ciphers: str) -> None:
        """Note that TLS is up. The client has to say EHLO again."""
        self.report("link-tls", ciphers)
        self._state.ciphers = ciphers
        self._state.identity = ""
        if self._peer.smtps:
            self._greet()

    def execute(self, line: str, result: str) -> None:
        """Do what smtpd does with one command line; see ``Session.command()``."""
        if len(line) > _MAX_COMMAND_BYTES:
            self.bad_input(texts.COMMAND_TOO_LONG)
            return
        self._result = result
        if self._dialogue.step:
            self.report("protocol-client", "********")
            self._auth(self._dialogue.take(line))
            return
        masked = line[:11].upper() == "AUTH PLAIN "
        self.report("protocol-client", "AUTH PLAIN ********" if masked else line)
        self._line = line
        self._verb, argument = smtp_commands.split_command(line)
        phase = _PHASES.get(self._verb)
        if phase is None:
            self._unfiltered(argument)
        elif self._check(phase, argument):
            self._filter(phase, argument or "", (smtp_commands.shown(phase, argument),))

    def data_line(self, line: bytes) -> None:
        """Take a line of the message, dot-stuffed, without LF."""
        assert self._state.tx is not None
        line = line.removesuffix(b"\r").split(b"\0", 1)[0]
        if len(line) >= MAX_LINE_BYTES:
            self.bad_input(texts.LINE_TOO_LONG)
            return
        self._state.tx.received_bytes += len(line) + 1
        if not self._too_big:
            self._link.send_data(self.id, (line,))

    def bad_input(self, reply: str) -> None:
        """End the session, as what the client sends is not even a command or a line."""
        self.ending = True
        self._say(reply)

    def check_password(self, username: str, password: str) -> str:
        """Return what smtpd itself thinks of a user: ``ok``, ``permfail`` or ``tempfail``.

        Here it is what the test wants.
        """
        return self._result

    def end_of_data(self) -> None:
        """Take the final dot."""
        assert self._state.tx is not None
        lines = self._link.end_data(self.id)
        self._state.tx.lines = unstuff(lines)
        self.in_data = False
        self.report("protocol-client", ".")
        self._filter("commit", "")

    def free(self) -> None:
        """Note that the connection is closed."""
        self._rollback()
        self.report("link-disconnect")
        self._link.end(self.id)

    def report(self, event: str, *fields: str) -> None:
        """Send a report of this session."""
        self._link.report("smtp-in", event, self.id, *fields)

    def _report_tx(self, event: str, *fields: str) -> None:
        assert self._state.tx is not None
        self.report(event, self._state.tx.message_id, *fields)

    def _say(self, text: str) -> None:
        """Reply to the client. What tx-* reports say follows from the code and the last verb."""
        self.report("protocol-server", text)
        self.lines.append(text)
        if self._state.tx is None or text[0] not in "2345":
            return
        result = {"4": "tempfail", "5": "permfail"}.get(text[0], "ok")
        address = smtp_commands.bracketed(self._line)
        if self._verb == "MAIL FROM":
            if result == "ok":
                self._report_tx("tx-begin")
            if address is not None:
                self._report_tx("tx-mail", result, address)
        elif self._verb == "RCPT TO" and address is not None:
            self._report_tx("tx-rcpt", result, address)
        elif self._verb == "DATA" and text[0] != "2" and self._state.tx.rcpt_to:
            self._report_tx("tx-data", result)

    def _rollback(self) -> None:
        if self._state.tx and self._state.tx.number:
            self._report_tx("tx-rollback")
            self._report_tx("tx-reset")
        self._state.tx = None
        self.in_data = False

    # The filter's answer.

    def _filter(self, phase: str, argument: str, fields: tuple[str, ...] = ("",)) -> None:
        cut = None
        try:
            answer = self._link.ask(self.id, phase, *fields)
        except ClientCut as error:
            cut = error
            answer = Answer(self.id, phase, "reject", b"421 Internal server error")
        parameter = decode(answer.parameter)
        if phase in self._link.oracle.phases:
            self.decisions.append((phase, "|".join([answer.kind, *filter(None, [parameter])])))
        if answer.kind in ("reject", "disconnect"):
            self._refuse(phase, answer.kind, parameter)
        else:
            self._allow(phase, answer.kind, parameter, argument)
        if cut:
            raise cut

    def _refuse(self, phase: str, kind: str, text: str) -> None:
        if text.startswith("421"):
            kind = "disconnect"
        self._report_response(phase, kind, text)
        self._say(text)
        if kind == "disconnect":
            self.ending = True
        elif phase == "commit":
            self._rollback()

    def _allow(self, phase: str, kind: str, parameter: str, argument: str) -> None:
        if kind == "junk" and self._state.tx:
            self._state.tx.junk = True
        elif kind == "junk":
            self._state.junk = True
        if kind in ("rewrite", "report"):
            argument = parameter
            self._report_response(phase, kind, parameter)
        else:
            self._report_response(phase, kind)
        if kind != "rewrite" or phase == "connect" or self._check(phase, argument):
            self._proceed(phase, argument)

    def _report_response(self, phase: str, *words: str) -> None:
        self.report("filter-response", _REPORTED_PHASES.get(phase, phase), *words)

    def _check(self, phase: str, argument: str | None) -> bool:
        refusal = texts.refusal(self._state, self._listener, self._version, phase, argument)
        if refusal:
            self._say(refusal)
        return not refusal

    # What a command does.

    def _unfiltered(self, argument: str | None) -> None:
        """Execute a command that no filter is ever asked about."""
        if self._verb in ("HELP", "WIZ") and argument is not None:
            self._say(texts.NO_ARGUMENTS)
        elif self._verb == "HELP":
            for text in texts.HELP:
                self._say(text)
        else:
            self._say(texts.WIZ if self._verb == "WIZ" else texts.UNRECOGNIZED)

    def _proceed(self, phase: str, argument: str) -> None:
        if phase == "connect":
            if not self._peer.smtps:
                self._greet()
        elif phase in ("helo", "ehlo"):
            self._hello(phase.upper(), argument)
        elif phase == "starttls":
            self._say("220 2.0.0 Ready to start TLS")
        elif phase == "auth":
            self._auth(self._dialogue.begin(argument))
        elif phase == "mail-from":
            self._mail(argument)
        elif phase == "rcpt-to":
            self._rcpt(argument)
        elif phase == "data":
            self._begin_data()
        elif phase == "rset":
            self._say("250 2.0.0 Reset state")
            self._rollback()
        elif phase == "quit":
            self._say("221 2.0.0 Bye")
            self.ending = True
        elif phase == "noop":
            self._say("250 2.0.0 Ok")
        else:
            self._commit()

    def _greet(self) -> None:
        self._say(f"220 {self._listener.hostname} ESMTP OpenSMTPD")
        self._state.banner_sent = True
        self.report("link-greeting", self._listener.hostname)

    def _hello(self, method: str, identity: str) -> None:
        self._state.identity = identity
        self._state.extended = method == "EHLO"
        self.report("link-identify", method, identity)
        for text in texts.hello(self._state, self._listener, self._peer):
            self._say(text)

    def _auth(self, outcome: str | tuple[str, str]) -> None:
        if isinstance(outcome, str):
            self._say(outcome)
        else:
            self._authenticate(*outcome)

    def _authenticate(self, username: str, password: str) -> None:
        result = self.check_password(username, password)
        shown = {"ok": "pass", "permfail": "fail", "tempfail": "error"}[result]
        self.report("link-auth", shown, vis(username, self._version))
        if result == "ok":
            self._state.authenticated = True
            self._say("235 2.0.0 Authentication succeeded")
        elif result == "permfail":
            self._say("535 Authentication failed")
        else:
            self._say("421 4.3.0 Temporary failure")

    def _mail(self, argument: str) -> None:
        path = smtp_commands.parse_path(argument, self._listener.hostname, null_allowed=True)
        self._state.tx = Transaction(path.address if path else "")
        refusal = smtp_commands.refuse_mail_options(path.options) if path else ""
        if not path:
            self._say(texts.BAD_SENDER)
            self._state.tx = None
        elif refusal:
            self._say(refusal)
            self._state.tx = None
        elif self._result == "ok":
            self._state.tx.number = random.randrange(1, 1 << 32)
            self._say("250 2.0.0 Ok")
        else:
            self._state.tx = None
            permanent = self._result == "permfail"
            self._say("530 Sender rejected" if permanent else "421 4.3.0 Temporary Error")

    def _rcpt(self, argument: str) -> None:
        assert self._state.tx is not None
        path = smtp_commands.parse_path(argument, self._listener.hostname, null_allowed=False)
        if not path:
            self._say(texts.BAD_RECIPIENT)
        elif refusal := smtp_commands.refuse_rcpt_options(path.options, self._state.tx.notify):
            self._say(refusal)
        elif self._result == "ok":
            self._state.tx.rcpt_to.append(path.address)
            envelope = random.randrange(1, 1 << 32)
            self._report_tx("tx-envelope", f"{self._state.tx.message_id}{envelope:08x}")
            self._say("250 2.1.5 Destination address valid: Recipient ok")
        elif self._result == "permfail":
            self._say(f"550 Invalid recipient: <{path.address}>")
        else:
            self._say(f"451 Temporary failure: <{path.address}>")

    def _begin_data(self) -> None:
        assert self._state.tx is not None
        own = texts.own_header(self._state, self._listener, self._peer)
        self._state.tx.own_lines = len(own)
        self._state.tx.own_bytes = sum(len(line) + 1 for line in own)
        # The lines go by another socket than the reports, and mostly win.
        self._link.send_data(self.id, own)
        self._say('354 Enter mail, end with "." on a line by itself')
        self.in_data = True

    @property
    def _too_big(self) -> bool:
        assert self._state.tx is not None
        return self._state.tx.received_bytes > self._listener.max_message_bytes

    def _commit(self) -> None:
        tx = self._state.tx
        assert tx is not None
        # Without a filter of the lines, smtpd does not read its own header.
        own = 0 if "data-line" in self._link.oracle.phases else tx.own_lines
        fault = smtp_commands.header_fault(tx.lines[own:]) if self._listener.check_header else ""
        if self._too_big or fault:
            why = texts.LOOP if fault == "loop" else texts.MALFORMED
            self._say(texts.MESSAGE_TOO_BIG if self._too_big else why)
            self._rollback()
            return
        self._say(f"250 2.0.0 {tx.message_id} Message accepted for delivery")
        size = tx.own_bytes + sum(len(line) + 1 for line in tx.lines)
        self._report_tx("tx-commit", str(size))
        self._report_tx("tx-reset")
        data = b"".join(line + b"\r\n" for line in tx.lines)
        message = Message(tx.message_id, tx.mail_from, tuple(tx.rcpt_to), data, self.junk)
        self._state.tx = None
        self._state.messages += 1
        self._deliver(message)
