"""``greenfilter check``."""

from __future__ import annotations

import os
import sys

import click

from .._app import Filter
from .._handlers import Handler
from .._load import load
from ..errors import UsageError
from ..protocol import NEED_EVENTS


def check(target: str, args: list[str]) -> None:
    """Import a filter, list what it does, and print its lines for smtpd.conf.

    Raises:
        UsageError: the filter cannot be loaded; ends with exit status 1.
    """
    try:
        app = load(target, args)
    except UsageError as error:
        raise UsageError(str(error), exit_code=1) from error
    click.echo(f"{app.name}: {target}")
    for handler in app.handlers():
        click.echo(f"  {_described(app, handler)}")
    click.echo(f"needs: {_needs(app)}")
    click.echo("smtpd.conf:")
    for line in conf_lines(app, target, args):
        click.echo(f"  {line}")


def _described(app: Filter, handler: Handler) -> str:
    outgoing = any(
        subsystem == "smtp-out" and other is handler
        for (subsystem, _), other in app.reports.items()
    )
    options = [f"deadline={handler.deadline:g}"]
    if not handler.hook.startswith("report."):
        options.append(f"on_error={handler.on_error!r}")
    options += [name for name in ("thread", "cancel_on_close") if getattr(handler, name)]
    options += ["outgoing"] if outgoing else []
    return f"{handler.hook:24} {handler.name} ({handler.where}) {', '.join(options)}"


def _needs(app: Filter) -> str:
    bits = app.need_bits()
    return ", ".join(str(need.name).lower() for need in NEED_EVENTS if need.value & bits)


def _program() -> str:
    """The greenfilter command in full: smtpd looks for others in its own libexec directory."""
    program = os.path.abspath(sys.argv[0])
    return f"{sys.executable} -m greenfilter" if program.endswith(".py") else program


def conf_lines(app: Filter, target: str, args: list[str]) -> list[str]:
    """Give the lines of smtpd.conf(5) that put a filter to use."""
    if os.path.exists(target):
        target = os.path.abspath(target)
    command = " ".join([_program(), "run", target, *args])
    name = "".join(char if char.isalnum() else "-" for char in app.name)
    lines = [f'filter {name} proc-exec "{command}"']
    subsystems = {subsystem for subsystem, _ in app.registered_reports()}
    if "smtp-in" in subsystems or app.phases():
        lines.append(f"listen on all filter {name}")
    if "smtp-out" in subsystems:
        lines.append(f'action "outbound" relay filter {name}')
    return lines
