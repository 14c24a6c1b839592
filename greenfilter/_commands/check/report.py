"""What ``greenfilter check`` prints."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass

import click

from ..._chain.chain import Chain
from ..._filter.app import Filter
from ..._filter.handlers import Handler
from ..._filter.load import file_of, load
from ...errors import UsageError
from ...protocol import NEED_EVENTS
from . import chain
from .conf import Conf, find_filters, read_conf
from .deployment import check_deployment, check_syntax, smtpd_command
from .handler_body import check_handlers
from .paths import relative_paths
from .permissions import check_permissions, default_user, own_command, python_problem
from .problem import Problem
from .top import check_top

_RECURSION_LIMIT = 10_000


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """What to check.

    Args:
        target: the filter's file, or ``package.module:name``.
        args: its own options.
        smtpd_conf: path of the configuration, or None.
        user: name of the user that the filter is to run as, or None.
        strict: warnings count as errors.
        run: play sessions to it.
    """

    target: str
    args: list[str]
    smtpd_conf: str | None = None
    user: str | None = None
    strict: bool = False
    run: bool = False


def check(options: CheckOptions) -> int:
    """Import a filter, list what it does, print its lines for smtpd.conf, and look for mistakes.

    Returns:
        The exit status: 1 if there was an error.

    Raises:
        UsageError: the filter cannot be loaded, there is no such configuration or user; ends
            with exit status 1.
    """
    try:
        app = load(options.target, options.args)
    except UsageError as error:
        raise UsageError(str(error), exit_code=1) from error
    # Functions that call functions are followed for a while.
    sys.setrecursionlimit(max(sys.getrecursionlimit(), _RECURSION_LIMIT))
    problems = chain.start_programs(app) if isinstance(app, Chain) else []
    _describe(app, options)
    conf = _read_conf(options.smtpd_conf) if options.smtpd_conf is not None else None
    if isinstance(app, Chain):
        problems += chain.check_members(app, options.target)
    else:
        problems += check_top(app) + check_handlers(app)
        problems += [
            Problem(options.target, 1, text, is_error=False) for text in relative_paths(app)
        ]
    if conf is not None:
        problems += check_deployment(app, options.target, conf)
        problems += check_syntax(conf.path)
    if conf is not None or options.user is not None:
        problems += _check_permissions(app, options, conf)
    if options.run:
        from .played import check_played

        problems += check_played(app, options.target, options.args)
    for problem in problems:
        click.echo(problem, err=True)
    if conf is not None and not problems:
        click.echo(f"all is well: {'; '.join(_looked_at(options, conf))}")
    return int(any(problem.is_error or options.strict for problem in problems))


def _looked_at(options: CheckOptions, conf: Conf) -> list[str]:
    """Return what was checked and found right; without smtpd on this machine that is less."""
    installed = smtpd_command() is not None
    users = sorted({user for user, _ in _runs(options, conf) if user})
    return [
        f"no mistake was found in {options.target}",
        f"{conf.path} runs it where its hooks need it",
        "smtpd -n takes it" if installed else "smtpd is not here to read it (-n)",
        *(f"user {user} can read all files" for user in users),
    ]


def _read_conf(path: str) -> Conf:
    try:
        return read_conf(path)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", exit_code=1) from error


def _runs(options: CheckOptions, conf: Conf | None) -> list[tuple[str | None, list[str]]]:
    """Return each user that smtpd.conf runs the filter as, and the command; --user goes before."""
    filters = find_filters(conf, options.target) if conf is not None else {}
    default = options.user or default_user()
    runs = [
        (options.user or program.user or default, program.words) for program in filters.values()
    ]
    return runs or [(default, [own_command()])]


def _check_permissions(app: Filter, options: CheckOptions, conf: Conf | None) -> list[Problem]:
    found: list[Problem] = []
    programs = chain.commands(app) if isinstance(app, Chain) else []
    for user, command in _runs(options, conf):
        if user is None:
            continue  # smtpd is not installed here
        try:
            for words in (command, *programs):
                found += check_permissions(options.target, user, words)
        except KeyError as error:
            raise UsageError(f"no user {user} on this machine", exit_code=1) from error
    return list(dict.fromkeys(found))


def _describe(app: Filter, options: CheckOptions) -> None:
    click.echo(f"{app.name}: {options.target}")
    if isinstance(app, Chain):
        app._registry.freeze()
        for member in app._registry.members:
            for line in chain.describe(member):
                click.echo(f"  {line}")
            _tell_handlers(app, member.handlers(), "     ")
    else:
        _tell_handlers(app, app._registry.handlers(), "  ")
    click.echo(f"needs: {_needs(app)}")
    click.echo("smtpd.conf:")
    for line in conf_lines(app, options.target, options.args):
        click.echo(f"  {line}")
    user = default_user()
    if user is not None and (problem := python_problem(user)) is not None:
        click.echo(f"  # {problem}")


def _tell_handlers(app: Filter, handlers: list[Handler], indent: str) -> None:
    for handler in handlers:
        click.echo(f"{indent}{_described(app, handler)}")


def _described(app: Filter, handler: Handler) -> str:
    outgoing = any(
        subsystem == "smtp-out" and other is handler
        for (subsystem, _), other in app._registry.reports.items()
    )
    options = [f"deadline={handler.deadline:g}"]
    if not handler.hook.startswith("report."):
        options.append(f"on_error={handler.on_error!r}")
    options += [name for name in ("thread", "cancel_on_close") if getattr(handler, name)]
    options += ["outgoing"] if outgoing else []
    return f"{handler.hook:24} {handler.name} ({handler.where or 'built in'}) {', '.join(options)}"


def _needs(app: Filter) -> str:
    bits = app._registry.need_bits()
    return ", ".join(str(need.name).lower() for need in NEED_EVENTS if need.value & bits)


def conf_lines(app: Filter, target: str, args: list[str]) -> list[str]:
    """Return the lines of smtpd.conf(5) that put a filter to use."""
    # Quoted, because a bare name may be a keyword there: auth, junk, tag.
    name = '"' + "".join(char if char.isalnum() else "-" for char in app.name) + '"'
    lines = [f'filter {name} proc-exec "{_command(target, args)}"']
    subsystems = {subsystem for subsystem, _ in app._registry.registered_reports()}
    if "smtp-in" in subsystems or app._registry.phases():
        # "all" and "egress" are groups of interfaces, which OpenBSD alone has.
        lines.append(f"listen on 0.0.0.0 filter {name}")
    if "smtp-out" in subsystems:
        lines.append(f'action "outbound" relay filter {name}')
    return lines


def _command(target: str, args: list[str]) -> str:
    """Return the command with whole paths: smtpd runs others from its own libexec directory."""
    if file := file_of(target):
        target = os.path.abspath(file) + target.removeprefix(file)
    program = own_command()
    return shlex.join([program, "run", target, *args]).replace('"', '\\"')
