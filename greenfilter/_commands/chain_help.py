"""What ``greenfilter run mx.toml --help`` shows."""

from __future__ import annotations

from collections.abc import Iterator

from .._chain.chain import Chain
from .._chain.member import Member
from .._chain.program import Program
from .._filter import stock
from .._filter.load import load
from ..protocol import PHASES
from .check.chain import describe

_TEXT = """\
A chain: each request and each message goes through these filters, in this order. The chain takes
no options; those of a filter stand in its block of the file."""


def chain_help(path: str, command: str) -> str:
    """Return the help of a chain file: its members, their conditions and their hooks.

    Args:
        path: of the file.
        command: whose help is wanted: ``greenfilter run``.

    Raises:
        UsageError: the file is wrong.
    """
    chain = load(path, [])
    assert isinstance(chain, Chain)
    lines = [f"Usage: {command} [OPTIONS] {path}", "", *_TEXT.splitlines(), ""]
    for member in chain._registry.members:
        lines += [f"  {line}" for line in _about(member)]
    names = dict.fromkeys(member.app.name for member in chain._registry.members)
    known = [name for name in names if name in stock.names()]
    lines += ["", f"{command} --help: the options that stand before the file"]
    lines += [f"greenfilter run {name} --help: the options of {name}" for name in known]
    lines += [f"greenfilter check {path}: what is wrong with it"]
    return "\n".join(lines)


def _about(member: Member) -> Iterator[str]:
    yield from describe(member)
    if isinstance(member.app, Program):
        yield "   hooks: it tells them when it runs"
        return
    member.take_handlers()
    hooks = [phase.wire for name, phase in PHASES.items() if name in member.filters]
    hooks += ["data-line"] if member.has_data else []
    hooks += sorted({f"report {event.replace('_', '-')}" for _, event in member.reports})
    yield f"   hooks: {', '.join(hooks)}"
