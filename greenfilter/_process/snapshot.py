"""The accepted code: the sources that a filter was loaded from, kept for the workers that follow.

Theory of operation: the first worker of a generation (at the start, and at each reload) loads the
filter from disk. It reads all Python files below the filter's own directory first, so that what is
imported later, in the tenth mail perhaps, is of the same time; and it keeps the source of what
else it imports. All that goes into one archive, in memory that only this supervisor and its
workers have. A worker that is started later, in the place of one that has died, reads its sources
there, whatever has been edited, half pulled or upgraded on disk since. It is a fresh interpreter
all the same, with connections of its own.

A module behaves as the file does: ``__file__``, tracebacks, ``inspect.getsource`` and package data
are those of the path that it has on disk. Cached bytecode is not looked at; the archive has its
own. In the directories that were read, a file that has come since is not there for imports.

These are still taken from disk: the standard library, greenfilter but for its stock filters,
packages with compiled modules (old Python and new C do not go together), what a filter opens as a
file, and what is neither below its directory nor imported before it has loaded.
"""

from __future__ import annotations

import importlib.util
import json
import linecache
import marshal
import os
import sys
from importlib.machinery import (
    BYTECODE_SUFFIXES,
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    ModuleSpec,
    PathFinder,
    SourceFileLoader,
    SourcelessFileLoader,
)
from types import CodeType, ModuleType
from typing import Any, NamedTuple

from .python import OWN_FILES, is_stdlib

_MAX_FILES = 2000
_MAX_BYTES = 16 << 20
_MAX_ENTRIES = 20_000  # that are looked at
_SITES = ("site-packages", "dist-packages")
_NOT_CODE = {"__pycache__", "node_modules", *_SITES}
# What is one module to Python, in the order that it looks for them.
_LOADERS: tuple[tuple[Any, list[str]], ...] = (
    (ExtensionFileLoader, EXTENSION_SUFFIXES),
    (SourceFileLoader, SOURCE_SUFFIXES),
    (SourcelessFileLoader, BYTECODE_SUFFIXES),
)

Signature = list[int]


class File(NamedTuple):
    """One source file.

    Args:
        source: its content.
        signature: of the file on disk when it was read: what changes with its content.
        code: compiled and marshalled; empty if it was not imported.
    """

    source: bytes
    signature: Signature
    code: bytes = b""


class Snapshot:
    """Sources by path.

    Attributes:
        files: the sources.
        directories: those that were read whole: nothing else is in them for imports.
        left_out: for the log: what one would look for here, and why it is missing.
        complete: it is what was accepted; until then more is added.
        parents: directories that anything was in, at any depth, when it was installed.
    """

    def __init__(self) -> None:
        self.files: dict[str, File] = {}
        self.directories: set[str] = set()
        self.left_out: list[str] = []
        self.complete = False
        self.parents: set[str] = set()
        self._names: dict[str, str] = {}  # path -> package, of what else was imported

    # Making one

    def add_tree(self, root: str) -> None:
        """Read all Python files below a directory, those nearest to it first."""
        entries = size = 0
        directories = [root]
        for directory in directories:
            whole = True
            try:
                found = sorted(os.scandir(directory), key=lambda entry: entry.name)
            except OSError as error:
                self.left_out.append(f"{directory}: {error.strerror}")
                continue
            names = {entry.name for entry in found}
            if "pyvenv.cfg" in names:
                continue
            for entry in found:
                entries += 1
                if entries > _MAX_ENTRIES or len(self.files) >= _MAX_FILES or size > _MAX_BYTES:
                    self.left_out.append(f"what is below {directory}: too much")
                    return
                if entry.is_dir(follow_symlinks=False):
                    if entry.name not in _NOT_CODE and not entry.name.startswith("."):
                        directories.append(entry.path)
                elif entry.name.endswith(".py") and not _has_compiled(entry.name, names):
                    size += self._add_file(entry.path)
                    whole = whole and entry.path in self.files
            if whole:
                self.directories.add(directory)

    def _add_file(self, path: str) -> int:
        try:
            if not os.path.isfile(path):
                return 0
            self.files[path] = file = read_file(path)
        except OSError as error:
            self.left_out.append(f"{path}: {error.strerror}")
            return 0
        return len(file.source)

    def note_import(self, name: str, path: str, code: CodeType) -> None:
        """Keep what is imported from elsewhere than the tree."""
        if path.startswith(OWN_FILES) or is_stdlib(path):
            return
        try:
            file = read_file(path)
        except OSError:
            return
        self.files[path] = file._replace(code=marshal.dumps(code))
        self._names[path] = name.partition(".")[0]

    def note_code(self, path: str, code: CodeType) -> None:
        """Keep what a file of the tree was compiled to."""
        self.files[path] = self.files[path]._replace(code=marshal.dumps(code))

    def write(self, fd: int) -> None:
        """Write what was accepted. Nothing is added after that.

        Raises:
            OSError: there is no room.
        """
        self.complete = True
        compiled = {
            name.partition(".")[0]
            for name, module in list(sys.modules.items())
            if isinstance(getattr(module, "__loader__", None), ExtensionFileLoader)
        }
        for path, package in self._names.items():
            if package in compiled:
                self.files.pop(path, None)
        index, blobs, position = {}, [], 0
        for path, file in self.files.items():
            index[path] = [position, len(file.source), len(file.code), file.signature]
            blobs += [file.source, file.code]
            position += len(file.source) + len(file.code)
        head = {
            "magic": importlib.util.MAGIC_NUMBER.hex(),
            "directories": sorted(self.directories),
            "files": index,
        }
        data = json.dumps(head).encode() + b"\n" + b"".join(blobs)
        while data:
            data = data[os.write(fd, data) :]

    # Using one

    def install(self) -> None:
        """Make this process import from the snapshot what is in it."""
        self._hook_loaders()
        self._hook_linecache()
        for path in self.files:
            while (path := os.path.dirname(path)) not in self.parents:
                self.parents.add(path)
        sys.path_hooks.insert(0, self._finder)
        sys.path_importer_cache.clear()

    def read(self, path: str) -> bytes:
        """Return the content of a file that is read, not imported; it is kept from now on.

        Raises:
            OSError: it cannot be read.
        """
        path = os.path.abspath(path)
        if path not in self.files:
            self.files[path] = read_file(path)
        return self.files[path].source

    def is_file(self, path: str) -> bool:
        """Return whether a file is in the snapshot, or on disk."""
        return os.path.abspath(path) in self.files or os.path.isfile(path)

    def _hook_loaders(self) -> None:
        """Change the loader itself: filters make such loaders too (``spec_from_file_location``)."""
        load_code, load_data = SourceFileLoader.get_code, SourceFileLoader.get_data

        def get_code(loader: SourceFileLoader, fullname: str) -> CodeType | None:
            path = loader.get_filename(fullname)
            file = self.files.get(path)
            if file is None:
                code = load_code(loader, fullname)
                if not self.complete and code is not None:
                    self.note_import(fullname, path, code)
                return code
            if file.code:
                return marshal.loads(file.code)  # type: ignore[no-any-return]
            code = loader.source_to_code(file.source, path)
            if not self.complete:
                self.note_code(path, code)
            return code

        def get_data(loader: SourceFileLoader, path: str) -> bytes:
            file = self.files.get(path)
            return file.source if file is not None else load_data(loader, path)

        SourceFileLoader.get_code = get_code  # type: ignore[assignment,method-assign]
        SourceFileLoader.get_data = get_data  # type: ignore[assignment,method-assign]

    def _hook_linecache(self) -> None:
        """Make tracebacks and ``inspect.getsource`` show the lines that run."""
        update = linecache.updatecache

        def updatecache(filename: str, module_globals: Any = None) -> list[str]:
            file = self.files.get(filename)
            if file is None:
                return update(filename, module_globals)
            lines = importlib.util.decode_source(file.source).splitlines(keepends=True)
            linecache.cache[filename] = (len(file.source), None, lines, filename)
            return lines

        linecache.updatecache = updatecache

    def _finder(self, path: str) -> FileFinder:
        """Make the finder of a directory on ``sys.path``, if any of it is here."""
        directory = os.path.abspath(path)
        if directory not in self.parents:
            raise ImportError(f"nothing of {path} is in the snapshot")
        return _Finder(self, directory)


class _Finder(FileFinder):
    """Finds the modules of one directory, here before on disk."""

    def __init__(self, snapshot: Snapshot, directory: str) -> None:
        super().__init__(directory, *_LOADERS)
        self._snapshot = snapshot

    def find_spec(self, fullname: str, target: ModuleType | None = None) -> ModuleSpec | None:
        """Find a module."""
        files, stem = self._snapshot.files, os.path.join(self.path, fullname.rpartition(".")[2])
        for path, package in ((os.path.join(stem, "__init__.py"), True), (f"{stem}.py", False)):
            if path in files:
                return importlib.util.spec_from_file_location(
                    fullname, path, submodule_search_locations=[stem] if package else None
                )
        spec = super().find_spec(fullname, target)
        if spec is not None and spec.origin is not None and self._is_new(spec.origin):
            return None
        if spec is None and stem in self._snapshot.parents:
            spec = ModuleSpec(fullname, None, is_package=True)  # a part of a namespace
            spec.submodule_search_locations = [stem]
        return spec

    def _is_new(self, path: str) -> bool:
        """Return whether a source file was not there when the code was accepted."""
        snapshot, directory = self._snapshot, os.path.dirname(path)
        if not snapshot.complete or not path.endswith(".py"):
            return False
        known = directory in snapshot.directories or (
            self.path in snapshot.directories and directory.startswith(self.path)
        )
        return known and path not in snapshot.files and not _has_compiled_beside(path)


def take(target: str) -> Snapshot:
    """Read the files that belong to a filter.

    Args:
        target: as the command line has it.
    """
    snapshot = Snapshot()
    root = _root(target)
    if root is not None:
        snapshot.add_tree(root)
    return snapshot


def read(fd: int) -> Snapshot:
    """Read what another worker has written.

    Raises:
        OSError, ValueError: it cannot be read, or it is not a snapshot.
    """
    snapshot = Snapshot()
    data = os.pread(fd, os.fstat(fd).st_size, 0)
    line, _, blobs = data.partition(b"\n")
    head = json.loads(line)
    same_python = head["magic"] == importlib.util.MAGIC_NUMBER.hex()
    for path, (start, size, code_size, signature) in head["files"].items():
        end = start + size
        code = blobs[end : end + code_size] if same_python else b""
        snapshot.files[path] = File(blobs[start:end], signature, code)
    snapshot.directories = set(head["directories"])
    snapshot.complete = True
    return snapshot


def read_file(path: str) -> File:
    """Read one file.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        return File(file.read(), signature(os.fstat(file.fileno())))


def signature(stat: os.stat_result) -> Signature:
    """Return what changes when a file is written."""
    return [stat.st_mtime_ns, stat.st_size, stat.st_ino]


def _root(target: str) -> str | None:
    """Return the directory that a filter's own code is in."""
    for path in (target, target.rpartition(":")[0]):
        if path and os.path.isfile(path):
            return os.path.dirname(os.path.abspath(path))
    package = target.rpartition(":")[0].partition(".")[0] or target.partition(".")[0]
    try:
        spec = PathFinder.find_spec(package)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return os.path.abspath(next(iter(spec.submodule_search_locations)))
    directory = os.path.dirname(os.path.abspath(spec.origin)) if spec.origin else ""
    return None if not directory or directory.endswith(_SITES) else directory


def _has_compiled(name: str, names: set[str]) -> bool:
    """Return whether Python would load a compiled module instead of this file."""
    stem = name.removesuffix(".py")
    return any(stem + suffix in names for suffix in EXTENSION_SUFFIXES)


def _has_compiled_beside(path: str) -> bool:
    stem = path.removesuffix(".py")
    return any(os.path.exists(stem + suffix) for suffix in EXTENSION_SUFFIXES)
