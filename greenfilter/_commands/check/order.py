"""Filters of one listener of which an earlier one ends the chain for the later ones.

In a chain only proceed reaches the next filter at that phase. That a refusal ends it is what
everybody expects; that rewrite, junk and report do is not.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..._filter.app import Filter
from ..._filter.load import file_of
from ...protocol import PHASES
from .conf import Conf, Program
from .decisions import alternatives, maker_of
from .problem import Problem
from .reads import Reads, Spot, read_handler
from .source import FUNCTIONS, FunctionNode, Source, Sources, parameters
from .things import Api, Function
from .values import Values

_ENDS = ("rewrite", "junk", "report")


@dataclass(slots=True)
class _Asked:
    """When a filter is asked, and what it may answer there.

    Args:
        phases: on the wire.
        ends: by phase, the decision that ends the chain, and its place.
    """

    phases: set[str] = field(default_factory=set)
    ends: dict[str, tuple[str, Spot]] = field(default_factory=dict)


def check_order(app: Filter, conf: Conf, filters: dict[str, Program]) -> list[Problem]:
    """Look at the filters before and behind this one, as far as it is known what they do.

    Args:
        app: the filter.
        conf: what smtpd.conf says.
        filters: those that run this one, by name.
    """
    asked = {name: _of_file(_file(program)) for name, program in conf.programs.items()}
    for name, builtin in conf.builtins.items():
        spot = Spot(builtin.file, builtin.line)
        ends = {builtin.phase: (builtin.action, spot)} if builtin.action in _ENDS else {}
        asked[name] = _Asked({builtin.phase}, ends)
    for name in filters:
        asked[name].phases |= app._registry.phases() - {"data-line"}
    found: dict[Problem, None] = {}
    for names in conf.orders:
        order = [member for name in names for member in conf.members(name) if member in asked]
        for index, later in enumerate(order):
            for earlier in order[:index]:
                if (later in filters) != (earlier in filters):
                    program = filters[later if later in filters else earlier]
                    problems = _between(earlier, asked[earlier], later, asked[later], program)
                    found.update(dict.fromkeys(problems))
    return list(found)


def _between(
    earlier: str, first: _Asked, later: str, second: _Asked, program: Program
) -> Iterator[Problem]:
    for phase in sorted(second.phases & first.ends.keys()):
        kind, spot = first.ends[phase]
        text = f'"{later}" is not asked at {phase} when "{earlier}", which comes before it, '
        text += f"answers with {kind} ({spot.file}:{spot.line}): only proceed goes on in a chain"
        yield Problem(program.file, program.line, text, False)


def _file(program: Program) -> str | None:
    """Return the file of a filter that greenfilter runs; other programs tell nothing of theirs."""
    files = [file for word in program.words if (file := file_of(word))]
    for file in files:
        try:
            with open(file, "rb") as opened:
                if b"import" in (text := opened.read(1 << 20)) and b"greenfilter" in text:
                    return file
        except OSError:
            continue
    return None


def _of_file(file: str | None) -> _Asked:
    """Read from its source alone what a filter registers and returns."""
    asked = _Asked()
    sources = Sources(file) if file else None
    source = sources.of_file(file) if sources else None
    if sources is None or source is None:
        return asked
    values = Values(sources)
    for name, node in _registered(source, values):
        phase = PHASES[name].wire
        asked.phases.add(phase)
        function = Function(node, values.objects.around(source, node))
        reads = read_handler(values, function, "".join(parameters(node)[:1]) or None)
        if end := _end_of(reads, values, function, source):
            asked.ends[phase] = end
    asked.phases.discard("data-line")
    return asked


def _end_of(
    reads: Reads, values: Values, function: Function, source: Source
) -> tuple[str, Spot] | None:
    scope = values.enter(function, None, None)
    for value in alternatives(reads.returns):
        decided = values.of(value, scope)
        kind = maker_of(decided.path) if isinstance(decided, Api) else ""
        if kind in _ENDS:
            return kind, Spot(source.file, value.lineno)
    return None


def _registered(source: Source, values: Values) -> Iterator[tuple[str, FunctionNode]]:
    """Find ``@app.filter.ehlo``, with options or without, and ``app.filter.ehlo(function)``."""
    for node in source.enclosing:
        if isinstance(node, FUNCTIONS[:2]):
            for decorator in node.decorator_list:
                if name := _phase(decorator):
                    yield name, node
    for call in ast.walk(source.tree):
        if isinstance(call, ast.Call) and call.args and (name := _phase(call.func)):
            value = values.of(call.args[0], values.objects.module(source))
            if isinstance(value, Function):
                yield name, value.node


def _phase(node: ast.expr) -> str:
    node = node.func if isinstance(node, ast.Call) else node
    match node:
        case ast.Attribute(attr=name, value=ast.Attribute(attr="filter")) if name in PHASES:
            return name
    return ""
