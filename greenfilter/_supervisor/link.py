"""A socket with a buffer on its way out, for a loop of selectors."""

from __future__ import annotations

import os
import select
import selectors
from collections.abc import Callable

_READ_BYTES = 65536
_LAST_READS = 64  # pieces
_NOTHING = memoryview(b"")


class Link:
    """Both directions of a connection. Never blocks.

    Args:
        selector: of the loop.
        fds: to read from and to write to; may be one and the same.
        receive: is given each piece of input.
        ended: is called once when the other end has closed.

    Attributes:
        pending: bytes that the other end has not taken yet.
        given: bytes that were ever queued.
        closed: nothing more comes or goes.
        reading: input is being taken.
        held: nothing of what is queued goes out yet.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        fds: tuple[int, int],
        receive: Callable[[bytes], None],
        ended: Callable[[], None],
    ) -> None:
        for fd in fds:
            os.set_blocking(fd, False)
        self._selector = selector
        self._fds = fds
        self._receive = receive
        self._ended = ended
        self._out: list[bytes] = []
        self._stuck = _NOTHING
        self._masks = dict.fromkeys(fds, 0)
        self.pending = 0
        self.given = 0
        self.closed = False
        self.reading = True
        self.held = False
        self._watch()

    @property
    def stuck(self) -> bool:
        """Whether the other end takes nothing just now."""
        return len(self._stuck) > 0

    def send(self, data: bytes) -> None:
        """Queue bytes for the next flush."""
        if data and not self.closed:
            self._out.append(data)
            self.pending += len(data)
            self.given += len(data)

    def send_first(self, data: bytes) -> None:
        """Send bytes ahead of all that is queued, as the first of all, even while it is held."""
        self.pending += len(data)
        self.given += len(data)
        self._put(memoryview(data))

    def flush(self) -> None:
        """Write what is queued, as far as the other end takes it."""
        if self.closed or self.held or self.stuck or not self._out:
            return
        data = b"".join(self._out)
        self._out.clear()
        self._put(memoryview(data))

    def set_reading(self, reading: bool) -> None:
        """Read, or do not."""
        if reading != self.reading and not self.closed:
            self.reading = reading
            self._watch()

    def hung_up(self) -> bool:
        """Return whether the other end has closed, which only a reader would notice otherwise."""
        poll = select.poll()
        poll.register(self._fds[0], 0)
        return bool(poll.poll(0))

    def on_event(self, mask: int) -> None:
        """Handle what the selector says of one of the descriptors."""
        if mask & selectors.EVENT_WRITE and not self.closed:
            self._put(self._stuck)
            if not self.stuck:
                self.flush()
        if mask & selectors.EVENT_READ and not self.closed:
            self.read()

    def read(self) -> bool:
        """Read one piece; return whether there was one."""
        try:
            data = os.read(self._fds[0], _READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if data:
            self._receive(data)
        else:
            self.close()
            self._ended()
        return bool(data)

    def read_all(self) -> None:
        """Read what is there by now, but no more than a socket's buffer holds."""
        for _ in range(_LAST_READS):  # never to the end: a child of a worker may go on writing
            if self.closed or not self.read():
                break

    def close(self) -> None:
        """Close it; what was not written is lost."""
        if not self.closed:
            self.closed = True
            for fd in set(self._fds):
                if self._masks[fd]:
                    self._selector.unregister(fd)
                os.close(fd)
            self._out.clear()
            self._stuck = _NOTHING
            self.pending = 0

    def _put(self, data: memoryview) -> None:
        try:
            sent = os.write(self._fds[1], data)
        except BlockingIOError:
            sent = 0
        except OSError:
            sent = len(data)  # the other end is gone; reading tells
        self.pending -= sent
        if sent < len(data) or self.stuck:
            self._stuck = data[sent:]  # a view: a reader that takes little costs no copies
            self._watch()

    def _watch(self) -> None:
        masks = dict.fromkeys(self._fds, 0)
        masks[self._fds[0]] |= selectors.EVENT_READ if self.reading else 0
        masks[self._fds[1]] |= selectors.EVENT_WRITE if self.stuck else 0
        for fd, mask in masks.items():
            before, self._masks[fd] = self._masks[fd], mask
            if mask and not before:
                self._selector.register(fd, mask, self)
            elif mask and mask != before:
                self._selector.modify(fd, mask, self)
            elif before and not mask:
                self._selector.unregister(fd)
