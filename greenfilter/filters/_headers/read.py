"""The file of rules: all that is wrong with it is told at once."""

from __future__ import annotations

import argparse
import re
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ... import Headers
from ...errors import UsageError
from .._options import parse_network
from .patterns import Pattern
from .rules import Conditions, Replacement, Rule

_TEXTS = ("sender", "recipient", "helo", "rdns", "user")
_ADDRESS = re.compile(r'[^\s@<>"(),;:\\]+@[A-Za-z0-9._-]+')
_DOMAIN = re.compile(r"[A-Za-z0-9._-]+")
_ACTIONS = ("remove", "replace", "set", "add", "masquerade", "strip_plus", "catch_all")


def read(path: str) -> list[Rule]:
    """Read a file of rules.

    Raises:
        UsageError: it is wrong; each line of the text names file, rule and key.
    """
    try:
        text = Path(path).read_text("utf-8")
        data = tomllib.loads(text)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except tomllib.TOMLDecodeError as error:
        at = re.search(r" \(at line (\d+), column \d+\)$", str(error))
        line = f":{at[1]}" if at else ""
        raise UsageError(f"{path}{line}: {error}") from None
    except (ValueError, RecursionError) as error:  # huge numbers and depths too
        raise UsageError(f"{path}: {error}") from None
    tables = data.pop("rule", [])
    problems = [f"{path}: {key}: is not known; rules are [[rule]]" for key in data]
    if not isinstance(tables, list) or not all(isinstance(each, dict) for each in tables):
        problems.append(f"{path}: rule: write each as [[rule]]")
        tables = []
    heads = [number for number, line in enumerate(text.splitlines(), 1) if _is_head(line)]
    rules = []
    for index, table in enumerate(tables):
        line = f":{heads[index]}" if len(heads) == len(tables) else ""
        reader = _Reader(f"{path}{line}", index + 1, table)
        rules.append(reader.rule)
        problems += reader.problems
    if problems:
        raise UsageError("\n".join(problems))
    return rules


def _is_head(line: str) -> bool:
    return re.match(r"\s*\[\[\s*rule\s*\]\]", line) is not None


class _Reader:
    """Reads one rule, and goes on after what is wrong."""

    def __init__(self, where: str, number: int, table: dict[str, Any]) -> None:
        self.problems: list[str] = []
        name = table.get("name")
        self._where = f"{where}: rule {number}" + (
            f" ({' '.join(str(name).split())})" if name else ""
        )
        self.rule = rule = Rule(str(name or number))
        readers: dict[str, Callable[[str, Any], Any]] = {
            "name": self._text,
            "match": self._conditions,
            "unless": self._conditions,
            "remove": self._patterns,
            "replace": self._replacements,
            "set": self._set,
            "add": self._add,
            "masquerade": self._masquerade,
            "masquerade_in": self._names,
            "strip_plus": self._patterns,
            "delimiter": self._text,
            "catch_all": self._catch_all,
            "known": self._patterns,
        }
        for key, value in table.items():
            if key not in readers:
                self._wrong(key, f"is not known; known are {', '.join(readers)}")
                continue
            found = readers[key](key, value)
            if key != "name":
                setattr(rule, key, found)
        self._check_together(table)

    def _check_together(self, table: dict[str, Any]) -> None:
        if not set(_ACTIONS).intersection(table):
            self._wrong("rule", "does nothing")
        masquerades = "masquerade" in table and "envelope" in self.rule.masquerade_in
        envelope = {"strip_plus", "catch_all"}.intersection(table)
        for key in ("match", "unless"):
            conditions = table.get(key)
            names = conditions if isinstance(conditions, dict) else {}
            for action in sorted(envelope | ({"masquerade"} if masquerades else set())):
                if "header" in names:
                    self._wrong(action, f"{key}.header is not known yet when this is decided")
            if masquerades and "recipient" in names:
                self._wrong("masquerade", f"{key}.recipient is not known yet when this is decided")
        if self.rule.known and not self.rule.catch_all:
            self._wrong("known", "is of no use without catch_all")
        if not self.rule.delimiter:
            self._wrong("delimiter", "is empty")

    def _wrong(self, key: str, problem: object) -> None:
        text = " ".join(str(problem).split())
        self.problems.append(f"{self._where}: {key}: {text}")

    @contextmanager
    def _told(self, key: str) -> Iterator[None]:
        try:
            yield
        except (ValueError, argparse.ArgumentTypeError) as error:
            self._wrong(key, error)

    def _text(self, key: str, value: Any) -> str:
        if isinstance(value, str):
            return value
        self._wrong(key, f"{value!r} is not text")
        return "?"

    def _texts(self, key: str, value: Any) -> list[str]:
        return [self._text(key, each) for each in (value if isinstance(value, list) else [value])]

    def _table(self, key: str, value: Any) -> dict[str, Any]:
        if isinstance(value, dict):
            return value
        self._wrong(key, f"{value!r} is not a table, as {{ NAME = ... }}")
        return {}

    def _patterns(self, key: str, value: Any) -> list[Pattern]:
        found = []
        for text in self._texts(key, value):
            with self._told(key):
                found.append(Pattern(text))
        return found

    def _conditions(self, key: str, value: Any) -> Conditions:
        found = Conditions()
        for name, wanted in self._table(key, value).items():
            where = f"{key}.{name}"
            if name in _TEXTS:
                found.texts[name] = self._patterns(where, wanted)
            elif name == "header":
                for header, patterns in self._table(where, wanted).items():
                    found.headers[header] = self._patterns(f"{where}.{header}", patterns)
            elif name == "client":
                found.networks = []
                for text in self._texts(where, wanted):
                    with self._told(where):
                        found.networks.append(parse_network(text))
            elif name in ("authenticated", "tls"):
                if not isinstance(wanted, bool):
                    self._wrong(where, f"{wanted!r} is neither true nor false")
                setattr(found, name, wanted)
            else:
                known = ", ".join((*_TEXTS, "header", "client", "authenticated", "tls"))
                self._wrong(where, f"is not known; known are {known}")
        return found

    def _replacements(self, key: str, value: Any) -> list[Replacement]:
        found = []
        for table in value if isinstance(value, list) else [value]:
            texts = self._table(key, table)
            if set(texts) != {"header", "pattern", "with"}:
                self._wrong(key, "takes { header = ..., pattern = ..., with = ... }")
                continue
            name, pattern, by = (self._text(f"{key}.{part}", texts[part]) for part in
                                 ("header", "pattern", "with"))  # fmt: skip
            with self._told(f"{key}.header"):
                Headers().append(name, "")
            with self._told(f"{key}.pattern"):
                compiled = Pattern(pattern)
                with self._told(f"{key}.with"):
                    compiled.check_replacement(by)
                found.append(Replacement(name, compiled, by))
        return found

    def _set(self, key: str, value: Any) -> dict[str, str]:
        texts = {
            name: self._text(f"{key}.{name}", text)
            for name, text in self._table(key, value).items()
        }
        for name, text in texts.items():
            with self._told(f"{key}.{name}"):
                Headers().append(name, text)
        return texts

    def _add(self, key: str, value: Any) -> dict[str, list[str]]:
        table = self._table(key, value)
        found = {name: self._texts(f"{key}.{name}", text) for name, text in table.items()}
        for name, texts in found.items():
            for text in texts:
                with self._told(f"{key}.{name}"):
                    Headers().append(name, text)
        return found

    def _masquerade(self, key: str, value: Any) -> list[tuple[Pattern, str]]:
        return self._map(key, value, whole=False)

    def _catch_all(self, key: str, value: Any) -> list[tuple[Pattern, str]]:
        return self._map(key, value, whole=True)

    def _map(self, key: str, value: Any, *, whole: bool) -> list[tuple[Pattern, str]]:
        found = []
        for text, to in self._table(key, value).items():
            to = self._text(f"{key}.{text}", to)
            if not (_ADDRESS.fullmatch(to) or (_DOMAIN.fullmatch(to) and not whole)):
                kind = "address" if whole else "address or domain"
                self._wrong(f"{key}.{text}", f"{to!r} is not an {kind}")
            with self._told(f"{key}.{text}"):
                found.append((Pattern(text), to))
        return found

    def _names(self, key: str, value: Any) -> list[str]:
        names = self._texts(key, value)
        for name in names:
            if name != "envelope" and name.lower() not in ("from", "sender", "reply-to"):
                self._wrong(key, f"{name!r} is not one of envelope, From, Sender, Reply-To")
        return names
