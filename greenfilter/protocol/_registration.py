"""What a filter writes during the handshake (smtpd-filters(7), "REGISTRATION")."""

from __future__ import annotations

from collections.abc import Iterable

from ._catalogue import EVENTS, PHASES


def registration(reports: Iterable[tuple[str, str]], phases: Iterable[str]) -> bytes:
    """Return the lines that register reports and phases and end the handshake.

    Registering twice delivers twice, and an unknown name ends smtpd, so the catalogue decides
    what is written, in which order, and that each is written once.

    Args:
        reports: (subsystem, event) on the wire.
        phases: phases on the wire.
    """
    reports, phases = set(reports), set(phases)
    lines = [
        f"register|report|{subsystem}|{event.wire}"
        for subsystem in ("smtp-in", "smtp-out")
        for event in EVENTS.values()
        if (subsystem, event.wire) in reports
    ]
    lines += [
        f"register|filter|smtp-in|{phase.wire}" for phase in PHASES.values() if phase.wire in phases
    ]
    return "".join(f"{line}\n" for line in [*lines, "register|ready"]).encode("ascii")
