"""The lines that supervisor and worker exchange between smtpd's.

Their socket carries the filter protocol itself. Lines that begin with ``greenfilter|`` are theirs:

- ``hello|JSON`` (worker): the filter is loaded; what it registers, its deadlines and policies.
- ``alive`` (worker): the loop turns.
- ``worn-out`` (worker): its threads hang; it should be replaced.
- ``keep|LINE`` (worker): what the filter has to know of a session for as long as it lives, in the
  form of a report. The next worker gets it with those that smtpd has made.
- ``replay|LINE`` (supervisor): a report of a session that another worker had. It only rebuilds
  the session's state; no handler is called for it.
- ``forget|SID`` (supervisor): another worker has this session now. Its delete hooks are run.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from .protocol import PHASES, TEMPFAIL, Decision

if TYPE_CHECKING:
    from ._filter.app import Filter

PREFIX = b"greenfilter|"
ALIVE = PREFIX + b"alive\n"
WORN_OUT = PREFIX + b"worn-out\n"
HELLO = PREFIX + b"hello|"
KEEP = PREFIX + b"keep|"
REPLAY = PREFIX + b"replay|"
FORGET = PREFIX + b"forget|"
# In the environment of a chain: it is to log which of its members have edited a message.
TELL_EDITS = "GREENFILTER_TELL_EDITS"
# Seconds between two ALIVE lines.
BEAT = 0.25


@dataclass(frozen=True)
class Hello:
    """What the supervisor has to know of a filter.

    Attributes:
        name: of the filter.
        reports: (subsystem, event) to register, on the wire.
        phases: to register, on the wire.
        deadlines: seconds for each registered phase.
        policies: (kind, value) of the decision that answers each registered phase when the worker
            cannot; for ``data-line`` what commit gets when lines could not be handled.
        max_sessions: sessions held at once.
    """

    name: str
    reports: list[tuple[str, str]]
    phases: list[str]
    deadlines: dict[str, float]
    policies: dict[str, tuple[str, str]]
    max_sessions: int = 1 << 17

    def policy(self, phase: str) -> Decision:
        """Return the decision of a phase's policy."""
        kind, value = self.policies.get(phase, (TEMPFAIL.kind, TEMPFAIL.value))
        return Decision(kind, value)


def format_hello(app: Filter) -> bytes:
    """Write the hello line of a filter."""
    registry = app._registry
    deadlines: dict[str, float] = {}
    policies: dict[str, tuple[str, str]] = {}
    for name, handler in registry.filters.items():
        wire = PHASES[name].wire
        deadlines[wire] = handler.deadline
        policies[wire] = (handler.on_error.kind, handler.on_error.value)
    taps = registry.taps + ([registry.data[1]] if registry.data else [])
    if taps:
        refusing = [tap.on_error for tap in taps if tap.on_error.kind != "proceed"]
        decision = refusing[0] if refusing else taps[0].on_error
        policies["data-line"] = (decision.kind, decision.value)
        policies.setdefault("commit", policies["data-line"])
        if registry.taps and policies["commit"][0] == "proceed":
            # Commit may be late because of a tap, which may have something against the message.
            policies["commit"] = policies["data-line"]
        deadlines["data-line"] = max(tap.deadline for tap in taps)
        deadlines["commit"] = registry.commit_deadline()
    fact = Hello(
        app.name,
        sorted(registry.registered_reports()),
        sorted(registry.phases()),
        {phase: deadlines.get(phase, app.deadline) for phase in sorted(registry.phases())},
        policies,
        app.max_sessions,
    )
    return HELLO + json.dumps(asdict(fact)).encode("ascii") + b"\n"


def parse_hello(line: bytes) -> Hello:
    """Read a hello line.

    Raises:
        ValueError: it is not one.
    """
    try:
        fields = json.loads(line[len(HELLO) :])
        deadlines = {str(phase): float(value) for phase, value in fields["deadlines"].items()}
        if not all(0 < deadline < math.inf for deadline in deadlines.values()):
            raise ValueError("not a valid deadline")
        return Hello(
            name=str(fields["name"]),
            reports=[(str(subsystem), str(event)) for subsystem, event in fields["reports"]],
            phases=[str(phase) for phase in fields["phases"]],
            deadlines=deadlines,
            policies={name: (str(k), str(v)) for name, (k, v) in fields["policies"].items()},
            max_sessions=max(1, int(fields["max_sessions"])),
        )
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise ValueError(f"not a hello line: {error}") from error
