"""Whether a member has edited a message, for those who try out a chain."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from .._process.log import session_logger


class Digest:
    """What is remembered of a message: enough to tell whether it is the same as another one."""

    def __init__(self) -> None:
        self.lines = 0
        self._hash = hashlib.blake2b(digest_size=16)

    def add(self, line: bytes) -> None:
        """Add a line."""
        self.lines += 1
        self._hash.update(line + b"\n")

    def same_as(self, other: Digest) -> bool:
        """Return whether the lines are the same."""
        return self.lines == other.lines and self._hash.digest() == other._hash.digest()


class Edits:
    """Compares a message before and behind each member."""

    def __init__(self) -> None:
        self._digests: list[tuple[str, Digest]] = []

    def watch(self, behind: str, source: Iterator[list[bytes]]) -> Iterator[list[bytes]]:
        """Look at a message as it streams by, unchanged.

        Args:
            behind: which member it comes from; "" for the message as it came.
            source: its lines.
        """
        digest = Digest()
        self._digests.append((behind, digest))
        return self._pass_on(source, digest)

    @staticmethod
    def _pass_on(source: Iterator[list[bytes]], digest: Digest) -> Iterator[list[bytes]]:
        for batch in source:
            for line in batch:
                digest.add(line)
            yield batch

    def log(self, session_id: str) -> None:
        """Log which members have edited it, when all of it has passed."""
        _, before = self._digests[0]
        names = []
        for name, digest in self._digests[1:]:
            if not digest.same_as(before):
                names.append(name)
            before = digest
        if names:
            session_logger(session_id).info("data-line: edited by %s", ", ".join(names))
