"""Finds the filter in the author's file or module."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable
from types import ModuleType

from .._process.python import OWN_FILES
from .._process.snapshot import Snapshot
from ..errors import RegistrationError, UsageError
from . import stock
from .app import Filter, Loaded

_MODULE = "__greenfilter__"
# Libraries for arithmetic use a thread for each core in each call; from 8 threads of a pool that
# made numpy 1.6 times slower on 2 cores. They read these when they are imported.
_THREADS_OF_LIBRARIES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


def load(target: str, args: list[str], snapshot: Snapshot | None = None) -> Filter:
    """Import a filter.

    Args:
        target: name of a stock filter, path of a file with a slash in it or ``.py`` at its end,
            ``path:name``, or ``package.module:name``.
        args: the filter's own options: its ``sys.argv[1:]``.
        snapshot: where its files may be instead of on disk.

    Raises:
        UsageError: there is no such file, it cannot be imported, or it does not define one filter
            with something registered. The text says which, where, and what to do.
        SystemExit: the file ended the process itself, with a status that says that it failed, as
            option parsers do; or a stock filter has shown its manual.
    """
    Loaded.applies = True
    for variable in _THREADS_OF_LIBRARIES:
        os.environ.setdefault(variable, "1")
    sys.argv = [target, *args]
    if stock.is_name(target):
        return stock.build(target, args)
    is_file = snapshot.is_file if snapshot is not None else os.path.isfile
    name, attribute = _split(target, is_file)
    try:
        app = _find(_import(name, is_file), target, attribute)
    except Loaded as loaded:
        app = loaded.app
    if app.is_empty():
        raise UsageError(f"{target}: {app!r} has no handler; decorate one, as in @app.filter.ehlo")
    if app is _osmtpd_app():
        app.name = _stem(name)  # which the C API has no word for
    return app


def file_of(target: str) -> str | None:
    """The file that ``path`` or ``path:name`` names; None for a module or a stock filter."""
    if stock.is_name(target):
        return None
    candidates = (target, target.rpartition(":")[0])
    return next((path for path in candidates if os.path.isfile(path)), None)


def _split(target: str, is_file: Callable[[str], bool]) -> tuple[str, str | None]:
    if is_file(target) or os.path.isdir(target):
        return target, None
    name, colon, attribute = target.rpartition(":")
    return (name, attribute) if colon else (target, None)


def _import(name: str, is_file: Callable[[str], bool]) -> ModuleType:
    names_file = os.path.sep in name or name.endswith(".py") or is_file(name)
    if os.path.isdir(name):
        raise UsageError(f"{name}: a directory; name the filter's file in it")
    if names_file and not is_file(name):
        raise UsageError(f"{name}: no such file")
    try:
        return _import_file(name) if names_file else importlib.import_module(name)
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


def _import_file(path: str) -> ModuleType:
    path = os.path.abspath(path)
    loader = importlib.machinery.SourceFileLoader(_MODULE, path)
    spec = importlib.util.spec_from_file_location(_MODULE, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[_MODULE] = module
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
            raise UsageError(f"{target}: {attribute} is no Filter")
        return app
    found = {id(value): name for name, value in vars(module).items() if isinstance(value, Filter)}
    if not found:
        ported = _osmtpd_app()
        if ported is not None and not ported.is_empty():
            return ported
        raise UsageError(f"{target}: no Filter in it; write: app = Filter('name')")
    if len(found) > 1:
        names = ", ".join(found.values())
        raise UsageError(f"{target}: more than one Filter ({names}); name one: {target}:NAME")
    return vars(module)[next(iter(found.values()))]  # type: ignore[no-any-return]


def _osmtpd_app() -> Filter | None:
    """The filter of a program that uses the C API, if this is one."""
    osmtpd = sys.modules.get("greenfilter.osmtpd")
    return osmtpd.app if osmtpd is not None else None


def _stem(name: str) -> str:
    """``guard`` for ``/etc/mail/guard.py`` and for ``mail.guard``."""
    file = os.path.splitext(os.path.basename(name))[0]
    return file if os.path.isfile(name) else name.rpartition(".")[2]


def _where(error: BaseException, name: str) -> str:
    """``file:line`` of the author's innermost frame."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(("<", OWN_FILES))
    ]
    own = [frame for frame in frames if frame.filename == os.path.abspath(name)] or frames
    return f"{own[-1].filename}:{own[-1].lineno}" if own else name
