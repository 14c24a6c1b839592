"""Whether the user that smtpd runs a filter as can read and execute what it takes."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import sys
import sysconfig
from collections.abc import Iterable, Iterator

from .problem import Problem

# What smtpd runs filters as unless proc-exec says otherwise: on OpenBSD, and elsewhere.
_SMTPD_USERS = ("_smtpd", "opensmtpd", "smtpd")


def default_user() -> str | None:
    """Return the user of smtpd on this machine, or None if there is none."""
    for name in _SMTPD_USERS:
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    return None


def own_command() -> str:
    """Return the whole path of the command ``greenfilter`` of this Python."""
    path = os.path.join(sysconfig.get_path("scripts"), "greenfilter")
    return path if os.path.exists(path) else shutil.which("greenfilter") or path


def check_permissions(target: str, user: str, command: list[str]) -> list[Problem]:
    """Check that a user can read the filter, the Python that runs it, and what both import.

    Mode bits only: access control lists and mount options are not looked at.

    Args:
        target: the filter's file, or ``package.module:name``. It has been imported by now.
        user: name of the user.
        command: the words of the command that runs it.

    Raises:
        KeyError: there is no such user.
    """
    account = _Account(user)
    found: dict[str, Problem] = {}
    for path, wanted in _files(target, command):
        for problem in account.problems(path, wanted):
            found.setdefault(problem.file, problem)
    return list(found.values())


def python_problem(user: str) -> str | None:
    """Tell why a user cannot run the command ``greenfilter`` of this Python; None if he can."""
    account = _Account(user)
    for path, wanted in _executables(own_command()):
        for problem in account.problems(path, wanted):
            return f"{problem.file}: {problem.text}"
    return None


def _files(target: str, command: list[str]) -> Iterator[tuple[str, int]]:
    """Return the files, and whether each is to be read (4) or executed (1)."""
    for program in command[:1]:
        yield from _executables(program)
    if os.path.exists(target):
        yield target, 4
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and os.path.isfile(file):
            yield file, 4


def _executables(program: str) -> Iterator[tuple[str, int]]:
    """Return a program, and the interpreter that its first line names."""
    path = program if os.path.isabs(program) else shutil.which(program)
    if path is None or not os.path.isfile(path):
        return  # smtpd.conf is looked at elsewhere
    yield path, 1
    with open(path, "rb") as file:
        first = file.readline(4096)
    if first.startswith(b"#!"):
        yield path, 4
        words = os.fsdecode(first[2:].strip()).split()
        if words:
            yield words[0], 1


class _Account:
    """A user as the kernel sees it.

    Args:
        name: of the user.
    """

    def __init__(self, name: str) -> None:
        entry = pwd.getpwnam(name)
        self._name = name
        self._uid = entry.pw_uid
        self._gids = set(os.getgrouplist(name, entry.pw_gid))

    def problems(self, path: str, wanted: int) -> Iterator[Problem]:
        """Yield the first thing on the way to a file that this user does not get past."""
        for part in _way(path):
            mode = os.stat(part)
            is_directory = stat.S_ISDIR(mode.st_mode)
            needed = 1 if is_directory else wanted
            if not self._may(mode, needed):
                verb = "search this directory" if is_directory else _VERBS[wanted]
                way = f", on the way to {_named(path)}" if is_directory else ""
                way += _ADVICE if _is_of_python(path) else ""
                text = f"user {self._name} cannot {verb} ({_shown(mode)}){way}"
                yield Problem(part, 1, text)
                return

    def _may(self, mode: os.stat_result, wanted: int) -> bool:
        if self._uid == 0:
            return wanted == 4 or stat.S_ISDIR(mode.st_mode) or bool(mode.st_mode & 0o111)
        if mode.st_uid == self._uid:
            return bool(mode.st_mode >> 6 & wanted)
        if mode.st_gid in self._gids:
            return bool(mode.st_mode >> 3 & wanted)
        return bool(mode.st_mode & wanted)


_ADVICE = "; install Python and greenfilter where every user can read them, as below /opt"
_VERBS = {4: "read this file", 1: "execute this file"}


def _way(path: str) -> Iterable[str]:
    """Return every directory from the root to a file, and the file; symbolic links followed."""
    real = os.path.realpath(path)
    parts = real.split(os.path.sep)
    return [os.path.sep.join(parts[: count + 1]) or os.path.sep for count in range(len(parts))]


def _named(path: str) -> str:
    real = os.path.realpath(path)
    return path if real == path else f"{path}, which is {real}"


def _is_of_python(path: str) -> bool:
    """Return whether a file belongs to this Python or its environment."""
    real = os.path.realpath(path)
    prefixes = {os.path.realpath(prefix) for prefix in (sys.prefix, sys.base_prefix)}
    return any(real.startswith(prefix + os.path.sep) for prefix in prefixes)


def _shown(mode: os.stat_result) -> str:
    try:
        owner = pwd.getpwuid(mode.st_uid).pw_name
    except KeyError:
        owner = str(mode.st_uid)
    return f"{stat.filemode(mode.st_mode)}, owner {owner}"
