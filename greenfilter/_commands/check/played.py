"""``greenfilter check --run``: what sessions show that the source does not."""

from __future__ import annotations

import linecache

import click

from ..._filter.app import Filter
from ..._filter.handlers import Handler
from ..._filter.load import file_of
from ..bench.blocked import Findings, Stall, find_stalls
from ..bench.measure import BenchError
from .problem import Problem
from .source import Sources

_WITHOUT_THREAD = ("lines", "tap")


def check_played(app: Filter, target: str, args: list[str]) -> list[Problem]:
    """Play sessions to a filter, print what was played, and return what kept its loop.

    Args:
        app: the filter, as it was loaded here; it runs in a process of its own.
        target: its file, or ``package.module:name``.
        args: its own options.
    """
    file = file_of(target) or target
    try:
        deadline = max(handler.deadline for handler in app._registry.handlers())
        seen = find_stalls(target, args, deadline)
    except (BenchError, OSError) as error:
        return [Problem(file, 1, f"--run: {' '.join(str(error).split())}")]
    if seen.stack:
        return [_hung(seen, file)]
    _describe(app, seen)
    handlers = {handler.hook: handler for handler in app._registry.handlers()}
    found = [_problem(stall, handlers.get(stall.hook)) for stall in seen.stalls]
    found += [
        _failed(handlers[hook], error, times, seen.calls[hook], file)
        for hook, errors in seen.failures.items()
        for error, times in errors.items()
    ]
    if seen.cut:
        found.append(
            Problem(file, 1, f"--run: {seen.cut}; this is what was seen until then", False)
        )
    if not seen.stalls:
        click.echo("no handler kept the loop for 100 ms or more")
    return sorted(found)


def _describe(app: Filter, seen: Findings) -> None:
    figures = seen.figures
    calls = sum(seen.calls.values())
    click.echo(
        f"played {figures.sessions} sessions with {figures.messages} messages in "
        f"{figures.seconds:.1f} s: {calls} calls of handlers"
    )
    missed = [handler for handler in app._registry.handlers() if not seen.calls.get(handler.hook)]
    for handler in missed:
        click.echo(f"  not called: {handler.name} ({handler.hook})")


def _problem(stall: Stall, handler: Handler | None) -> Problem:
    code = linecache.getline(stall.file, stall.line).strip()
    times = "once" if stall.times == 1 else f"{stall.times} times"
    hook = f"{stall.hook}: {stall.name}" if stall.hook else stall.name
    text = f"{hook} kept the loop, {times}, for up to {stall.longest:.2f} s"
    text += f": {code}" if code else ""
    if handler is not None:
        thread = "register with thread=True"
        if handler.hook in _WITHOUT_THREAD:
            thread = "use @app.message(thread=True) instead"
        text += f"; {thread}"
    place, line = (stall.file, stall.line) if stall.line else _place_of(handler, stall.file)
    return Problem(place, line, text, is_error=False)


def _place_of(handler: Handler | None, file: str) -> tuple[str, int]:
    where = handler.where if handler is not None else None
    place, _, line = (where or f"{file}:1").rpartition(":")
    return place, int(line)


def _failed(handler: Handler, error: str, times: int, calls: int, file: str) -> Problem:
    text = f"{handler.hook}: {handler.name} raised {error}, {times} of {calls} times"
    return Problem(*_place_of(handler, file), text, is_error=False)


def _hung(seen: Findings, file: str) -> Problem:
    """Return the innermost line of the filter's own, in a filter that fell silent."""
    sources = Sources(file)
    own = [frame for frame in seen.stack if sources.is_own(frame[0])]
    place, line, name = (own or [(file, 1, "")])[0]
    where = linecache.getline(place, line).strip() if own else ""
    text = f"--run: {seen.cut}; it stands in {name or 'the loop'}, or loops there"
    return Problem(place, line, f"{text}{f': {where}' if where else ''}")
