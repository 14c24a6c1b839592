"""When a member of a chain is asked: tables of facts about the session and its message.

Within a table all keys must match; a list matches by any of its items. A fact that is not known
yet matches nothing, but for ``authenticated`` and ``tls``, which are false until they are reported.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from typing import Any

from .._filter.context import Context
from ..errors import RegistrationError
from ..protocol import Address, Need, Session, Status

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
Test = Callable[[Context, bool], bool]
_ADDRESSES = ("senders", "recipients")
_PORTS = range(1, 65536)


class ConditionError(ValueError):
    """One key of a condition is wrong.

    Attributes:
        key: the key, or None where the table itself is wrong.
        text: what is wrong.
    """

    def __init__(self, key: str | None, text: str) -> None:
        super().__init__(f"{key}: {text}" if key is not None else text)
        self.key = key
        self.text = text


class Condition:
    """What has to be true of a session, and of its message.

    Args:
        table: keys and what they are to match, or a function that is given ctx.

    Attributes:
        keys: the keys of the table; empty for a function.
        needs: the fields of session and transaction that are read for it.

    Raises:
        RegistrationError: a key is unknown or its value is wrong; the text names each of them.
    """

    def __init__(self, table: dict[str, Any] | Callable[[Context], Any]) -> None:
        self.keys: tuple[str, ...] = ()
        self._table = table
        self.needs = Need(0)
        if callable(table):
            function = table
            self._tests: list[Test] = [lambda ctx, every: bool(function(ctx))]
            return
        self._tests, problems = _tests_of(table)
        if problems:
            raise RegistrationError("; ".join(map(str, problems)))
        self.keys = tuple(table)
        for key in self.keys:
            self.needs |= _NEEDS[key]

    def __repr__(self) -> str:
        if callable(self._table):
            name = getattr(self._table, "__name__", None) or repr(self._table)
            return f"{name}(ctx)"
        return ", ".join(f"{key} = {value!r}" for key, value in self._table.items())

    def matches(self, ctx: Context, every: bool = False) -> bool:
        """Return whether it holds. A table never switches greenlets; a function may.

        Args:
            ctx: the event that the member would be called for.
            every: for a message, whether every recipient has to match instead of any.

        Raises:
            BaseException: whatever a function raises.
        """
        return all(test(ctx, every) for test in self._tests)


def problems_of(table: object) -> list[ConditionError]:
    """Return all that is wrong with the table of a condition."""
    return _tests_of(table)[1]


def _tests_of(table: object) -> tuple[list[Test], list[ConditionError]]:
    if not isinstance(table, dict) or not table:
        what = "is empty" if table == {} else f"is a table of conditions, not {table!r}"
        return [], [ConditionError(None, what)]
    tests: list[Test] = []
    problems: list[ConditionError] = []
    for key, value in table.items():
        make = _KEYS.get(key)
        if make is None:
            known = ", ".join(_KEYS)
            problems.append(ConditionError(key, f"no such condition; there are: {known}"))
            continue
        try:
            tests.append(make(key, value))
        except ValueError as error:
            problems.append(ConditionError(key, str(error)))
    return tests, problems


# What makes the test of each key


def _yes_or_no(key: str, value: object) -> Test:
    if not isinstance(value, bool):
        raise ValueError(f"true or false, not {value!r}")
    if key == "authenticated":
        return lambda ctx, every: (_known(ctx)._username is not None) is value
    return lambda ctx, every: (_known(ctx)._ciphers is not None) is value


def _networks(key: str, value: object) -> Test:
    networks = [_network(item) for item in _items(value)]

    def test(ctx: Context, every: bool) -> bool:
        address = _client(ctx)
        ip = address.ip if address is not None else None
        if ip is None:
            return False
        mapped = getattr(ip, "ipv4_mapped", None) or ip
        return any(mapped in network for network in networks)

    return test


def _listeners(key: str, value: object) -> Test:
    tests = [_listener(item) for item in _items(value)]

    def test(ctx: Context, every: bool) -> bool:
        dst = _known(ctx)._dst
        return dst is not None and any(test(dst) for test in tests)

    return test


def _rdns(key: str, value: object) -> Test:
    names = _patterns(key, value)

    def test(ctx: Context, every: bool) -> bool:
        session = _known(ctx)
        if session._fcrdns is not Status.OK or not session._rdns:
            return False
        return names(session._rdns.rstrip("."))

    return test


def _identities(key: str, value: object) -> Test:
    names = _patterns(key, value)

    def test(ctx: Context, every: bool) -> bool:
        asked = ctx.phase in ("helo", "ehlo")
        identity = ctx._call.values()[0] if asked else _known(ctx)._identity
        return identity is not None and names(identity.rstrip("."))

    return test


def _senders(key: str, value: object) -> Test:
    addresses = _patterns(key, value)

    def test(ctx: Context, every: bool) -> bool:
        if ctx.phase == "mail_from":
            return addresses(ctx._call.values()[0])
        tx = ctx._call.session.open_tx()
        return tx is not None and tx._mail_from is not None and addresses(tx._mail_from)

    return test


def _recipients(key: str, value: object) -> Test:
    addresses = _patterns(key, value)

    def test(ctx: Context, every: bool) -> bool:
        if ctx.phase == "rcpt_to":
            return addresses(ctx._call.values()[0])
        tx = ctx._call.session.open_tx()
        if tx is None or not tx._rcpt_to:
            return False
        return (all if every else any)(map(addresses, tx._rcpt_to))

    return test


_KEYS: dict[str, Callable[[str, object], Test]] = {
    "authenticated": _yes_or_no,
    "tls": _yes_or_no,
    "networks": _networks,
    "listeners": _listeners,
    "rdns": _rdns,
    "identities": _identities,
    "senders": _senders,
    "recipients": _recipients,
}
_NEEDS = {
    "authenticated": Need.USERNAME,
    "tls": Need.CIPHERS,
    "networks": Need.SRC,
    "listeners": Need.DST,
    "rdns": Need.RDNS | Need.FCRDNS,
    "identities": Need.IDENTITY,
    "senders": Need.MAIL_FROM,
    "recipients": Need.RCPT_TO,
}


# What they are made of


def _known(ctx: Context) -> Session:
    """Return the session with all that its reports have told: conditions ignore ``needs=``."""
    session = ctx._call.session
    session._read()
    return session


def _client(ctx: Context) -> Address | None:
    if ctx.phase == "connect":
        address: Address = ctx._call.values()[1]
        return address
    return _known(ctx)._src


def _items(value: object) -> list[str]:
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list) or not items:
        raise ValueError(f"a list of texts, not {value!r}")
    for item in items:
        if not isinstance(item, str):
            raise ValueError(f"a list of texts; {item!r} is not text")
    return items


def _network(item: str) -> IPNetwork:
    try:
        return ipaddress.ip_network(item.strip("[]"))
    except ValueError as error:
        raise ValueError(f"{item!r} is not a network: {error}") from None


def _listener(item: str) -> Callable[[Address], bool]:
    """Make the test of ``192.0.2.25``, ``:587``, ``192.0.2.25:587`` or ``socket``."""
    if item == "socket":
        return lambda dst: dst.path is not None or str(dst) == "local"
    host, port = _host_and_port(item)
    wanted = f"[{host}]" if host and ":" in host else host
    ip = Address(wanted).ip if wanted else None
    if (wanted and ip is None) or (port is not None and port not in _PORTS):
        raise ValueError(
            f"{item!r} is not a listener: an address, a port as in ':587', both, or 'socket'"
        )
    return lambda dst: (
        dst.ip is not None and (ip is None or dst.ip == ip) and (port is None or dst.port == port)
    )


def _host_and_port(item: str) -> tuple[str, int | None]:
    found = re.fullmatch(r"(\[[^]]*\]|[^:\[\]]*):([0-9]{1,5})", item, re.ASCII)
    if found is not None:
        return found[1].strip("[]"), int(found[2])
    return item.strip("[]") or "?", None


def _patterns(key: str, value: object) -> Callable[[str], bool]:
    """Make a test of names or addresses: whole, ``@domain``, or with ``*`` and ``?`` in them."""
    whole: set[str] = set()
    domains: set[str] = set()
    globs: list[str] = []
    for item in _items(value):
        low = item.lower()
        if not low and key not in _ADDRESSES:
            raise ValueError("a name is not empty")
        if key in _ADDRESSES:
            if low in ("", "<>") and key == "senders":
                whole.add("")
                continue
            if "@" not in low and not _is_glob(low):
                raise ValueError(f"{item!r} is neither an address nor '@domain' nor has it a '*'")
        if _is_glob(low):
            globs.append(_regular(low))
        elif key in _ADDRESSES and low.startswith("@"):
            domains.add(low[1:])
        else:
            whole.add(low.rstrip(".") if key not in _ADDRESSES else low)
    glob = re.compile("|".join(globs), re.DOTALL) if globs else None

    def test(text: str) -> bool:
        low = text.lower()
        return (
            low in whole
            or ("@" in low and low.rpartition("@")[2] in domains)
            or (glob is not None and glob.fullmatch(low) is not None)
        )

    return test


def _is_glob(text: str) -> bool:
    return "*" in text or "?" in text


def _regular(glob: str) -> str:
    """Return the regular expression of a pattern; brackets are themselves, as in an address."""
    runs = re.sub(r"\*+", "*", glob)
    return (
        "(?:" + "".join({"*": ".*", "?": "."}.get(char) or re.escape(char) for char in runs) + ")"
    )


def warnings_of(keys: Iterable[str], unless: Iterable[str], at_connect: bool) -> list[str]:
    """Return what ``check`` warns of in the conditions of a member.

    Args:
        keys: of both tables.
        unless: the keys of ``unless``.
        at_connect: the member decides when the client connects.
    """
    found = [
        f"unless.{key}: the client chooses it, and can keep this filter from being asked"
        for key in unless
        if key in ("identities", "senders", "recipients")
    ]
    if at_connect and "authenticated" in keys:
        found.append("authenticated: nobody is when a client connects, where this filter decides")
    return found
