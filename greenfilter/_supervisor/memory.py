"""How much memory the workers have, without waiting for the answer."""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import suppress

from .._process.log import Once, logger

# A ps that takes longer than this is given up (seconds).
_PS_SECONDS = 10.0


class Memory:
    """Resident memory of processes, from /proc or else from ``ps``, which runs meanwhile."""

    def __init__(self) -> None:
        self._ps: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._once = Once()

    def read(self, pids: list[int]) -> dict[int, int]:
        """Return bytes by process id, of those that are known now.

        Where ``ps`` has to be asked, they are those of an earlier call.
        """
        found = {pid: size for pid in pids if (size := _from_proc(pid))}
        return found or self._from_ps(pids)

    def _from_ps(self, pids: list[int]) -> dict[int, int]:
        found = self._collect()
        if self._ps is None and pids:
            try:
                self._ps = subprocess.Popen(
                    ["ps", "-o", "pid=,rss=", "-p", ",".join(map(str, pids))],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                )
                self._started = time.monotonic()
            except OSError as error:
                self._tell(f"no /proc, and ps: {error.strerror}")
        return found

    def _collect(self) -> dict[int, int]:
        """Return what ps has said, if it has ended."""
        ps = self._ps
        if ps is None:
            return {}
        late = time.monotonic() - self._started > _PS_SECONDS
        if ps.poll() is None and not late:
            return {}
        self._ps = None
        if ps.returncode is None:
            ps.kill()
            ps.wait()
        assert ps.stdout is not None
        with ps.stdout as output:
            found = {} if late else _parse(output.read())
        if not found:
            self._tell("ps does not answer" if late else "no /proc, and ps tells nothing")
        return found

    def _tell(self, why: str) -> None:
        if self._once.is_first("memory"):
            logger.error("--max-memory: memory cannot be read (%s); there is no limit", why)


def _from_proc(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm", "rb") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0


def _parse(output: bytes) -> dict[int, int]:
    found = {}
    for line in output.splitlines():
        with suppress(ValueError):
            pid, size = line.split()
            found[int(pid)] = int(size) * 1024
    return found
