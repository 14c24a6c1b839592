"""What a worker had in its hands when it ended, of which one may be the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._log import session_logger
from ..protocol import PHASES, Call, Stream
from ._flow import Flow
from ._poison import Key, Poison, message_key, request_key
from ._tracked import Tracked

if TYPE_CHECKING:
    from ._process import WorkerProcess

_COMMIT = PHASES["commit"]
_MAX_TOLD = 100

Suspect = tuple[Tracked, Call | None, Stream | None]
"""A session, the request of it that the worker owed, and its message."""


def suspects(worker: WorkerProcess) -> list[Suspect]:
    """Give what a worker has in its hands: if possible what it touched last, else all."""
    marked = worker.marked()
    found = [
        (session, session.owed, session.last_stream)
        for session in worker.sessions.values()
        if session.owed is not None or _flow(session.last_stream, while_open=True) is not None
    ]
    return [suspect for suspect in found if suspect[0].sid == marked] or found


def blame(poison: Poison, worker: WorkerProcess, found: list[Suspect]) -> None:
    """Count a death for each. Takes 0.1 ms for each too: first answer what waits."""
    keys: dict[Key, Tracked] = {}
    for session, call, stream in found:
        flow = _flow(stream)
        if call is not None:
            keys[key_of(call, stream)] = session
        elif flow is not None:
            keys[message_key(session.state(), flow.header)] = session
    poison.blame(keys)
    for key, session in list(keys.items())[:_MAX_TOLD]:
        session_logger(session.id).error(
            "worker %d ended with %s in its hands (%d times)",
            worker.pid,
            key[0],
            poison.deaths(key),
        )


def absolve(poison: Poison, session: Tracked, call: Call) -> None:
    """Note that what a worker has answered is no poison."""
    if call.hook.wire in poison.kinds:
        poison.absolve(key_of(call, session.last_stream))
    flow = _flow(session.last_stream)
    if call.hook is _COMMIT and "message" in poison.kinds and flow is not None:
        poison.absolve(message_key(session.state(), flow.header))


def key_of(call: Call, stream: Stream | None) -> Key:
    """What makes a request the same when the client comes again."""
    session: Any = call.session
    flow = _flow(stream) if call.hook is _COMMIT else None
    return request_key(call, session.state(), flow.header if flow is not None else None)


def _flow(stream: Stream | None, *, while_open: bool = False) -> Flow | None:
    """Give the flow of a message; if asked for, only while a worker works on it."""
    flow = stream.consumer if stream is not None else None
    if not isinstance(flow, Flow):
        return None
    if while_open and (not stream.open or flow.worker is None):  # type: ignore[union-attr]
        return None
    return flow
