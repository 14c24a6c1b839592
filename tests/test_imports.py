"""The layers: who may import whom, and who may import gevent."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "greenfilter"
MODULES = sorted(PACKAGE.rglob("*.py"))

# A module may import from its own layer and from those above it in this list.
LAYERS = [
    {"errors"},
    {"protocol"},
    {"_process"},
    {"_mail"},
    {"_filter", "_control", "osmtpd", ""},
    {"_smtpd"},
    {"filters"},
    {"_waiting"},
    {"_runtime"},
    {"_chain"},
    {"_supervisor"},
    {"testing"},
    {"_commands"},
    {"__main__"},
]
# They start or drive a runtime, so they import it where it is used: inside a function.
LAZY = {"_commands": {"gevent"}, "_supervisor": {"gevent"}, "_filter": {"_chain"}}
# The class Chain is for authors, and imports what runs it inside functions.
LAZY |= {"": {"_chain"}}
# What patches, the runtime, what plays smtpd, and chains, which do both.
GEVENT_AT_THE_TOP = {"_waiting", "_smtpd", "_runtime", "_chain", "filters", "testing"}
GEVENT_AT_THE_TOP |= {f"_commands.{name}" for name in ("serve", "record", "bench")}


def layer(name: str) -> int:
    found = [index for index, names in enumerate(LAYERS) if name in names]
    assert len(found) == 1, f"greenfilter.{name} has no layer: put it into LAYERS"
    return found[0]


def part(path: Path) -> str:
    """The module or package right below greenfilter that a file belongs to; "" for itself."""
    first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def room(path: Path) -> str:
    """The package that a file is in, without "greenfilter"."""
    return ".".join(path.parent.relative_to(PACKAGE).parts)


def imports(path: Path) -> Iterator[tuple[str, bool, int]]:
    """Imported modules with their full names, whether lazily, and the line.

    Lazily is inside a function, or for the type checker alone.
    """
    package = ["greenfilter", *path.relative_to(PACKAGE).parts[:-1]]
    tree = ast.parse(path.read_text())
    for node, lazy in _run(tree.body, False):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, lazy, node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            if node.module is None or stem == "greenfilter":
                for alias in node.names:
                    yield f"{stem}.{alias.name}", lazy, node.lineno
            else:
                yield stem, lazy, node.lineno


def _run(body: list[ast.stmt], lazy: bool) -> Iterator[tuple[ast.stmt, bool]]:
    """All statements, with whether they stand in a function or below ``if TYPE_CHECKING``."""
    for node in body:
        yield node, lazy
        inside = lazy or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            inside = True
        for name in ("body", "orelse", "finalbody"):
            yield from _run(getattr(node, name, []), inside)
        for handler in getattr(node, "handlers", []):
            yield from _run(handler.body, inside)


def imported_part(name: str) -> str | None:
    """Which part of greenfilter an imported module is; None if it is somebody else's."""
    words = name.split(".")
    if words[0] != "greenfilter":
        return None
    known = set().union(*LAYERS)
    return words[1] if len(words) > 1 and words[1] in known else ""


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_from_its_own_layer_or_from_those_below(path):
    own = part(path)
    for name, lazy, line in imports(path):
        other = imported_part(name)
        lazy = lazy or own == ""  # the package's own __init__ re-exports
        if other is None or (own == other or (lazy and other in LAZY.get(own, ()))):
            continue
        # The package's own __init__ re-exports; whoever imports "greenfilter" gets the app layer.
        assert layer(other) <= layer(own), f"{path}:{line} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_runtime_imports_gevent_and_commands_inside_functions(path):
    own = part(path)
    for name, lazy, line in imports(path):
        if name.split(".")[0] in ("gevent", "greenlet"):
            eager = not GEVENT_AT_THE_TOP.isdisjoint({own, room(path)})
            allowed = eager or (lazy and "gevent" in LAZY.get(own, ()))
            assert allowed, f"{path}:{line} imports {name}"


def name_of(path: Path) -> str:
    """The full name of a module."""
    words = ["greenfilter", *path.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(words[:-1] if words[-1] == "__init__" else words)


# Rings that are left: who mends one takes it out.
KNOWN_RINGS = [
    {"greenfilter._commands.check.literals", "greenfilter._commands.check.values"},
    {"greenfilter._supervisor.process", "greenfilter._supervisor.sessions"},
    {f"greenfilter.filters._store{end}" for end in ("", "_redis", "_sqlite")},
    {"greenfilter.protocol._call", "greenfilter.protocol._session"},
]


def needed(path: Path) -> set[str]:
    """The modules of the package that a module imports at all, types included."""
    names = {name_of(each) for each in MODULES}
    package = ["greenfilter", *path.relative_to(PACKAGE).parts[:-1]]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            stem = ".".join([*base, *([node.module] if node.module else [])])
            members = {f"{stem}.{alias.name}" for alias in node.names} & names
            found |= members or ({stem} & names)
    return found


def find_rings(graph: dict[str, set[str]]) -> list[set[str]]:
    """The sets of modules that need each other, directly or not."""

    def reached(start: str) -> set[str]:
        found, left = set(), [start]
        while left:
            new = graph.get(left.pop(), set()) - found
            found |= new
            left += new
        return found

    reach = {name: reached(name) for name in graph}
    rings = {
        frozenset(other for other in reach[name] if name in reach.get(other, ()))
        for name in graph
        if name in reach[name]
    }
    return [set(ring) for ring in sorted(rings, key=sorted)]


def test_no_modules_need_each_other_types_included():
    rings = find_rings({name_of(path): needed(path) for path in MODULES})
    assert [ring for ring in rings if ring not in KNOWN_RINGS] == []


def test_a_ring_of_imports_is_found():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": {"e"}}
    assert find_rings(graph) == [{"a", "b", "c"}, {"e"}]
    assert find_rings({"a": {"b"}, "b": {"c"}, "c": set()}) == []


def test_what_the_runtime_needs_lies_below_it():
    order = ["channel", "answers", "runners", "calls", "messages", "dispatcher", "housekeeper"]
    places = {f"greenfilter._runtime.{name}": place for place, name in enumerate(order)}
    for path in MODULES:
        if part(path) == "_runtime":
            own = name_of(path).split(".")
            place = places.get(".".join(own[:3]))
            for name in needed(path) if place is not None else ():
                assert places.get(".".join(name.split(".")[:3]), -1) <= place, (path, name)


def test_the_protocol_does_no_io_and_knows_no_clock():
    forbidden = {"os", "io", "socket", "select", "selectors", "time", "threading", "subprocess"}
    forbidden |= {"asyncio", "logging", "sys", "signal", "pathlib"}
    for path in MODULES:
        if part(path) in ("protocol", "errors"):
            found = {name.split(".")[0] for name, _, _ in imports(path)}
            assert not found & forbidden, path
            assert "open(" not in path.read_text(), path


def test_errors_import_nothing():
    assert [name for name, _, _ in imports(PACKAGE / "errors.py")] == ["__future__"]


@pytest.mark.parametrize(
    "module", ["greenfilter", "greenfilter.protocol", "greenfilter._supervisor"]
)
def test_importing_it_imports_neither_gevent_nor_click(module):
    code = f"import sys, {module}; print(*(name.partition('.')[0] for name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"gevent", "greenlet", "click"} & set(done.stdout.split())


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], ["serve", "--help"], ["bench", "--help"]]
)
def test_help_imports_nothing_that_a_command_needs_for_its_work(arguments):
    code = (
        "import sys, greenfilter._commands as commands\n"
        f"try: commands.cli({arguments!r})\n"
        "finally: print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert "greenfilter._commands.options" in loaded
    assert not {"gevent", "ssl", "asyncio", "subprocess", "greenfilter._supervisor"} & loaded


def test_every_module_of_the_package_can_be_imported():
    names = [
        ".".join(["greenfilter", *path.relative_to(PACKAGE).with_suffix("").parts])
        for path in MODULES
        if path.name not in ("__init__.py", "__main__.py")
    ]
    code = f"import importlib\nfor name in {names!r}: importlib.import_module(name)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
