"""One way to block, and what is expected of it."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from enum import StrEnum
from string import Template
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .servers import Servers

_FILTER: Final = Template("""\
$setup

from greenfilter import Filter, reject

app = Filter("row")


@app.filter.noop
def noop(ctx):
    return None


@app.filter.mail_from(deadline=20$thread)
def handler(ctx, sender):
$call
    return reject(550, "done")
""")


class Verdict(StrEnum):
    """What becomes of a handler that waits, and of the other sessions meanwhile."""

    ALONE = "waits alone"
    """Every session is answered, and the loop goes on meanwhile."""
    MOVED = "blocks"
    """It keeps the loop for the length of a call, but every session is answered."""
    COMPUTES = "computes"
    """Every session is answered; how long the loop stands still is the length of its own work."""
    FAILS = "fails"
    """Some sessions are not answered as the handler says. ``check`` has to say so before."""


@dataclass(frozen=True, slots=True)
class Row:
    """A filter that makes one call of about 0.3 s, in ``@app.filter.mail_from``.

    Args:
        name: of the row.
        setup: code for the top of the filter. In it and in ``call``, ``$work`` is the scratch
            directory, and ``$redis`` the port of a server.
        call: code for the handler; it raises if the library's answer is not right.
        plain: what is expected without ``thread=True``.
        thread: what is expected with it.
        check: whether ``greenfilter check`` has something to say of the plain filter; None where
            that depends on how much is computed.
        note: for the table.
    """

    name: str
    setup: str
    call: str
    plain: Verdict = Verdict.ALONE
    thread: Verdict = Verdict.ALONE
    check: bool | None = None
    note: str = ""

    @property
    def is_named(self) -> bool | None:
        """Whether check is expected to warn of the plain filter."""
        if self.check is None and self.plain is not Verdict.COMPUTES:
            return self.plain is not Verdict.ALONE
        return self.check

    def packages(self) -> set[str]:
        """Return the top-level modules that the filter imports."""
        found = re.findall(r"^\s*(?:import|from)\s+(\w+)", f"{self.setup}\n{self.call}", re.M)
        return {*found, *re.findall(r"\w\+(\w+)://", self.setup)}  # SQLAlchemy's driver

    def source(self, servers: Servers, *, thread: bool) -> str:
        """Return the filter's code, after its servers were started."""
        names = {"work": str(servers.directory)}
        text = self.setup + self.call
        for name in Template(text).get_identifiers():
            if name != "work":
                names[name] = str(servers.port(name))
        return _FILTER.substitute(
            setup=Template(textwrap.dedent(self.setup)).substitute(names).strip(),
            call=textwrap.indent(
                Template(textwrap.dedent(self.call)).substitute(names).strip(), "    "
            ),
            thread=", thread=True" if thread else "",
        )
