"""One log line for each decision of a stock filter, with its reason."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .. import Context, Decision

_PLAIN = re.compile(r"[!#-<>-~]+")


class Decider:
    """Logs decisions, and holds them back where the filter only observes.

    Args:
        name: of the filter.
        log_only: let everything pass.
    """

    def __init__(self, name: str, log_only: bool) -> None:
        self._name = name
        self.log_only = log_only

    def __call__(
        self, ctx: Context, decision: Decision | None, what: str, **facts: Any
    ) -> Decision | None:
        """Log a decision.

        Args:
            ctx: of the handler that decides.
            decision: what it wants to return.
            what: the decision in a word, such as ``pass`` or ``defer``.
            facts: why, and about whom.

        Returns:
            The decision, or None where the filter only observes.
        """
        observed = " log-only=yes" if self.log_only and decision is not None else ""
        ctx.log.info("%s: %s%s%s", self._name, what, observed, key_values(facts))
        return None if self.log_only else decision


def key_values(facts: dict[str, Any]) -> str:
    """Return facts as `` key=value ...``, values in quotes where needed; None is left out."""
    known = {key.rstrip("_"): value for key, value in facts.items() if value is not None}
    return "".join(f" {key}={_quoted(value)}" for key, value in known.items())


def in_words(seconds: float) -> str:
    """Return a time to wait, rounded up: ``2 seconds``, ``5 minutes``, ``3 hours``."""
    for unit, length in (("hours", 3600), ("minutes", 60)):
        if seconds > 2 * length:
            return f"{math.ceil(seconds / length)} {unit}"
    whole = max(1, math.ceil(seconds))
    return "1 second" if whole == 1 else f"{whole} seconds"


def _quoted(value: Any) -> str:
    text = f"{value:.0f}" if isinstance(value, float) else str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)
