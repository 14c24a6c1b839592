"""The dialogue of AUTH (RFC 4954) as smtpd conducts it, with PLAIN and LOGIN."""

from __future__ import annotations

from . import texts
from .smtp_commands import decode_base64, parse_plain
from .wire import decode

_USERNAME = "334 VXNlcm5hbWU6"
_PASSWORD = "334 UGFzc3dvcmQ6"


class AuthDialogue:
    """The commands and responses of one client.

    Each method returns the reply to the client or, at the end, user name and password.

    Attributes:
        step: the response that the client owes: ``PLAIN``, ``username`` or ``password``; else "".
    """

    def __init__(self) -> None:
        self.step = ""
        self._username = ""

    def begin(self, argument: str) -> str | tuple[str, str]:
        """Take what follows AUTH: a mechanism, and maybe its first response."""
        mechanism, _, response = argument.partition(" ")
        if mechanism.upper() == "PLAIN":
            self.step, challenge = "PLAIN", "334 "
        elif mechanism.upper() == "LOGIN":
            self.step, challenge = "username", _USERNAME
        else:
            return texts.unsupported_auth(mechanism)
        return self.take(response) if response else challenge

    def take(self, response: str) -> str | tuple[str, str]:
        """Take a response of the client's."""
        step, self.step = self.step, ""
        if step == "PLAIN":
            return parse_plain(response) or texts.SYNTAX_ERROR
        raw = decode_base64(response)
        if raw is None:
            return texts.SYNTAX_ERROR
        if step == "password":
            return self._username, decode(raw)
        self.step, self._username = "password", decode(raw)
        return _PASSWORD
