"""The page that shows a replay: one file that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from importlib.resources import files
from typing import Any

from .result import Request, Result, readable

# Of a request, as the script reads them.
FIELDS = (
    "phase",
    "parameter",
    "asked",
    "answered",
    "began",
    "ended",
    "recorded",
    "decision",
    "lines",
)


def page(result: Result, target: str) -> str:
    """Draw every session and request of a replay.

    What comes from mail stands in the page as JSON without ``<``, ``>`` and ``&``, and the page
    lets no script run but its own.

    Args:
        result: of a player that kept its timeline.
        target: the filter.

    Returns:
        HTML.
    """
    here = files(__package__)
    style = here.joinpath("timeline.css").read_text("utf-8")
    script = here.joinpath("timeline.js").read_text("utf-8")
    parts = {
        "filter": html.escape(readable(target.encode("utf-8", "surrogateescape"))),
        "summary": html.escape(result.summary()),
        "style": style,
        "style-hash": _hash(style),
        "script": script,
        "script-hash": _hash(script),
        "data": _data(result),
    }
    template = here.joinpath("timeline.html").read_text("utf-8")
    return re.sub(r"\{\{([a-z-]+)\}\}", lambda found: parts[found[1]], template)


def _data(result: Result) -> str:
    sessions: dict[str, tuple[str, str, list[list[Any]]]] = {
        session_id: (session_id, client, []) for session_id, client in result.clients.items()
    }
    for request in result.timeline or ():
        session = sessions.setdefault(request.session_id, (request.session_id, request.client, []))
        session[2].append([_value(request, name) for name in FIELDS])
    data = {"fields": FIELDS, "sessions": list(sessions.values())}
    text = json.dumps(data, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _value(request: Request, name: str) -> Any:
    value = getattr(request, name)
    if isinstance(value, bytes):
        return readable(value)
    return round(value, 6) if isinstance(value, float) else value


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
