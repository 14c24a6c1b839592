"""smtpd.conf(5), as far as it says which filters run where."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..._filter.load import file_of
from .problem import Problem

_MAX_INCLUDES = 50
_ACTIONS = ("bypass", "disconnect", "junk", "reject", "report", "rewrite")


@dataclass(frozen=True, slots=True)
class Token:
    """A word.

    Args:
        text: without its quotes.
        file: where it stands.
        line: counted from 1.
        quoted: so it is not a keyword.
    """

    text: str
    file: str
    line: int
    quoted: bool = False

    def is_word(self, text: str) -> bool:
        """Return whether this is a keyword."""
        return self.text == text and not self.quoted


@dataclass(frozen=True, slots=True)
class Program:
    """What a ``proc`` or ``proc-exec`` runs.

    Args:
        command: as given.
        user: who it runs as; None for smtpd's own user.
        file: where it stands.
        line: counted from 1.
    """

    command: str
    user: str | None
    file: str
    line: int

    @property
    def words(self) -> list[str]:
        """The command as the shell splits it."""
        try:
            return shlex.split(self.command)
        except ValueError:
            return self.command.split()


@dataclass(frozen=True, slots=True)
class Builtin:
    """A filter of smtpd's own: ``filter NAME phase PHASE match CONDITION ACTION``.

    Args:
        phase: as smtpd.conf names it.
        action: what it does with what it matches: ``junk``, ``rewrite``, ...
        file: where it stands.
        line: counted from 1.
    """

    phase: str
    action: str
    file: str
    line: int


@dataclass(slots=True)
class Conf:
    """A configuration.

    Args:
        path: of the file.
        programs: by filter name.
        builtins: smtpd's own, by name.
        chains: names of the filters in each chain.
        listeners: filter names on ``listen`` lines.
        orders: the same, in their order for each of these lines.
        relays: filter names on ``relay`` actions.
        problems: what could not be read.
    """

    path: str
    programs: dict[str, Program] = field(default_factory=dict)
    builtins: dict[str, Builtin] = field(default_factory=dict)
    chains: dict[str, list[str]] = field(default_factory=dict)
    listeners: set[str] = field(default_factory=set)
    orders: list[list[str]] = field(default_factory=list)
    relays: set[str] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)

    def names_of(self, name: str) -> set[str]:
        """Return the names under which a filter can be used: its own, and those of its chains."""
        return {name} | {chain for chain in self.chains if name in self.members(chain)}

    def members(self, name: str, above: tuple[str, ...] = ()) -> list[str]:
        """Return the filters that a name stands for, in the order in which they are asked."""
        if name not in self.chains or name in above:
            return [name]
        found = [self.members(member, (*above, name)) for member in self.chains[name]]
        return [member for members in found for member in members]


def read_conf(path: str) -> Conf:
    """Read a configuration and what it includes.

    Raises:
        OSError: the file itself cannot be read. An included one becomes a problem.
    """
    conf = Conf(path)
    reader = _Reader(conf)
    reader.read(path)
    for name, token in reader.shared:
        if token.text in reader.processes:
            conf.programs[name] = reader.processes[token.text]
    return conf


def find_filters(conf: Conf, target: str) -> dict[str, Program]:
    """Return the filters that run a given file or module, by name."""
    return {
        name: program
        for name, program in conf.programs.items()
        if any(is_same(word, target) for word in program.words) or is_by_name(program, target)
    }


def is_by_name(program: Program, target: str) -> bool:
    """Return whether a command without a slash has the name of a filter's file."""
    file = file_of(target)
    first = "".join(program.words[:1])
    name = os.path.basename(file or "")
    return bool(first) and first in (name, os.path.splitext(name)[0])


def is_same(word: str, target: str) -> bool:
    """Return whether a word of a command names a filter's file or module."""
    if word == target:
        return True
    given, wanted = file_of(word), file_of(target)
    return given is not None and wanted is not None and os.path.samefile(given, wanted)


class _Reader:
    def __init__(self, conf: Conf) -> None:
        self._conf = conf
        self._macros: dict[str, str] = {}
        self._files = 0
        self.processes: dict[str, Program] = {}
        self.shared: list[tuple[str, Token]] = []  # filters by the name of their proc

    def read(self, path: str) -> None:
        self._files += 1
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            text = file.read()
        for statement in _statements(text, path):
            self._statement(statement)

    def _statement(self, tokens: list[Token]) -> None:
        if len(tokens) >= 3 and tokens[1].is_word("="):
            self._macros[tokens[0].text] = " ".join(token.text for token in tokens[2:])
            return
        tokens = [self._expanded(token) for token in tokens]
        keyword, rest = tokens[0], tokens[1:]
        if keyword.is_word("include") and rest:
            self._include(rest[0])
        elif keyword.is_word("filter") and len(rest) >= 3:
            self._filter(rest[0].text, rest[1], rest[2:])
        elif keyword.is_word("proc") and len(rest) >= 2:
            self.processes[rest[0].text] = _program(rest[1:])
        elif keyword.is_word("listen"):
            names = _named(rest, "filter")
            self._conf.listeners |= set(names)
            self._conf.orders.append(names)
        elif keyword.is_word("action") and any(token.is_word("relay") for token in rest):
            self._conf.relays |= set(_named(rest, "filter"))

    def _expanded(self, token: Token) -> Token:
        name = token.text[1:]
        if token.quoted or not token.text.startswith("$") or name not in self._macros:
            return token
        return Token(self._macros[name], token.file, token.line)

    def _include(self, token: Token) -> None:
        try:
            if self._files >= _MAX_INCLUDES:
                raise OSError(0, "too many files include one another")
            self.read(token.text)
        except OSError as error:
            text = f"include {token.text}: {error.strerror}"
            self._conf.problems.append(Problem(token.file, token.line, text))

    def _filter(self, name: str, kind: Token, rest: list[Token]) -> None:
        if kind.is_word("proc-exec"):
            self._conf.programs[name] = _program(rest)
        elif kind.is_word("proc"):
            self.shared.append((name, rest[0]))
        elif kind.is_word("phase"):
            actions = [token.text for token in rest if token.text in _ACTIONS and not token.quoted]
            if actions:
                at = rest[0]
                self._conf.builtins[name] = Builtin(at.text, actions[0], at.file, at.line)
        elif kind.is_word("chain"):
            self._conf.chains[name] = [token.text for token in rest if token.text not in "{},"]


def _program(tokens: list[Token]) -> Program:
    user = next(iter(_named(tokens, "user")), None)
    return Program(tokens[0].text, user, tokens[0].file, tokens[0].line)


def _named(tokens: list[Token], keyword: str) -> list[str]:
    """Return what follows a keyword: one name, or several in braces."""
    for index, token in enumerate(tokens[:-1]):
        if token.is_word(keyword):
            if not tokens[index + 1].is_word("{"):
                return [tokens[index + 1].text]
            names = [token.text for token in tokens[index + 2 :]]
            end = names.index("}") if "}" in names else len(names)  # smtpd -n tells of it
            return [name for name in names[:end] if name != ","]
    return []


def _statements(text: str, path: str) -> Iterator[list[Token]]:
    """Split a file into statements, which end with their lines but for backslashes and braces."""
    statement: list[Token] = []
    depth = 0
    for token in _tokens(text, path):
        depth += token.is_word("{") - token.is_word("}")
        if token.text != "\n":
            statement.append(token)
        elif depth <= 0 and statement:
            yield statement
            statement = []
    if statement:
        yield statement


def _tokens(text: str, path: str) -> Iterator[Token]:
    """Split as yylex() of smtpd's parse.y does."""
    position, line = 0, 1
    while position < len(text):
        char = text[position]
        if text.startswith("\\\n", position):
            position, line = position + 2, line + 1
        elif char == "\n":
            yield Token(char, path, line)
            position, line = position + 1, line + 1
        elif char in " \t\r":
            position += 1
        elif char == "#":
            while position < len(text) and text[position] != "\n":
                # The line after a backslash belongs to the comment too.
                joined = text.startswith("\\\n", position)
                position, line = position + 1 + joined, line + joined
        elif char in "\"'":
            word, end, lines = _quoted(text, position)
            yield Token(word, path, line, quoted=True)
            position, line = end, line + lines
        elif char in "(){}<>!=,":
            yield Token(char, path, line)
            position += 1
        else:
            end = position
            while end < len(text) and text[end] not in " \t\r\n(){}<>!=#,\"'\\":
                end += 1
            end = max(end, position + 1)
            yield Token(text[position:end], path, line)
            position = end


def _quoted(text: str, begin: int) -> tuple[str, int, int]:
    """Return the text in quotes, where it ends, and how many line breaks it has."""
    quote, position, word, lines = text[begin], begin + 1, "", 0
    while position < len(text) and text[position] != quote:
        if text.startswith("\\\n", position):
            position += 2
            lines += 1
            continue
        if text[position] == "\\" and text[position + 1 : position + 2] in (quote, " ", "\t"):
            position += 1
        lines += text[position : position + 1] == "\n"
        word += text[position : position + 1]
        position += 1
    return word, position + 1, lines
