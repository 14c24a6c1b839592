"""How often Python looks for garbage in cycles."""

from __future__ import annotations

import gc

# What a piece of input becomes lives until its answers have left. Python looks for garbage after
# 700 objects that did not go at once; with 10,000 a session costs a tenth less.
_OBJECTS = 10_000


def look_rarely() -> None:
    """Let Python look for garbage less often; a filter that is loaded later may choose again."""
    gc.set_threshold(_OBJECTS, *gc.get_threshold()[1:])
