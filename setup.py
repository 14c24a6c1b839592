"""Compiles the modules that every line of the protocol passes, with mypyc.

They are ordinary typed Python, and run as such where they cannot be compiled: the same behaviour,
at half the speed. GREENFILTER_COMPILE=1 makes it an error, 0 does not try. All else about the
package is in pyproject.toml.
"""

from __future__ import annotations

import ast
import os
import re
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

COMPILED = [
    "greenfilter/_filter/context.py",
    "greenfilter/protocol/_call.py",
    "greenfilter/protocol/_connection.py",
    "greenfilter/protocol/_fields.py",
    "greenfilter/protocol/_guard.py",
    "greenfilter/protocol/_session.py",
    "greenfilter/protocol/_stuffing.py",
    "greenfilter/_runtime/answers.py",
    "greenfilter/_runtime/calls.py",
    "greenfilter/_runtime/channel.py",
    "greenfilter/_runtime/dispatcher.py",
    "greenfilter/_runtime/fast_requests.py",
    "greenfilter/_runtime/messages/consumer.py",
    "greenfilter/_runtime/messages/each_line.py",
    "greenfilter/_runtime/messages/generator.py",
    "greenfilter/_runtime/messages/handled.py",
    "greenfilter/_runtime/messages/lines.py",
    "greenfilter/_runtime/messages/raw_lines.py",
    "greenfilter/_runtime/messages/reader.py",
    "greenfilter/_runtime/messages/tap.py",
    "greenfilter/_runtime/messages/whole_message.py",
    "greenfilter/_runtime/runners.py",
    "greenfilter/_runtime/sessions.py",
    "greenfilter/_runtime/turn.py",
    "greenfilter/_chain/asking.py",
    "greenfilter/_chain/host.py",
    "greenfilter/_chain/state.py",
    "greenfilter/_chain/views.py",
    "greenfilter/_supervisor/answers.py",
    "greenfilter/_supervisor/journal.py",
    "greenfilter/_supervisor/ledger.py",
    "greenfilter/_supervisor/link.py",
    "greenfilter/_supervisor/message.py",
    "greenfilter/_supervisor/requests.py",
    "greenfilter/_supervisor/results.py",
    "greenfilter/_supervisor/router.py",
    "greenfilter/_supervisor/sessions.py",
]
WISH = os.environ.get("GREENFILTER_COMPILE")
# Where mypyc leaves room for a docstring: of a method or function, of a class, of a property. It
# puts their signatures there, where C can express them.
TEXT = r'(NULL|"(?:[^"\\]|\\.)*")'
METHOD = re.compile(rf"(\(PyCFunction\)CPyPy_(\w+),[^\"{{}}]*PyDoc_STR\(){TEXT}")
CLASS = re.compile(rf"(CPyType_(\w+)_template_ = \{{[^{{}}]*\.tp_doc = PyDoc_STR\(){TEXT}")
PROPERTY = re.compile(r"(\(getter\)(\w+),\s*(?:NULL|\(setter\)\w+),\s*)(NULL)(?=, NULL\})")


def extensions() -> list[Extension]:
    """Translate the modules to C."""
    if WISH == "0":
        return []
    try:
        from mypyc.build import mypycify

        # Stubs that the package's own checks have are missing where it is only built.
        options = ["--ignore-missing-imports", "--follow-imports=silent"]
        options += ["--no-warn-unused-ignores"]
        made = mypycify([*options, *COMPILED], opt_level="3", group_name="greenfilter")
    except (ImportError, SystemExit) as error:
        go_on(error)
        return []
    for path in {Path(source) for extension in made for source in extension.sources}:
        if not path.is_absolute():  # as mypyc's own ones are
            path.write_text(documented(path.read_text()))
    return made


def documented(code: str) -> str:
    """Put docstrings, which mypyc drops, into the C that it has made: help() shows them."""
    # The longest first, since "_session" ends as "session" does.
    docs = dict(sorted(docstrings().items(), key=lambda item: -len(item[0])))

    def put(found: re.Match[str]) -> str:
        name = f"___{found[2]}"
        # A symbol begins with as much of the module's name as makes it the only one.
        doc = next((doc for end, doc in docs.items() if name.endswith(end)), None)
        if doc is None:
            return found[0]
        signature = "" if found[3] == "NULL" else found[3][1:-1]
        return f'{found[1]}"{signature}{doc}"'

    return PROPERTY.sub(put, CLASS.sub(put, METHOD.sub(put, code)))


def docstrings() -> dict[str, str]:
    """Return the docstrings of the compiled modules, as C has them, by the ends of symbols."""
    found: dict[str, str] = {}
    for path in map(Path, COMPILED):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef):
                found[f"___{path.stem}___{node.name}"] = as_c(node)
            elif isinstance(node, ast.ClassDef):
                of_class = f"___{path.stem}___{node.name}"
                found[of_class] = as_c(node)
                for member in node.body:
                    if isinstance(member, ast.FunctionDef):
                        found[f"{of_class}___{member.name}"] = as_c(member)
                        found[f"{of_class}_get_{member.name}"] = as_c(member)
    return {name: doc for name, doc in found.items() if doc}


def as_c(node: ast.FunctionDef | ast.ClassDef) -> str:
    """Return a node's docstring as what stands between the quotes in C."""
    text = (ast.get_docstring(node) or "").encode()
    plain = {*range(32, 127)} - set(b'"\\?')
    return "".join(chr(byte) if byte in plain else f"\\{byte:03o}" for byte in text)


class Build(build_ext):
    """Compiles all of the modules or none."""

    def run(self) -> None:
        """Compile."""
        try:
            super().run()
        except Exception as error:
            go_on(error)
            self.extensions = []


def go_on(error: BaseException) -> None:
    """Install greenfilter as plain Python, if that is good enough."""
    if WISH == "1":
        raise error
    print(f"greenfilter will run as plain Python: {error}", file=sys.stderr)


setup(ext_modules=extensions(), cmdclass={"build_ext": Build})
