"""Scans of messages: while their lines arrive where that is possible, by the first server that can.

clamd collects a stream in its main thread, so that a slow client costs it a file only; a thread of
its pool is taken when the stream ends, and is not given back before the scan is over, whoever has
left by then. So what is limited is the number of streams that have ended and have no answer yet.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterable, Iterator
from typing import IO, Final

from .._servers import Deadline, Server, Servers, ServiceError, describe
from .clamd import Stream, Verdict

_CHUNK_BYTES: Final = 1 << 16
_MEMORY_BYTES: Final = 1 << 20
_ABANDONED_SECONDS: Final = 600.0
_STEP_SECONDS: Final = 10.0  # for a chunk of a stream whose end has not come


class Scanner:
    """What all scans share.

    Args:
        servers: those that run clamd.
        timeout: seconds from the end of a message to its verdict.
        most_scans: at once.
        most_bytes: a longer message is not scanned.
    """

    def __init__(self, servers: Servers, timeout: float, most_scans: int, most_bytes: int) -> None:
        self.servers = servers
        self.timeout = timeout
        self.most_bytes = most_bytes
        self.slots = threading.BoundedSemaphore(most_scans)
        self.early = threading.BoundedSemaphore(most_scans)

    def scan(self, lines: Iterable[bytes]) -> Verdict:
        """Scan a message line by line, as fast as they come. Switches greenlets.

        Args:
            lines: of the message, without their ends.
        """
        with Scan(self) as scan:
            scan.feed(lines)
            return scan.finish()


class Scan:
    """One message. Use it with ``with``.

    Its lines are sent on while they come, up to a number of messages at once. A copy is kept for
    the case that this does not work out: clamd gives up on clients that are slow (its
    CommandReadTimeout), and it may die.
    """

    def __init__(self, scanner: Scanner) -> None:
        self._scanner = scanner
        self._copy: IO[bytes] = tempfile.SpooledTemporaryFile(_MEMORY_BYTES)  # noqa: SIM115
        self._size = 0
        self._stream: Stream | None = None
        self._server: Server | None = None
        self._is_early = False
        self._verdict: Verdict | None = None

    def __enter__(self) -> Scan:
        return self

    def __exit__(self, *_: object) -> None:
        self._drop_stream()
        self._copy.close()

    def feed(self, lines: Iterable[bytes]) -> None:
        """Take the message. Whatever happens, all lines are read."""
        for data in _chunks(lines):
            if self._verdict is None:
                try:
                    self._take(data)
                except OSError as error:  # no room for the copy
                    self._verdict = Verdict("failed", f"cannot keep a copy: {describe(error)}")
                    self._drop_stream()

    def finish(self) -> Verdict:
        """Return the verdict, when all lines are there."""
        if self._verdict is not None:
            return self._verdict
        slot = _Slot(self._scanner.slots)
        try:
            return self._finish(slot, Deadline(self._scanner.timeout))
        except TimeoutError:
            return Verdict("failed", "no scan could begin in time: too many are going on")
        finally:
            slot.give_back()

    def _finish(self, slot: _Slot, deadline: Deadline) -> Verdict:
        slot.take(deadline)
        servers = self._scanner.servers.in_order()
        reasons = []
        if self._stream is not None and self._server is not None:
            server, stream, self._stream = self._server, self._stream, None
            try:
                with self._scanner.servers.asking(server, TimeoutError):
                    return _await(slot, stream, deadline.share(len(servers)))
            except TimeoutError as error:
                servers.remove(server)  # which is still at it
                reasons.append(f"{server}: {describe(error)}")
            except (OSError, ServiceError):
                pass  # the client was too slow for it, or it was started again
        for left in range(len(servers), 0, -1):
            server = servers[-left]
            slot.take(deadline)
            try:
                with self._scanner.servers.asking(server):
                    return self._ask(slot, server, deadline.share(left))
            except (OSError, ServiceError) as error:
                reasons.append(f"{server}: {describe(error)}")
        return Verdict("failed", "; ".join(reasons))

    def _take(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > self._scanner.most_bytes:
            self._verdict = Verdict("oversize", f"above {self._scanner.most_bytes} bytes")
            self._drop_stream()
            return
        if self._size == len(data):
            self._begin_early()
        self._copy.write(data)
        if self._stream is not None:
            self._send(data)

    def _begin_early(self) -> None:
        """Connect to the preferred server, if it is there."""
        self._is_early = self._scanner.early.acquire(blocking=False)
        if not self._is_early:
            return
        self._server = server = self._scanner.servers.in_order()[0]
        try:
            self._stream = Stream(server.connect(_STEP_SECONDS))
        except OSError as error:
            self._scanner.servers.failed(server, error)
            self._drop_stream()  # the copy is scanned at the end

    def _send(self, data: bytes) -> None:
        assert self._stream is not None
        try:
            self._stream.send(data, Deadline(_STEP_SECONDS))
        except OSError:
            # It says so when the message is too long for it, and hangs up.
            self._verdict = _oversize(self._stream)
            self._drop_stream()

    def _ask(self, slot: _Slot, server: Server, deadline: Deadline) -> Verdict:
        stream = Stream(server.connect(deadline.left()))
        try:
            self._copy.seek(0)
            while data := self._copy.read(_CHUNK_BYTES):
                stream.send(data, deadline)
        except TimeoutError:
            stream.close()
            raise
        except OSError:
            verdict = _oversize(stream)
            stream.close()
            if verdict is None:
                raise
            return verdict
        return _await(slot, stream, deadline)

    def _drop_stream(self) -> None:
        if self._is_early:
            self._is_early = False
            self._scanner.early.release()
        if self._stream is not None:
            self._stream.close()
            self._stream = None


class _Slot:
    """The right to one scan at a time; it goes over to a scan that nobody waits for any more."""

    def __init__(self, slots: threading.BoundedSemaphore) -> None:
        self._slots = slots
        self._taken = False

    def take(self, deadline: Deadline) -> None:
        """Take it, if it is not here. Switches greenlets.

        Raises:
            TimeoutError: there was none in time.
        """
        self._taken = self._taken or self._slots.acquire(timeout=deadline.left())
        if not self._taken:
            raise TimeoutError

    def give_back(self) -> None:
        """Return it back, if it is here."""
        if self._taken:
            self._taken = False
            self._slots.release()

    def go_over(self, stream: Stream) -> None:
        """Return it back when clamd has answered, or after a long time."""
        self._taken = False

        def wait() -> None:
            try:
                stream.answer(Deadline(_ABANDONED_SECONDS))
            except (OSError, ServiceError):
                pass
            finally:
                stream.close()
                self._slots.release()

        threading.Thread(target=wait, daemon=True).start()


def _await(slot: _Slot, stream: Stream, deadline: Deadline) -> Verdict:
    """End a stream and wait for the verdict. The stream is closed then, or left to a thread."""
    scanning = True
    try:
        stream.end(deadline)
        verdict = stream.answer(deadline)
        scanning = False
    except TimeoutError:
        raise
    except (OSError, ServiceError):
        scanning = False
        raise
    finally:
        if scanning:
            slot.go_over(stream)
        else:
            stream.close()
    return verdict


def _oversize(stream: Stream) -> Verdict | None:
    """Return what clamd said before it hung up, if that was that the message is too long."""
    try:
        verdict = stream.answer(Deadline(1.0))
    except (OSError, ServiceError):
        return None
    return verdict if verdict.kind == "oversize" else None


def _chunks(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Join lines to pieces of about 64 KiB."""
    chunk: list[bytes] = []
    size = 0
    for line in lines:
        chunk.append(line)
        size += len(line) + 2
        if size >= _CHUNK_BYTES:
            yield b"\r\n".join(chunk) + b"\r\n"
            chunk, size = [], 0
    if chunk:
        yield b"\r\n".join(chunk) + b"\r\n"
