"""Docstrings of the decorators, made from the catalogue: ``help(app.filter.connect)``."""

from __future__ import annotations

from collections.abc import Iterable

from ..protocol import EVENTS, PHASES
from ..protocol._catalogue import DECISION_SINCE_RELEASE, Event, Field, Phase

_TYPES = {
    "text": "str",
    "status": "Status",
    "address": "Address",
    "vis": "str",
    "size": "int, bytes",
    "line": "bytes, without its end and without dot-stuffing",
}
_CALLS = {
    "proceed": "None or proceed()",
    "reject": "reject(code, text, enhanced=None)",
    "disconnect": "disconnect(code, text, enhanced=None)",
    "junk": "junk()",
    "rewrite": "rewrite(value)",
    "report": "report(text)",
}
_OPTIONS = {
    "deadline": "float, seconds that the handler may take",
    "on_error": 'what answers when it fails: "tempfail", "proceed", "junk" or a decision',
    "thread": "bool, run it in the thread pool",
    "cancel_on_close": "bool, end it with SessionClosed when the client leaves",
    "outgoing": "bool, for smtp-out: smtpd as the client of another server",
}
_DATA = {
    "lines": (
        "Edit messages as they stream: a generator that yields the new lines.",
        ("lines: iterator of bytes, without their end and without dot-stuffing",),
        "At its end it may return a decision for commit: proceed(), reject() or disconnect().",
    ),
    "message": (
        "Edit or judge whole messages.",
        ("message: Message, its headers and body can be edited in place",),
        "It returns None (the message as edited), bytes (another one), reject() or disconnect().",
    ),
    "tap": (
        "Read messages while their lines pass unchanged.",
        ("lines: iterator of bytes, without their end and without dot-stuffing",),
        "It returns None, or a decision for commit: reject() or disconnect().",
    ),
}


def make_hook_doc(kind: str, name: str, options: Iterable[str]) -> str:
    """Make the docstring of a decorator.

    Args:
        kind: ``filter``, ``report`` or ``data``.
        name: name of the hook.
        options: names of the options that it takes.
    """
    if kind == "filter":
        phase = PHASES[name]
        title = f"Decide about {phase.wire}."
        parameters, ending = _fields(phase), _decisions(phase)
    elif kind == "report":
        event = EVENTS[name]
        title = f"Take note of {event.wire}."
        parameters, ending = _fields(event), "What it returns is ignored."
    else:
        title, parameters, ending = _DATA.get(name, ("", (), ""))
    hook = name if kind == "data" else f"{kind}.{name}"
    given = ", ".join(["ctx", *(parameter.partition(":")[0] for parameter in parameters)])
    return "\n".join(
        [
            title,
            "",
            f"    @app.{hook}",
            f"    def handler({given}): ...",
            "",
            "The function is called with:",
            "    ctx: Context",
            *(f"    {parameter}" for parameter in parameters),
            "",
            ending,
            "",
            f"Options, as in @app.{hook}(deadline=5.0):",
            *(f"    {option}: {_OPTIONS[option]}" for option in options),
        ]
    )


def _fields(hook: Phase | Event) -> tuple[str, ...]:
    return tuple(f"{field.name}: {_type(field)}" for field in hook.fields)


def _type(field: Field) -> str:
    return _TYPES[field.kind] + (" or None" if field.optional else "")


def _decisions(phase: Phase) -> str:
    if not phase.decisions:
        return (
            "It returns None (keep the line), bytes, an iterable of bytes (several lines) or DROP."
        )
    lines = ["It returns one of:"]
    for kind, call in _CALLS.items():
        if kind in phase.decisions:
            since = DECISION_SINCE_RELEASE.get(kind)
            note = f", smtpd {since[0]}.{since[1]} and later" if since else ""
            lines.append(f"    {call}{note}")
    return "\n".join([*lines, "or ctx.defer(), and ctx.reply(decision) later."])
