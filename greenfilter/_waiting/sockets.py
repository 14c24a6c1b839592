"""gevent's sockets, for all threads.

A socket of gevent's belongs to the hub of the thread that made it. Here all belong to
:class:`_AnyHub`, and only the loop's thread waits by its hub.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from gevent import _socket3, _socketcommon  # type: ignore[attr-defined]
from gevent._hub_primitives import wait_on_watcher
from gevent.exceptions import ConcurrentObjectUseError
from gevent.resolver.blocking import Resolver

from .where import LOOP, READ, WRITE, is_loop, run_soon, wait_fd

_native_names = Resolver()
_timeout = socket.timeout


class _AnyHub:
    """What gevent's sockets ask of their hub, from any thread."""

    @property
    def loop(self) -> Any:
        """The loop that watchers belong to."""
        return LOOP.hub.loop

    @property
    def resolver(self) -> Any:
        """What resolves names: natively outside of the loop."""
        return LOOP.hub.resolver if is_loop() else _native_names

    def wait(self, watcher: Any) -> Any:
        """Wait in the loop."""
        return LOOP.hub.wait(watcher)

    def cancel_wait(self, watcher: Any, error: Any, close_watcher: bool = False) -> None:
        """Raise an error in the greenlet that waits for a watcher."""
        if is_loop() or _is_waited_for(watcher):
            _in_loop(LOOP.hub.cancel_wait, watcher, error, close_watcher)
        elif close_watcher and watcher is not None:
            watcher.close()

    def cancel_waits_close_and_then(
        self, watchers: tuple[Any, ...], error: Any, then: Callable[..., object], *args: object
    ) -> None:
        """Raise an error in whoever waits, and close a socket after that."""
        if is_loop() or any(map(_is_waited_for, watchers)):
            _in_loop(LOOP.hub.cancel_waits_close_and_then, watchers, error, then, *args)
            return
        for watcher in watchers:
            if watcher is not None:
                watcher.close()
        if args[0] is not None and getattr(then, "__name__", "") == "_drop_ref_on_close":
            args[0].close()  # type: ignore[attr-defined]
        else:
            then(*args)


def _is_waited_for(watcher: Any) -> bool:
    return watcher is not None and watcher.callback is not None


def _in_loop(call: Callable[..., object], *args: object) -> None:
    if is_loop():
        call(*args)
    else:
        run_soon(call, *args)


def _wait(sock: Any, watcher: Any, timeout_exc: BaseException | None = None) -> None:
    if watcher is None:
        raise ConcurrentObjectUseError("the socket has been closed")
    error = timeout_exc or _timeout("timed out")
    if is_loop():
        wait_on_watcher(watcher, sock.timeout, error, LOOP.hub)
        return
    events = READ if watcher is sock._read_event else WRITE
    if not wait_fd(sock.fileno(), events, sock.timeout):
        raise error


def share() -> None:
    """Have gevent's sockets wait natively outside of the loop, and belong to no thread."""
    hub = _AnyHub()
    for module in (_socket3, _socketcommon):
        module.get_hub = lambda: hub
    _socketcommon.SocketMixin._wait = _wait
