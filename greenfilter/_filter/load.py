"""Find the filter in the author's file or module."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable
from types import ModuleType

from .._process.python import OWN_FILES
from .._process.snapshot import Snapshot, read_file
from ..errors import RegistrationError, UsageError
from . import stock
from .app import Filter, Loaded

_MODULE = "__greenfilter__"
# Libraries for arithmetic use one thread for each core in each call; with a pool of 8 threads that
# made numpy 1.6 times slower on 2 cores. They read these variables when they are imported.
_THREADS_OF_LIBRARIES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


def load(
    target: str, args: list[str], snapshot: Snapshot | None = None, module: str = _MODULE
) -> Filter:
    """Import a filter, or make the chain of a chain file.

    Args:
        target: name of a stock filter, path of a file (with a slash, or ending in ``.py``),
            ``path:name``, ``package.module:name``, or a chain file ``*.toml``.
        args: the filter's own options: its ``sys.argv[1:]``.
        snapshot: holds its files, if they are not read from disk.
        module: name of the file in ``sys.modules``.

    Raises:
        UsageError: there is no such file, it cannot be imported, or it does not define one filter
            with a handler. The text says what is wrong, where, and what to do.
        SystemExit: the file ended the process with a failure status, as option parsers do; or
            a stock filter has shown its manual.
    """
    Loaded.applies = True
    for variable in _THREADS_OF_LIBRARIES:
        os.environ.setdefault(variable, "1")
    if target.endswith(".toml"):
        return _load_chain(target, args, snapshot)
    sys.argv = [target, *args]
    if stock.is_name(target):
        return stock.build(target, args)
    is_file = snapshot.is_file if snapshot is not None else os.path.isfile
    name, attribute = _split(target, is_file)
    try:
        app = _find(_import(name, is_file, module), target, attribute)
    except Loaded as loaded:
        app = loaded.app
    if app._registry.is_empty():
        raise UsageError(f"{target}: {app!r} has no handler; decorate one, as in @app.filter.ehlo")
    if app is _osmtpd_app():
        app.name = _stem(name)  # the C API has no name for a filter
    return app


def _load_chain(path: str, args: list[str], snapshot: Snapshot | None) -> Filter:
    from .._chain.file import load_chain

    if args:
        raise UsageError(f"{path}: a chain takes no options; its filters have theirs in the file")
    directory = os.path.dirname(os.path.abspath(path))
    loaded: list[Filter] = []

    def load_member(target: str, options: list[str]) -> Filter:
        if not os.path.isabs(target) and (os.path.sep in target or target.endswith(".py")):
            target = os.path.join(directory, target)  # wherever smtpd was started
        app = load(target, options, snapshot, f"__greenfilter_{len(loaded) + 1}__")
        if app in loaded and app is _osmtpd_app():
            raise UsageError(f"{target}: a chain can have one filter that uses greenfilter.osmtpd")
        loaded.append(app)
        return app

    try:
        source = snapshot.read(path) if snapshot is not None else read_file(path).source
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    argv = sys.argv
    try:
        return load_chain(path, source, load_member)
    finally:
        sys.argv = argv


def file_of(target: str) -> str | None:
    """Return the file that ``path`` or ``path:name`` names; None for a module or a stock filter."""
    if stock.is_name(target):
        return None
    candidates = (target, target.rpartition(":")[0])
    return next((path for path in candidates if os.path.isfile(path)), None)


def _split(target: str, is_file: Callable[[str], bool]) -> tuple[str, str | None]:
    if is_file(target) or os.path.isdir(target):
        return target, None
    name, colon, attribute = target.rpartition(":")
    return (name, attribute) if colon else (target, None)


def _import(name: str, is_file: Callable[[str], bool], module: str) -> ModuleType:
    names_file = os.path.sep in name or name.endswith(".py") or is_file(name)
    if os.path.isdir(name):
        raise UsageError(f"{name}: a directory; name the filter's file in it")
    if names_file and not is_file(name):
        raise UsageError(f"{name}: no such file")
    try:
        return _import_file(name, module) if names_file else importlib.import_module(name)
    except UsageError:
        raise
    except Loaded:
        raise
    except SystemExit as error:
        if error.code:
            raise
        raise UsageError(f"{_where(error, name)}: the file ended here, by sys.exit()") from error
    except RegistrationError as error:
        raise UsageError(str(error)) from error
    except SyntaxError as error:
        where = f"{error.filename}:{error.lineno}" if error.filename else name
        raise UsageError(f"{where}: {error.msg}") from error
    except ModuleNotFoundError as error:
        if not names_file and error.name and f"{name}.".startswith(f"{error.name}."):
            raise UsageError(f"{name}: no such file, and no module of that name") from error
        raise UsageError(f"{_where(error, name)}: {error}; install what it needs") from error
    except Exception as error:
        text = f"{_where(error, name)}: {type(error).__name__}: {error}"
        raise UsageError(" ".join(text.splitlines())) from error


def _import_file(path: str, name: str) -> ModuleType:
    path = os.path.abspath(path)
    loader = importlib.machinery.SourceFileLoader(name, path)
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, os.path.dirname(path))
    try:
        loader.exec_module(module)
    except OSError as error:
        if error.filename == path:
            raise UsageError(f"{path}: {error.strerror}") from error
        raise
    return module


def _find(module: ModuleType, target: str, attribute: str | None) -> Filter:
    if attribute is not None:
        app = getattr(module, attribute, None)
        if not isinstance(app, Filter):
            raise UsageError(f"{target}: {attribute} is not a Filter")
        return app
    found = {id(value): name for name, value in vars(module).items() if isinstance(value, Filter)}
    if not found:
        ported = _osmtpd_app()
        if ported is not None and not ported._registry.is_empty():
            return ported
        raise UsageError(f"{target}: no Filter in it; write: app = Filter('name')")
    if len(found) > 1:
        names = ", ".join(found.values())
        raise UsageError(f"{target}: more than one Filter ({names}); name one: {target}:NAME")
    return vars(module)[next(iter(found.values()))]  # type: ignore[no-any-return]


def _osmtpd_app() -> Filter | None:
    """Return the filter of a program that uses the C API, if this is one."""
    osmtpd = sys.modules.get("greenfilter.osmtpd")
    return osmtpd.app if osmtpd is not None else None


def _stem(name: str) -> str:
    """Return ``guard`` for ``/etc/mail/guard.py`` and for ``mail.guard``."""
    file = os.path.splitext(os.path.basename(name))[0]
    return file if os.path.isfile(name) else name.rpartition(".")[2]


def _where(error: BaseException, name: str) -> str:
    """Return ``file:line`` of the author's innermost frame."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(("<", OWN_FILES))
    ]
    own = [frame for frame in frames if frame.filename == os.path.abspath(name)] or frames
    return f"{own[-1].filename}:{own[-1].lineno}" if own else name
