"""``greenfilter new``."""

from __future__ import annotations

import re
import shlex
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from string import Template

import click

from .._checks import own_command
from ..errors import UsageError

# Names that are file names, module names of tests, and filter names of smtpd.conf(5).
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


def new(name: str) -> None:
    """Write a filter, its test, and its lines for smtpd.conf.

    Args:
        name: of the filter, a directory in front if it is another.

    Raises:
        UsageError: it is no name, or a module's that the filter itself may import, or one of the
            files is there already; nothing is written then.
    """
    path = Path(name.removesuffix(".py"))
    if not _NAME.fullmatch(path.name):
        raise UsageError(f"{path.name!r} is no name of a filter: letters, digits, - and _")
    if not path.parent.is_dir():
        raise UsageError(f"{path.parent}: no such directory")
    written = {
        path.with_name(f"{path.name}.py"): "filter.py.txt",
        path.with_name(f"test_{path.name}.py"): "test.py.txt",
        path.with_name(f"{path.name}.conf"): "smtpd.conf.txt",
    }
    for file in written:
        if file.exists():
            raise UsageError(f"{file}: is there already, and stays as it is")
    if find_spec(path.name) is not None:
        raise UsageError(f"{path.name!r} is a Python module, which {path.name}.py would hide")
    for file, template in written.items():
        _write(file, template, path)
    _tell_what_next(list(written))


def _write(file: Path, template: str, path: Path) -> None:
    text = resources.files(__package__).joinpath("templates", template).read_text()
    target = path.with_name(f"{path.name}.py").resolve()
    command = shlex.join([own_command(), "run", str(target)])
    try:
        with file.open("x") as opened:
            opened.write(Template(text).substitute(name=path.name, command=command))
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from error


def _tell_what_next(files: list[Path]) -> None:
    program, test, conf = (shlex.quote(str(file)) for file in files)
    click.echo(f"Written: {program}, {test}, {conf}")
    click.echo("Next:")
    for command, what in (
        (f"python -m pytest {test}", "run its tests"),
        (f"greenfilter check {program}", "see its hooks, and what is wrong with them"),
        (f"greenfilter serve {program} --domain spam.example", "talk to it by SMTP"),
        (f"greenfilter bench {program}", "see how fast it is"),
        (f"greenfilter check --smtpd-conf {conf} {program}", "before smtpd runs it"),
    ):
        click.echo(f"  {command}  # {what}")
