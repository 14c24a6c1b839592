"""A small file system of a test's own, which can be full."""

from __future__ import annotations

import errno
import os
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType


class DiskMissing(Exception):
    """No file system can be mounted here."""


class SmallDisk:
    """A file system in memory. Use it with ``with``.

    Args:
        path: directory to mount it at; it is made.
        kibibytes: size.

    Raises:
        DiskMissing: (when it is entered) it cannot be mounted here.
    """

    def __init__(self, path: Path, kibibytes: int = 256) -> None:
        self.path = path
        self._kibibytes = kibibytes

    def __enter__(self) -> SmallDisk:
        self.path.mkdir()
        size = f"size={self._kibibytes}k"
        command = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(self.path)]
        if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
            raise DiskMissing("a small file system cannot be mounted here")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        subprocess.run(["umount", "-l", str(self.path)], check=True)

    def fill(self) -> None:
        """Leave no room."""
        with (self.path / "filler").open("wb", 0) as file:
            for size in (1024, 1):
                self._write_all(file.fileno(), b"x" * size)

    def empty(self) -> None:
        """Return the room back."""
        (self.path / "filler").unlink()

    @staticmethod
    def _write_all(fd: int, data: bytes) -> None:
        try:
            while True:
                os.write(fd, data)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
