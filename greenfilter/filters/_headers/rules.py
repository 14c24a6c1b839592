"""Rules: whom they are for, and what they do to header fields and addresses.

What tries patterns raises TooSlow where there is no time left for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from .._clients import client_ip, is_in
from .addresses import map_field

if TYPE_CHECKING:
    from ... import Headers, Session
    from .._options import Network
    from .patterns import Budget, Pattern

ADDRESS_FIELDS = frozenset(
    [
        "from",
        "sender",
        "reply-to",
        "to",
        "cc",
        "bcc",
        "resent-from",
        "resent-sender",
        "resent-to",
        "resent-cc",
    ]
)
_MOST_FIELDS = 50  # of one name that patterns see


class Mail(NamedTuple):
    """What conditions are about. Outside of a message there are no headers."""

    session: Session
    sender: str
    recipients: Sequence[str]
    headers: Headers | None = None


@dataclass
class Conditions:
    """All of them have to hold; of the patterns of one, any."""

    texts: dict[str, list[Pattern]] = field(default_factory=dict)
    headers: dict[str, list[Pattern]] = field(default_factory=dict)
    networks: list[Network] | None = None
    authenticated: bool | None = None
    tls: bool | None = None

    def hold(self, mail: Mail, budget: Budget) -> bool:
        """Return whether a rule with these conditions is for this mail."""
        session = mail.session
        if self.authenticated is not None and session.authenticated is not self.authenticated:
            return False
        if self.tls is not None and (session.ciphers is not None) is not self.tls:
            return False
        if self.networks is not None:
            ip = client_ip(session.src)
            if ip is None or not is_in(ip, self.networks):
                return False
        facts = [(patterns, _facts(name, mail)) for name, patterns in self.texts.items()]
        fields = ((each, values(mail.headers, name)) for name, each in self.headers.items())
        return all(_any(*each, budget) for each in (*facts, *fields))


@dataclass
class Replacement:
    """What ``replace`` does to fields of one name."""

    header: str
    pattern: Pattern
    by: str


@dataclass
class Rule:
    """One rule, as it was read."""

    shown: str
    match: Conditions | None = None
    unless: Conditions | None = None
    remove: list[Pattern] = field(default_factory=list)
    replace: list[Replacement] = field(default_factory=list)
    set: dict[str, str] = field(default_factory=dict)
    add: dict[str, list[str]] = field(default_factory=dict)
    masquerade: list[tuple[Pattern, str]] = field(default_factory=list)
    masquerade_in: list[str] = field(default_factory=lambda: ["envelope", "From"])
    strip_plus: list[Pattern] = field(default_factory=list)
    delimiter: str = "+"
    catch_all: list[tuple[Pattern, str]] = field(default_factory=list)
    known: list[Pattern] = field(default_factory=list)

    def is_for(self, mail: Mail, budget: Budget) -> bool:
        """Return whether the rule's conditions hold."""
        if self.match is not None and not self.match.hold(mail, budget):
            return False
        return self.unless is None or not self.unless.hold(mail, budget)

    def sender(self, address: str, budget: Budget) -> str:
        """Return the envelope sender that takes the place of another one."""
        return self._masqueraded(address, budget) if "envelope" in self.masquerade_in else address

    def recipient(self, address: str, budget: Budget) -> str:
        """Return the recipient that takes the place of another one."""
        local, _, domain = address.rpartition("@")
        short = local.partition(self.delimiter)[0]
        if short and not local.startswith('"') and _any(self.strip_plus, [domain], budget):
            address = f"{short}@{domain}"
        if _any(self.known, [address], budget):
            return address
        found = (to for pattern, to in self.catch_all if pattern.matches(domain, budget))
        return next(found, address)

    def edit(self, headers: Headers, budget: Budget) -> list[str]:
        """Edit the header fields.

        Returns:
            What could not be written; such fields stay as they were.
        """
        problems: list[str] = []
        for name in {name.lower(): name for name in headers}.values():
            if _any(self.remove, [name], budget):
                headers.remove(name)
        for name in self.masquerade_in:
            for index, value in enumerate(headers.get_all(name)):
                budget.check(f"masquerade_in {name}")
                new = map_field(value, lambda address: self._masqueraded(address, budget))
                if new != value:
                    self._write(headers, name, new, index, problems)
        for each in self.replace:
            for index, value in enumerate(values(headers, each.header)):
                if each.pattern.matches(value, budget):
                    new = " ".join(each.pattern.replaced(value, each.by, budget).split("\n"))
                    if new != value:
                        self._write(headers, each.header, new, index, problems)
        for name, value in self.set.items():
            headers.replace(name, value)
        for name, added in self.add.items():
            for value in added:
                headers.append(name, value)
        return problems

    def _masqueraded(self, address: str, budget: Budget) -> str:
        local, _, domain = address.rpartition("@")
        for pattern, to in self.masquerade:
            if pattern.matches(address if "@" in pattern.text else domain, budget):
                return to if "@" in to else f"{local}@{to}"
        return address

    def _write(
        self, headers: Headers, name: str, value: str, index: int, problems: list[str]
    ) -> None:
        try:
            if name.lower() in ADDRESS_FIELDS:
                headers.replace(name, value, index=index)
            else:
                headers.set_text(name, value, index=index)
        except ValueError as error:
            problems.append(str(error))


def values(headers: Headers | None, name: str) -> list[str]:
    """Return the fields of a name as patterns see them: decoded, unless they hold addresses."""
    if headers is None:
        return []
    if name.lower() in ADDRESS_FIELDS:
        return headers.get_all(name)[:_MOST_FIELDS]
    return headers.get_all_text(name)[:_MOST_FIELDS]


def _any(patterns: Sequence[Pattern], texts: Sequence[str], budget: Budget) -> bool:
    return any(pattern.matches(text, budget) for pattern in patterns for text in texts)


def _facts(name: str, mail: Mail) -> Sequence[str]:
    if name == "sender":
        return [mail.sender]
    if name == "recipient":
        return mail.recipients
    session = mail.session
    facts = {"helo": session.identity, "rdns": session.rdns, "user": session.username}
    return [facts[name] or ""]
