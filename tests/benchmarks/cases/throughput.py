"""Lines and sessions per second, next to libopensmtpd, a plain Python loop and a copy loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .. import peers
from ..bench import (
    C_LIBRARY,
    GREENFILTER,
    SUPERVISED,
    Bench,
    Case,
    Contestant,
    Row,
    greenfilters,
    race,
)
from ..driver import NotStarted
from ..wire import Edit, Sessions, Traffic, build, fourteen, message_lines

LINES = 500
MIXED_RUN = 20
"""Lines of 70 bytes that fit one Ethernet frame: what a client's packet brings."""

MakeTraffic = Callable[[frozenset[str]], Traffic]


def _green(
    name: str,
    traffic: MakeTraffic,
    at_least: float | None,
    supervised: float | None = None,
    *arguments: str,
) -> list[Contestant]:
    """``filters/name`` with the ratio to reach in one process, and under the supervisor."""
    ratios = {GREENFILTER: at_least, SUPERVISED: supervised}
    return [
        Contestant(subject, command, traffic, ratios[subject])
        for subject, command in greenfilters(name, *arguments)
    ]


def line_traffic(
    messages: int, edit: Edit | None = None, *, run: int | None = None, copied: bool = False
) -> MakeTraffic:
    """Messages of 500 lines of 70 bytes: 8 at a time, or 48 by turns of ``run`` lines."""
    at_once = 8 if run is None else 48
    lanes = 4 if edit is None else 1  # what edits a whole message may finish out of order

    def traffic(hooks: frozenset[str]) -> Traffic:
        kind = Sessions(hooks, message_lines(LINES), edit)
        units = messages * (LINES + 1)
        return build(
            kind, messages, units=units, lanes=lanes, at_once=at_once, run=run, copied=copied
        )

    return traffic


def session_traffic(sessions: int, *, everything: bool = False, at_once: int = 1000) -> MakeTraffic:
    """Sessions of 14 lines, or of all that the filter asked for."""

    def traffic(hooks: frozenset[str]) -> Traffic:
        if missing := fourteen(hooks) - hooks:
            raise NotStarted(f"does not register {', '.join(sorted(missing))}: no fair race")
        kind = Sessions(hooks if everything else fourteen(hooks))
        return build(kind, sessions, units=sessions, at_once=at_once)

    return traffic


def _c_echo(bench: Bench, traffic: MakeTraffic) -> Contestant:
    return Contestant(C_LIBRARY, lambda: peers.compiled("echo", bench.folder), traffic)


def _naive(role: str, traffic: MakeTraffic) -> Contestant:
    return Contestant("plain Python loop", lambda: peers.naive(role), traffic)


def _lines(bench: Bench) -> list[Row]:
    traffic = line_traffic(bench.size(400, 40))
    copy = Contestant(
        "copy loop",
        lambda: peers.compiled("copy", bench.folder),
        line_traffic(bench.size(400, 40), copied=True),
    )
    others = [_c_echo(bench, traffic), _naive("echo", traffic), copy]
    return race(bench, "lines", "lines/s", [*_green("lines.py", traffic, 8, 5), *others])


def _mixed(bench: Bench) -> list[Row]:
    traffic = line_traffic(bench.size(384, 48), run=MIXED_RUN)
    contestants = [*_green("lines.py", traffic, None), _c_echo(bench, traffic)]
    return race(bench, "lines, 48 messages by turns", "lines/s", contestants)


def _mark(lines: Sequence[bytes]) -> Sequence[bytes]:
    return [b"X-Checked: yes", *lines]


def _edited(title: str, name: str) -> Callable[[Bench], list[Row]]:
    def run(bench: Bench) -> list[Row]:
        messages = bench.size(400, 40)
        green = _green(name, line_traffic(messages, _mark), 6)
        return race(bench, title, "lines/s", [*green, _c_echo(bench, line_traffic(messages))])

    return run


def _sessions(bench: Bench) -> list[Row]:
    return _session_race(bench, "sessions", session_traffic(bench.size(20_000, 2000)), 1.5)


def _sessions_all(bench: Bench) -> list[Row]:
    # greenfilter asks for more reports than the C library, and a real smtpd sends them all.
    traffic = session_traffic(bench.size(20_000, 2000), everything=True)
    return _session_race(bench, "sessions, all reports registered", traffic, None)


def _sessions_read(bench: Bench) -> list[Row]:
    # greenfilter reads a report when a callback asks for it, the C library always.
    traffic = session_traffic(bench.size(20_000, 2000))
    return _session_race(bench, "sessions, all fields read at commit", traffic, None, "read")


def _sessions_few(bench: Bench) -> list[Row]:
    traffic = session_traffic(bench.size(5000, 1000), at_once=8)
    return _session_race(bench, "sessions, 8 at a time", traffic, None)


def _session_race(
    bench: Bench, title: str, traffic: MakeTraffic, at_least: float | None, *arguments: str
) -> list[Row]:
    c_filter = Contestant(C_LIBRARY, lambda: peers.compiled("sessions", bench.folder), traffic)
    contestants = [
        *_green("sessions.py", traffic, at_least, None, *arguments),
        c_filter,
        _naive("sessions", traffic),
    ]
    return race(bench, title, "sessions/s", contestants)


CASES = (
    Case("lines", "A callback per data line", _lines),
    Case("mixed", "A callback per data line, messages interleaved", _mixed),
    Case("generator", "A generator over the lines", _edited("lines by generator", "generator.py")),
    Case("message", "A header added to the whole message", _edited("whole message", "message.py")),
    Case("sessions", "Seven requests in a session of 14 lines", _sessions),
    Case("sessions-all", "The same with every report that was registered", _sessions_all),
    Case("sessions-read", "The same with all fields read in a callback", _sessions_read),
    Case("sessions-few", "The same with 8 sessions at a time", _sessions_few),
)
