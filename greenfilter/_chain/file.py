"""Chain files: ``greenfilter run mx.toml``.

tomllib reports no positions, so an error names the file, the number and the first line of the
block, and the key. All problems are reported at once.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .._filter.handlers import parse_deadline, parse_policy
from ..errors import RegistrationError, UsageError
from .chain import Chain
from .conditions import problems_of
from .member import Member
from .program import Program, find_program

if TYPE_CHECKING:
    from .._filter.app import Filter

_TOP = ("name", "deadline", "filter")
_KINDS = ("run", "exec", "milter")
_COMMON = ("when", "unless", "deadline", "on_error", "observe", "name")
_OF_KIND = {"run": ("options",), "exec": ("protocol",), "milter": ()}
_PROTOCOLS = {"0.4": (0, 4), "0.5": (0, 5), "0.6": (0, 6), "0.7": (0, 7)}
_NESTED = "a chain cannot be in a chain itself; put its filters here"
_BLOCK = re.compile(r"^\s*\[\[\s*filter\s*\]\]")
_NAME = re.compile(r"[\w.+-]+\Z")

# Gives the filter of a run member, from its target and options.
Loader = Callable[[str, list[str]], "Filter"]


class ChainFileError(UsageError):
    """A chain file is wrong.

    Attributes:
        problems: what is wrong, each with file, block and key.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class _Block:
    """One ``[[filter]]``, and what is wrong with it."""

    def __init__(self, path: str, number: int, line: int, table: dict[str, Any]) -> None:
        self.table = table
        self.where = (path, line or 1)
        self.problems: list[str] = []
        self._at = f"{path}: filter {number} (line {line})" if line else f"{path}: filter {number}"

    def wrong(self, key: str, text: str) -> None:
        """Note a problem of a key."""
        self.problems.append(f"{self._at}: {key}: {text}")

    def about(self, text: str) -> None:
        """Note a problem of the block."""
        self.problems.append(f"{self._at}: {text}")


def load_chain(path: str, source: bytes, load: Loader) -> Chain:
    """Make the chain that a file describes.

    Args:
        path: of the file, for messages and for its name.
        source: its content.
        load: loads the filter of a ``run`` member.

    Raises:
        ChainFileError: something in it is wrong.
    """
    try:
        text = source.decode("utf-8")
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # huge numbers and depths too
        raise ChainFileError([f"{path}: {error}"]) from None
    problems = _problems_at_the_top(path, table)
    blocks = _blocks(path, text, table, problems)
    members = [member for block in blocks if (member := _member(block, load)) is not None]
    for block in blocks:
        problems += block.problems
    if problems:
        raise ChainFileError(problems)
    stem = re.split(r"[/\\]", path)[-1].removesuffix(".toml")
    limits = {"deadline": table["deadline"]} if "deadline" in table else {}
    chain = Chain(table.get("name", stem), **limits)
    for member in members:
        chain._add_member(member)
    return chain


def _problems_at_the_top(path: str, table: dict[str, Any]) -> list[str]:
    problems = [
        f"{path}: {key}: no such key; there are: {', '.join(_TOP)}"
        for key in table
        if key not in _TOP
    ]
    name = table.get("name", "x")
    if not isinstance(name, str) or not _NAME.match(name):
        problems.append(f"{path}: name: a word of letters, digits and '.+-_', not {name!r}")
    if "deadline" in table and (error := _deadline_error(table["deadline"])):
        problems.append(f"{path}: deadline: {error}")
    return problems


def _blocks(path: str, text: str, table: dict[str, Any], problems: list[str]) -> list[_Block]:
    found = table.get("filter")
    if not found:
        problems.append(f"{path}: no filter in it; write: [[filter]]")
        return []
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        problems.append(f"{path}: filter: write [[filter]], with two brackets, for each filter")
        return []
    lines = [n for n, line in enumerate(text.splitlines(), 1) if _BLOCK.match(line)]
    if len(lines) != len(found):  # filter = [{...}]: valid TOML, without a first line to name
        lines = [0] * len(found)
    return [_Block(path, n + 1, lines[n], item) for n, item in enumerate(found)]


def _member(block: _Block, load: Loader) -> Member | None:
    """Make the member of a block, or note what is wrong with it."""
    table = block.table
    kinds = [kind for kind in _KINDS if kind in table]
    if len(kinds) != 1:
        block.about(
            f"one of {', '.join(_KINDS)} is needed"
            + (f", not {' and '.join(kinds)}" if kinds else "")
        )
    known = {*_COMMON, *_KINDS, *(key for kind in kinds for key in _OF_KIND[kind])}
    for key in table:
        if key not in known:
            shown = ", ".join((*kinds[:1], *(_OF_KIND[kinds[0]] if kinds else ()), *_COMMON))
            block.wrong(key, f"no such key here; there are: {shown}")
    _check_common(block)
    app = _app(block, kinds[0], load) if len(kinds) == 1 else None
    if block.problems or app is None:
        return None
    is_program = isinstance(app, Program)
    member = Member(
        app,
        when=table.get("when"),
        unless=table.get("unless"),
        deadline=None if is_program else table.get("deadline"),
        on_error=None if is_program else table.get("on_error"),
        observe=table.get("observe", False),
        name=table.get("name"),
    )
    member.where = block.where
    what = table["exec"] if is_program else shlex.join([table["run"], *table.get("options", [])])
    member.source = f"{kinds[0]} {what}"
    return member


def _check_common(block: _Block) -> None:
    table = block.table
    for key in ("when", "unless"):
        if key in table:
            for problem in problems_of(table[key]):
                at = f"{key}.{problem.key}" if problem.key is not None else key
                block.wrong(at, problem.text)
    if "deadline" in table and (error := _deadline_error(table["deadline"])):
        block.wrong("deadline", error)
    if "on_error" in table:
        if table["on_error"] not in ("tempfail", "proceed", "junk"):
            block.wrong("on_error", f"tempfail, proceed or junk, not {table['on_error']!r}")
        else:
            parse_policy(table["on_error"], None, None)
    if not isinstance(table.get("observe", False), bool):
        block.wrong("observe", f"true or false, not {table['observe']!r}")
    name = table.get("name", "x")
    if not isinstance(name, str) or not _NAME.match(name):
        block.wrong("name", f"a word of letters, digits and '.+-_', not {name!r}")


def _deadline_error(value: object) -> str | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return f"a number of seconds, not {value!r}"
    try:
        parse_deadline(value, None)
    except RegistrationError:
        return f"a positive number of seconds, not {value!r}"
    return None


def _app(block: _Block, kind: str, load: Loader) -> Filter | None:
    """Load the filter of a block."""
    table = block.table
    target = table[kind]
    if not isinstance(target, str) or not target.strip():
        block.wrong(kind, f"a text, not {target!r}")
        return None
    options = table.get("options", [])
    if not isinstance(options, list) or not all(isinstance(item, str) for item in options):
        block.wrong("options", f"a list of texts, not {options!r}")
        return None
    try:
        if kind == "exec":
            return _program(block, target)
        if kind == "milter":
            block.wrong("milter", "this version has no milter members")
            return None
        if target.endswith(".toml"):
            raise UsageError(_NESTED)
        app = load(target, options)
        if isinstance(app, Chain):
            raise UsageError(_NESTED)
        return app
    except UsageError as error:
        block.wrong(kind, str(error))
    except RegistrationError as error:
        block.wrong(kind, str(error))
    except SystemExit as error:
        shown = shlex.join([target, *options])
        block.wrong("options", f"{shown} ended with status {error.code}; what it said is above")
    return None


def _program(block: _Block, command: str) -> Filter | None:
    table = block.table
    protocol = table.get("protocol")
    if protocol is not None and not (isinstance(protocol, str) and protocol in _PROTOCOLS):
        block.wrong("protocol", f"one of {', '.join(_PROTOCOLS)}, as a text, not {protocol!r}")
        return None
    if block.problems:
        find_program(command)  # to tell that it is missing as well
        return None
    return Program(
        command,
        deadline=table.get("deadline", 30.0),
        on_error=table.get("on_error", "tempfail"),
        protocol=_PROTOCOLS[protocol] if protocol is not None else None,
        name=table.get("name"),
    )
