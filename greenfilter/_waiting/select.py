"""``select``, for all threads."""

from __future__ import annotations

import select
import selectors
from typing import Any

import gevent.select

from .where import LOOP, READ, WRITE, asyncio_set_aside, is_loop, replace, wait_fd

_native_select = select.select
_native_poll = select.poll
_native_epoll = getattr(select, "epoll", None)


def _select(rlist: Any, wlist: Any, xlist: Any, timeout: float | None = None) -> Any:
    """Replace ``select.select``. Switches greenlets in the loop's thread only."""
    if is_loop():
        return gevent.select.select(rlist, wlist, xlist, timeout)
    return _native_select(rlist, wlist, xlist, timeout)


class _Poll(gevent.select.poll):  # type: ignore[misc, unused-ignore]
    """``select.poll``."""

    def poll(self, timeout: float | None = None) -> list[tuple[int, int]]:
        """Wait for events. Switches greenlets in the loop's thread only."""
        if is_loop():
            self.loop = LOOP.hub.loop
            with asyncio_set_aside():
                return list(super().poll(timeout))
        native = _native_poll()
        fds: dict[int, int] = self.fds  # type: ignore[attr-defined]
        for fd, flags in fds.items():
            events = (select.POLLIN if flags & READ else 0) | (
                select.POLLOUT if flags & WRITE else 0
            )
            native.register(fd, events)
        return native.poll(timeout)


class _Epoll:
    """``select.epoll``: its own descriptor can be read when it has events."""

    def __init__(self, *args: int, native: Any = None) -> None:
        assert _native_epoll is not None
        self._native = native if native is not None else _native_epoll(*args)

    @classmethod
    def fromfd(cls, fd: int) -> _Epoll:
        """Make one of an open descriptor."""
        assert _native_epoll is not None
        return cls(native=_native_epoll.fromfd(fd))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._native, name)

    def __enter__(self) -> _Epoll:
        return self

    def __exit__(self, *_: object) -> None:
        self._native.close()

    def poll(self, timeout: float | None = None, maxevents: int = -1) -> list[tuple[int, int]]:
        """Wait for events. Switches greenlets in the loop's thread only."""
        if not is_loop():
            return self._native.poll(timeout, maxevents)  # type: ignore[no-any-return]
        forever = timeout is None or timeout < 0
        with asyncio_set_aside():
            if not forever and not timeout:
                gevent.sleep(0)
            else:
                wait_fd(self._native.fileno(), READ, None if forever else timeout)
        return self._native.poll(0, maxevents)  # type: ignore[no-any-return]


def share() -> None:
    """Replace what waits in ``select``, and what ``selectors`` has taken from there."""
    if _native_epoll is None:  # kqueue waits natively
        selectors.DefaultSelector = selectors.PollSelector  # type: ignore[misc, assignment]
    replace(select, "select", _select)
    replace(select, "poll", _Poll)
    selectors.SelectSelector._select = staticmethod(_select)  # type: ignore[attr-defined]
    selectors.PollSelector._selector_cls = _Poll  # type: ignore[attr-defined]
    if _native_epoll is not None:
        replace(select, "epoll", _Epoll)
        selectors.EpollSelector._selector_cls = _Epoll  # type: ignore[attr-defined]
