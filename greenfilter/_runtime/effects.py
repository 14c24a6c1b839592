"""Whether a call that was made in the wrong thread has certainly changed nothing."""

from __future__ import annotations

import dis
import sqlite3
from collections.abc import Callable
from types import CodeType, TracebackType
from typing import Any

# What may come before the instruction that fails: it reads, compares, and stores in the frame.
_HARMLESS = (
    *("BUILD_", "CACHE", "COMPARE_OP", "CONTAINS_OP", "CONVERT_VALUE", "COPY", "EXTENDED_ARG"),
    *("FORMAT_", "IS_OP", "JUMP_FORWARD", "KW_NAMES", "LOAD_", "MAKE_CELL", "NOP", "NOT_TAKEN"),
    *("POP_JUMP_FORWARD", "POP_JUMP_IF", "POP_TOP", "PRECALL", "PUSH_NULL", "RESUME"),
    "RETURN_",
    *("STORE_FAST", "SWAP", "TO_BOOL", "UNARY_NOT"),
)


def is_of_another_thread(error: BaseException) -> bool:
    """Return whether sqlite3 has refused a thread, which it does before all else."""
    return isinstance(error, sqlite3.ProgrammingError) and "same thread" in str(error)


def had_no_effect(fn: Callable[..., Any], error: BaseException) -> bool:
    """Return whether a call has certainly changed nothing before it failed.

    It has not if it was refused another thread, and if from the function down to that point
    nothing had been called, stored or repeated before.

    Args:
        fn: the function that was called.
        error: what it has raised, with its traceback.
    """
    if not is_of_another_thread(error):
        return False
    trace: TracebackType | None = error.__traceback__
    code = getattr(fn, "__code__", None)
    while trace is not None and trace.tb_frame.f_code is not code:
        trace = trace.tb_next
    found = trace is not None
    while trace is not None:
        if not _is_first(trace.tb_frame.f_code, trace.tb_lasti):
            return False
        trace = trace.tb_next
    return found


def _is_first(code: CodeType, at: int) -> bool:
    """Return whether nothing with an effect can have run before the instruction at an offset."""
    instructions = list(dis.get_instructions(code))
    # A call into Python leaves the offset within the call's inline caches.
    at = max(instruction.offset for instruction in instructions if instruction.offset <= at)
    for instruction in instructions:
        if instruction.offset < at:
            if not instruction.opname.startswith(_HARMLESS):
                return False
        elif "BACKWARD" in instruction.opname and instruction.argval <= at:
            return False  # a loop: what comes later in the code may have run before
    return True
