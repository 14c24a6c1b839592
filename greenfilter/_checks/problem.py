"""What a check has found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing that is wrong, or looks so.

    Args:
        file: where.
        line: counted from 1.
        text: what is wrong, and what to do.
        is_error: it cannot work; else it is a warning.
    """

    file: str
    line: int
    text: str
    is_error: bool = True

    def __str__(self) -> str:
        kind = "" if self.is_error else "warning: "
        return f"{self.file}:{self.line}: {kind}{self.text}"
