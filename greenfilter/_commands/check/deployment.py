"""Whether smtpd.conf(5) puts a filter where its hooks need it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

from ..._filter.app import Filter
from ..._filter.load import file_of
from .conf import Conf, Program, find_filters, is_same
from .order import check_order
from .problem import Problem

# Not everybody has these in PATH.
_SBIN = "/usr/sbin:/usr/local/sbin:/sbin"
# Where smtpd looks for a command without a slash: OpenBSD, Linux distributions, FreeBSD.
_LIBEXEC = (
    "/usr/libexec/smtpd",
    "/usr/libexec/opensmtpd",
    "/usr/local/libexec/opensmtpd",
    "/usr/lib/opensmtpd",
)
_SECONDS = 30.0
_COMPLAINT = re.compile(r"(?P<file>[^:]+):(?P<line>\d+): (?P<text>.*)")


def check_deployment(app: Filter, target: str, conf: Conf) -> list[Problem]:
    """Compare a filter with a configuration.

    Args:
        app: the filter.
        target: its file, or ``package.module:name``.
        conf: what smtpd.conf says.
    """
    found = list(conf.problems)
    filters = find_filters(conf, target)
    if not filters:
        text = f"no filter runs {target}; write: filter NAME proc-exec COMMAND"
        return [*found, Problem(conf.path, 1, text)]
    for program in filters.values():
        found += _check_command(program, target)
    subsystems = {subsystem for subsystem, _ in app._registry.registered_reports()}
    if app._registry.phases():
        subsystems.add("smtp-in")
    names = set().union(*(conf.names_of(name) for name in filters))
    program = next(iter(filters.values()))
    quoted = " or ".join(f'"{name}"' for name in filters)
    for subsystem, used, line in (
        ("smtp-in", conf.listeners, "listen on ... filter"),
        ("smtp-out", conf.relays, "action ... relay ... filter"),
    ):
        if subsystem in subsystems and not names & used:
            example = next(iter(filters))
            text = f"filter {quoted} has hooks for {subsystem}, but no line names it: "
            text += f'{line} "{example}"'
            found.append(Problem(program.file, program.line, text))
    unused = [name for name in filters if not conf.names_of(name) & (conf.listeners | conf.relays)]
    if len(unused) < len(filters):  # else it was told above
        found += [_unused(name, filters[name]) for name in unused]
    return found + check_order(app, conf, filters)


def _unused(name: str, program: Program) -> Problem:
    text = f'filter "{name}" runs it too, but no line names it: listen on ... filter "{name}"'
    return Problem(program.file, program.line, text)


def _check_command(program: Program, target: str) -> list[Problem]:
    """Check the command: without a slash, smtpd looks for it in its libexec (smtpd.conf(5))."""
    words = program.words or [""]
    if not words[0].startswith("/"):
        if _is_in_libexec(words[0], target):
            return []
        text = f"{words[0]!r} does not begin with a slash, so smtpd looks for it in its own "
        text += "libexec directory only; write the whole path"
        return [Problem(program.file, program.line, text)]
    relative = [word for word in words if is_same(word, target) and file_of(word)]
    if any(not os.path.isabs(word) for word in relative):
        text = f"{relative[0]!r} is relative to where smtpd was started; write the whole path"
        return [Problem(program.file, program.line, text)]
    return []


def _is_in_libexec(word: str, target: str) -> bool:
    file = file_of(target)
    places = [os.path.join(directory, word) for directory in _LIBEXEC]
    return file is not None and any(
        os.path.isfile(place) and os.path.samefile(place, file) for place in places
    )


def smtpd_command() -> str | None:
    """Return the path of smtpd, or None where it is not installed."""
    return shutil.which("smtpd") or shutil.which("smtpd", path=_SBIN)


def check_syntax(path: str) -> list[Problem]:
    """Check a configuration with smtpd itself (``smtpd -n``), if it is installed."""
    smtpd = smtpd_command()
    if smtpd is None:
        return []
    try:
        done = subprocess.run(
            [smtpd, "-n", "-f", path], capture_output=True, text=True, timeout=_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return [Problem(path, 1, f"smtpd -n: {error}", is_error=False)]
    if done.returncode == 0:
        return []
    lines = (done.stderr + done.stdout).splitlines()
    return [_complaint(line, path) for line in lines if line.strip()]


def _complaint(line: str, path: str) -> Problem:
    match = _COMPLAINT.fullmatch(line)
    if match is None:
        return Problem(path, 1, f"smtpd -n: {line}")
    return Problem(match["file"], int(match["line"]), f"smtpd -n: {match['text']}")
