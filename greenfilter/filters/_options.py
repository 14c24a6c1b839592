"""Options of a stock filter: on the command line, in a TOML file, lists also from files."""

from __future__ import annotations

import argparse
import ipaddress
import logging
import math
import os
import re
import textwrap
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from ..errors import UsageError
from . import _paths
from ._paths import PathIn
from ._watched import Watched, WatchedList

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Server(NamedTuple):
    """A DNS server."""

    address: str
    port: int


_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_SIZES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_MOST_SECONDS = 1e9


class Options:
    """The options of one filter.

    Args:
        name: of the filter.
        summary: what it does, in one line.
        manual: the rest of what ``--help`` says: smtpd.conf lines, what happens when its service
            is away.
    """

    def __init__(self, name: str, summary: str, manual: str) -> None:
        self.name = name
        self._parser = _Parser(
            prog=name,
            usage=f"greenfilter run {name} [options]",
            description=f"{summary}\n\n{textwrap.dedent(manual).strip()}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self._paths: dict[str, PathIn] = {}
        text = "file of options, long names without dashes; what is given here wins, lists add up"
        self.add("--config", path=_paths.whole_value, metavar="FILE.toml", help=text)

    def add(self, name: str, *, path: PathIn = _paths.no_path, **settings: Any) -> None:
        """Add an option.

        Args:
            name: with its dashes.
            path: gives the path that its value names.
            settings: as for :meth:`argparse.ArgumentParser.add_argument`.
        """
        self._paths[name] = path
        if "type" in settings:
            settings["type"] = _Value(settings["type"])
        self._parser.add_argument(name, **settings)

    def add_list(
        self,
        name: str,
        type: Callable[[str], Any],
        help: str,
        metavar: str,
        *,
        path: PathIn = _paths.no_path,
    ) -> None:
        """Add an option that may be repeated; ``@FILE`` takes its values from lines of a file."""
        self._paths[name] = _paths.after("@", otherwise=path)
        self._parser.add_argument(
            name,
            metavar=metavar,
            type=_ListType(type, read_list),
            action="extend",
            default=[],
            help=f"{help}; repeatable, @FILE has one in each line, # begins a comment",
        )

    def add_watched_list(
        self, name: str, type: Callable[[str], Any], help: str, metavar: str
    ) -> None:
        """Add an option as :meth:`add_list` does, whose value is a :class:`WatchedList`."""
        self._paths[name] = _paths.after("@")
        text = "repeatable, @FILE has one in each line and is read anew when it changes, # begins a"
        self._parser.add_argument(
            name,
            metavar=metavar,
            type=_ListType(type, self._watch),
            action=_AddPart,
            default=WatchedList(),
            help=f"{help}; {text} comment",
        )

    def add_log_only(self) -> None:
        """Add ``--log-only``."""
        text = "decide and log, but let all mail pass"
        self._parser.add_argument("--log-only", action="store_true", help=text)

    def add_store(self, default_path: str) -> None:
        """Add ``--store`` and ``--store-timeout``."""
        self.add(
            "--store",
            path=_paths.after("sqlite:"),
            metavar="URL",
            default=f"sqlite:{default_path}",
            help="sqlite:PATH for all workers of this host (the directory must exist, and belong "
            "to smtpd's user), redis://HOST/0 for several hosts (%(default)s)",
        )
        text = "how long the store may take before it counts as away (%(default)g)"
        self._parser.add_argument(
            "--store-timeout", metavar="TIME", type=parse_seconds, default=2.0, help=text
        )

    def add_local(self) -> None:
        """Add ``--local``: clients that are left alone besides this host's own."""
        text = "network whose clients are left alone, as those of this host and authenticated ones"
        self.add_watched_list("--local", parse_network, text, "NETWORK")

    def add_resolver(self) -> None:
        """Add ``--resolver``: which DNS servers to ask."""
        text = "DNS server instead of those of resolv.conf"
        self.add_list("--resolver", parse_server, text, "ADDRESS[@PORT]")

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Read the options.

        Raises:
            UsageError: one is wrong; the text is one line.
            SystemExit: ``--help`` was given, and printed.
        """
        words = list(arguments)
        _check_words(self.name, words)
        first, _ = _ConfigOnly(self.name).parse_known_args(words)
        if first.config is not None:
            words = [*self._from_file(first.config), *words]
        return self._parser.parse_args(words)

    def relative_paths(self, arguments: Sequence[str]) -> list[tuple[str, str]]:
        """Return all options, and their values, that name files relative to where smtpd starts.

        Args:
            arguments: without a mistake.
        """
        words = list(arguments)
        first, _ = _ConfigOnly(self.name).parse_known_args(words)
        if first.config is not None:
            words += self._from_file(first.config)
        found: dict[tuple[str, str], None] = {}
        following = iter(words)
        for word in following:
            name, equals, value = word.partition("=")
            if self._takes_value(name):
                text = value if equals else next(following)
                path = self._paths.get(name, _paths.no_path)(text)
                if path and not os.path.isabs(path):
                    found[name, text] = None
        return list(found)

    def _takes_value(self, name: str) -> bool:
        action = self._parser.option(name)
        return action is not None and action.nargs != 0

    def error(self, text: str) -> UsageError:
        """Make the error for options that are wrong together."""
        return UsageError(f"{self.name}: {text}; see --help")

    def _watch(self, path: str, type: Callable[[str], Any]) -> Watched[list[Any]]:
        log = logging.getLogger(f"greenfilter.{self.name}")
        return Watched(path, lambda path: read_list(path, type), log)

    def _from_file(self, path: str) -> list[str]:
        words = []
        for key, value in _read_toml(path).items():
            action = self._parser.option(f"--{key}")
            if action is None or key in ("config", "help"):
                raise UsageError(f"{path}: there is no option {key!r}; see --help")
            for text in _texts(path, key, value, flag=action.nargs == 0):
                self._check(path, key, action, text)
                words.append(f"--{key}" if text is None else f"--{key}={text}")
        return words

    def _check(self, path: str, key: str, action: argparse.Action, text: str | None) -> None:
        if text is None:
            return
        try:
            value = action.type(text) if callable(action.type) else text
        except (ValueError, TypeError, argparse.ArgumentTypeError) as error:
            raise UsageError(f"{path}: {key}: {_reason(error, text)}") from None
        if action.choices is not None and value not in action.choices:
            choices = ", ".join(map(str, action.choices))
            raise UsageError(f"{path}: {key}: {text!r} is not one of {choices}")


class _Parser(argparse.ArgumentParser):
    """Raises an error of one line, which smtpd logs as one."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {' '.join(message.split())}; see --help")

    def option(self, name: str) -> argparse.Action | None:
        """Return the option of a name."""
        return self._option_string_actions.get(name)


class _ConfigOnly(_Parser):
    """Finds ``--config`` among the others."""

    def __init__(self, name: str) -> None:
        super().__init__(prog=name, add_help=False, allow_abbrev=False)
        self.add_argument("--config")


class _Value:
    """Parses a value; a wrong one is named in the error, not the function that parses it."""

    def __init__(self, type: Callable[[str], Any]) -> None:
        self._type = type

    def __call__(self, text: str) -> Any:
        try:
            return self._type(text)
        except (ValueError, TypeError) as error:
            raise argparse.ArgumentTypeError(_reason(error, text)) from None


class _ListType:
    """Gives the values of one argument: itself, or what ``read`` makes of the lines of a file."""

    def __init__(
        self, type: Callable[[str], Any], read: Callable[[str, Callable[[str], Any]], Any]
    ) -> None:
        self._type = type
        self._read = read

    def __call__(self, text: str) -> Any:
        if not text.startswith("@"):
            return [_Value(self._type)(text)]
        return self._read(text[1:], self._type)


class _AddPart(argparse.Action):
    """Adds to a :class:`WatchedList`."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        setattr(namespace, self.dest, getattr(namespace, self.dest).plus(values))


def read_list(path: str, type: Callable[[str], Any]) -> list[Any]:
    """Read a list: one value in each line, ``#`` begins a comment.

    Raises:
        argparse.ArgumentTypeError: the file cannot be read, or a line is wrong; names the line.
    """
    try:
        lines = Path(path).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        text = getattr(error, "strerror", None) or str(error)
        raise argparse.ArgumentTypeError(f"{path}: {text}") from None
    values = []
    for number, line in enumerate(lines, 1):
        text = re.sub(r"(^|\s)#.*", "", line).strip()
        if "\0" in text:
            raise argparse.ArgumentTypeError(f"{path}:{number}: {text!r} has a NUL character")
        try:
            values += [type(text)] if text else []
        except (ValueError, TypeError, argparse.ArgumentTypeError) as error:
            raise argparse.ArgumentTypeError(f"{path}:{number}: {_reason(error, text)}") from None
    return values


def parse_seconds(text: str) -> float:
    """Parse a time above 0: ``30``, ``90s``, ``5m``, ``12h``, ``36d``, ``2w``."""
    return _in_units(text, "time", _UNITS, _MOST_SECONDS)


def parse_size(text: str) -> int:
    """Parse a number of bytes above 0: ``4096``, ``64k``, ``10M``, ``1G``."""
    return int(_in_units(text, "size", {**_SIZES}, float(1 << 60)))


def parse_network(text: str) -> Network:
    """Parse an address or a network."""
    try:
        found = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not an address or a network") from None
    # More than one address, or the wrong length of it?
    if "/" in text and ipaddress.ip_interface(text).ip != found.network_address:
        raise argparse.ArgumentTypeError(f"{text!r} is not a network; do you mean {found}?")
    return found


def parse_server(text: str) -> Server:
    """Parse a DNS server: ``192.0.2.53``, ``2001:db8::53@5353``."""
    address, _, port = text.partition("@")
    try:
        return Server(str(ipaddress.ip_address(address)), parse_whole(1, 65_535)(port or "53"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not an address or ADDRESS@PORT") from None


def parse_whole(least: int, most: int) -> Callable[[str], int]:
    """Parse a whole number between two others."""

    def number(text: str) -> int:
        if not re.fullmatch(r"-?\d{1,18}", text) or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {least} to {most}")
        return int(text)

    return number


def _in_units(text: str, what: str, units: dict[str, Any], most: float) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([a-z]?)", text.strip().lower())
    if match is None or match[2] not in units:
        letters = ", ".join(unit for unit in units if unit)
        raise argparse.ArgumentTypeError(f"{text!r} is not a {what}; units are {letters}")
    value = float(match[1]) * float(units[match[2]])
    if not (0 < value <= most and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"{text!r} is out of range")
    return value


def _read_toml(path: str) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # huge numbers and depths too
        raise UsageError(f"{path}: {error}") from None


def _texts(path: str, key: str, value: object, *, flag: bool) -> list[str | None]:
    """Return a value of the file as words of the command line; None is an option without value."""
    if flag:
        if isinstance(value, bool):
            return [None] if value else []
        raise UsageError(f"{path}: {key}: {value!r} is neither true nor false")
    values = value if isinstance(value, list) else [value]
    if any(isinstance(each, bool) or not isinstance(each, (str, int, float)) for each in values):
        raise UsageError(f"{path}: {key}: takes text, a number, or a list of them")
    texts = [str(each) for each in values]
    _check_words(f"{path}: {key}", texts)
    return list(texts)


def _check_words(where: str, words: Sequence[str]) -> None:
    """Refuse NUL characters: no path, name or address has any, and the system raises at them."""
    for word in words:
        if "\0" in word:
            raise UsageError(f"{where}: {word!r} has a NUL character")


def _reason(error: Exception, text: str) -> str:
    told = isinstance(error, argparse.ArgumentTypeError) and str(error)
    return " ".join((told or f"{text!r} is not valid").split())
