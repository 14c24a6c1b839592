"""clamd with a database of its own, in which there is one virus: EICAR's test file."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from tests.support.daemon import Daemon

if TYPE_CHECKING:
    from pathlib import Path

# In two parts, so that no scanner takes this file for it.
EICAR = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$" + b"EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
NAME = "Test.Eicar"


def missing() -> str | None:
    """Return why clamd cannot run here, or None if it can."""
    return None if shutil.which("clamd") else "clamd is not installed (Debian: clamav-daemon)"


class ClamdServer(Daemon):
    """A running clamd.

    Args:
        directory: its own.
        settings: lines for clamd.conf.
    """

    def __init__(self, directory: Path, settings: str = "") -> None:
        super().__init__(directory)
        self.socket = directory / "socket"
        database = directory / "database"
        database.mkdir()
        signature = f"{NAME}:0:*:{EICAR.hex()}\n"
        (database / "test.ndb").write_text(signature)
        self._conf = directory / "clamd.conf"
        self._conf.write_text(
            f"DatabaseDirectory {database}\nTCPSocket {self.port}\nTCPAddr 127.0.0.1\n"
            f"LocalSocket {self.socket}\nForeground yes\nTemporaryDirectory {directory}\n"
            f"MaxThreads 4\n{settings}\n"
        )

    def command(self) -> list[str | Path]:
        """Return the command line."""
        return ["clamd", "--config-file", self._conf]
