"""One generation of code: what was accepted at the start or at a reload (see ``snapshot.py``)."""

from __future__ import annotations

import fcntl
import json
import os
import re
import tempfile
from contextlib import suppress

from .. import __version__
from .._process import snapshot
from .._process.log import logger
from .._process.python import OWN_FILES

_MAX_NAMED = 5
_NO_SNAPSHOT = "no copy of the code can be kept; a worker that is replaced loads what is on disk"
_OWN_INIT = os.path.join(OWN_FILES, "__init__.py")


class Code:
    """The archive of one generation. The first worker writes it, the others read it.

    Attributes:
        fd: of the archive; None if there is no room for one: then each worker loads from disk.
        sealed: it has been written, and can no longer be changed.
    """

    def __init__(self) -> None:
        self.sealed = False
        self._told = False
        self._blobs_at = 0
        self._files: dict[str, tuple[int, int, snapshot.Signature]] = {}
        self.fd: int | None = None
        try:
            self.fd = _private_file()
        except OSError as error:
            logger.error("%s (%s)", _NO_SNAPSHOT, error)

    def seal(self) -> None:
        """Accept the code: a worker that has written it has loaded the filter."""
        if self.fd is None or self.sealed:
            return
        size = os.fstat(self.fd).st_size
        if not size:
            return  # the worker has said why
        with suppress(OSError, AttributeError):  # no memfd
            seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, seals)
        try:
            line = os.pread(self.fd, size, 0).partition(b"\n")[0]
            self._files = {
                path: (start, length, signature)
                for path, (start, length, _, signature) in json.loads(line)["files"].items()
            }
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.error("%s (%s)", _NO_SNAPSHOT, error)
            return
        self._blobs_at = len(line) + 1
        self.sealed = True

    def tell_changes(self) -> None:
        """Log, once, what is on disk that does not run."""
        if self._told or not self.sealed:
            return
        version = _version_on_disk()
        if version != __version__:
            self._told = True
            logger.warning(
                "greenfilter %s is installed now, and workers that start run it under a supervisor "
                "of %s: restart smtpd",
                *(version, __version__),
            )
        changed = [path for path in self._files if self._has_changed(path)]
        if changed:
            self._told = True
            more = len(changed) - _MAX_NAMED
            logger.warning(
                "on disk is other code than what runs (%s%s), which goes on until a reload",
                ", ".join(changed[:_MAX_NAMED]),
                f" and {more} more" if more > 0 else "",
            )

    def _has_changed(self, path: str) -> bool:
        start, length, signature = self._files[path]
        try:
            if snapshot.signature(os.stat(path)) == signature:
                return False
            source = snapshot.read_file(path).source
        except OSError:
            return True
        return self.fd is None or source != os.pread(self.fd, length, self._blobs_at + start)

    def close(self) -> None:
        """Close it; workers have what they need."""
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None
        self.sealed = False


class Generations:
    """The code that runs and, during a reload, the one that is to.

    Attributes:
        current: what workers are started with.
        coming: of a reload that goes on; else None.
    """

    def __init__(self) -> None:
        self.current = Code()
        self.coming: Code | None = None

    def begin_reload(self) -> None:
        """Take what is on disk now as the code to come."""
        self.coming = Code()

    def seal_coming(self) -> None:
        """Note that a worker has loaded the code to come."""
        if self.coming is not None:
            self.coming.seal()

    def adopt(self) -> None:
        """Start workers with the code of the reload from now on."""
        if self.coming is not None:
            self.current.close()
            self.current, self.coming = self.coming, None
            self.current.seal()

    def give_up(self) -> None:
        """Keep the old code."""
        if self.coming is not None:
            self.coming.close()
            self.coming = None


def _private_file() -> int:
    """Make a file without a name, in memory if possible."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("greenfilter-code", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _version_on_disk() -> str:
    try:
        with open(_OWN_INIT, encoding="utf-8") as file:
            found = re.search(r'^__version__ = "(.*)"', file.read(), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else "of no known version"
