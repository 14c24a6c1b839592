"""Where records go: a file, stderr, or a socket. What cannot be written now is kept for later."""

from __future__ import annotations

import errno
import logging
import os
import socket
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections import deque

from ...errors import UsageError

_MOST_KEPT = 10_000  # records, while they cannot be written
_RETRY_SECONDS = 1.0
_QUIET_SECONDS = 60.0
_SOCKET_SECONDS = 5.0

log = logging.getLogger("greenfilter.delivery_log")


class Output(ABC):
    """Writes records, each as one line.

    Args:
        name: in the log.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._kept: deque[bytes] = deque()
        self._lost = 0
        self._failing = False
        self._quiet_until = 0.0

    def write(self, line: bytes) -> None:
        """Write a line, now or when it is possible again. May switch greenlets; never raises.

        Args:
            line: without its end.
        """
        if len(self._kept) >= _MOST_KEPT:
            self._kept.popleft()
            self._lost += 1
        self._kept.append(line + b"\n")
        if not self._failing:
            self._flush()

    @abstractmethod
    def send(self, line: bytes) -> None:
        """Write one line with its end, or raise OSError."""

    def close(self) -> None:
        """Give up what could not be written, and the file or the connection."""
        self._failing = False

    def _flush(self) -> None:
        with self._lock:
            try:
                while self._kept:
                    line = self._kept.popleft()
                    self.send(line)
            except OSError as error:
                self._kept.appendleft(line)
                self._say(error)
                if not self._failing:
                    self._failing = True
                    threading.Thread(target=self._try_again, daemon=True).start()
                return
            if self._failing:
                self._failing = False
                log.warning("delivery_log: %s works again; %d records lost", self._name, self._lost)
                self._lost, self._quiet_until = 0, 0.0

    def _try_again(self) -> None:
        while self._failing:
            time.sleep(_RETRY_SECONDS)
            self._flush()

    def _say(self, error: OSError) -> None:
        now = time.monotonic()
        if now >= self._quiet_until:
            self._quiet_until = now + _QUIET_SECONDS
            text = "delivery_log: %s: %s; %d records are kept, %d lost; mail is not held up"
            log.warning(text, self._name, error.strerror or error, len(self._kept), self._lost)


class FileOutput(Output):
    """Appends to a file; opens it again when it was moved or removed.

    Args:
        path: of the file.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._path = path
        self._fd = -1
        self._broken = False  # the last line in the file has no end

    def send(self, line: bytes) -> None:
        """Append a line. Several workers append to the same file, so each in one piece."""
        fd = self._open()
        data = b"\n" + line if self._broken else line
        written = os.write(fd, data)
        if written < len(data):  # the disk is full
            self._broken = True
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._broken = False

    def close(self) -> None:
        """Close the file."""
        super().close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> int:
        if self._fd >= 0 and not self._is_current():
            os.close(self._fd)
            self._fd, self._broken = -1, False
        if self._fd < 0:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            self._fd = os.open(self._path, flags, 0o640)
        return self._fd

    def _is_current(self) -> bool:
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self._fd))
        except FileNotFoundError:
            return False


class StderrOutput(Output):
    """Writes to stderr, which smtpd reads into its log."""

    def __init__(self) -> None:
        super().__init__("stderr")

    def send(self, line: bytes) -> None:
        """Write a line."""
        sys.stderr.write(line.decode())
        sys.stderr.flush()


class SocketOutput(Output):
    """Sends to a socket, and connects again when the other end was closed.

    Args:
        name: as it was given.
        address: path of a Unix socket (stream or datagram), or host and port.
    """

    def __init__(self, name: str, address: str | tuple[str, int]) -> None:
        super().__init__(name)
        self._address = address
        self._socket: socket.socket | None = None

    def send(self, line: bytes) -> None:
        """Send a line."""
        if self._socket is not None and self._was_closed(self._socket):
            self._disconnect()
        if self._socket is None:
            self._socket = self._connect()
        try:
            self._socket.sendall(line)
        except OSError:
            self._disconnect()
            raise

    def close(self) -> None:
        """Close the connection."""
        super().close()
        self._disconnect()

    def _connect(self) -> socket.socket:
        if not isinstance(self._address, str):
            return socket.create_connection(self._address, _SOCKET_SECONDS)
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            made = socket.socket(socket.AF_UNIX, kind)
            made.settimeout(_SOCKET_SECONDS)
            try:
                made.connect(self._address)
                return made
            except OSError as error:
                made.close()
                if error.errno != errno.EPROTOTYPE:
                    raise
        raise OSError(errno.EPROTOTYPE, os.strerror(errno.EPROTOTYPE))

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    @staticmethod
    def _was_closed(connection: socket.socket) -> bool:
        """Return whether the other end has gone: what is sent then is lost without an error."""
        if connection.type & socket.SOCK_DGRAM:
            return False
        connection.settimeout(0.0)
        try:
            while connection.recv(4096):
                pass
        except BlockingIOError:
            return False
        except OSError:
            return True
        finally:
            connection.settimeout(_SOCKET_SECONDS)
        return True


def path_of(text: str) -> str:
    """Return the path in a text as :func:`open_output` takes it; "" for none."""
    kind, _, rest = text.partition(":")
    if text == "stderr" or kind == "tcp":
        return ""
    return rest if kind == "unix" and rest else text


def open_output(text: str) -> Output:
    """Make the output that ``--output`` names.

    Args:
        text: a path, ``stderr``, ``unix:PATH`` or ``tcp:HOST:PORT``.

    Raises:
        UsageError: it makes no sense, or nothing can be written there.
    """
    kind, _, rest = text.partition(":")
    if text == "stderr":
        return StderrOutput()
    if kind == "unix" and rest:
        return SocketOutput(text, rest)
    if kind == "tcp":
        host, _, port = rest.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65_536:
            raise UsageError(f"{text}: write tcp:HOST:PORT")
        return SocketOutput(text, (host.strip("[]"), int(port)))
    if "/" not in text:
        raise UsageError(f"{text}: no output; write a path, stderr, unix:PATH or tcp:HOST:PORT")
    directory = os.path.dirname(os.path.abspath(text))
    if not os.path.isdir(directory) or os.path.isdir(text):
        raise UsageError(f"{text}: no file there")
    if not os.access(text if os.path.exists(text) else directory, os.W_OK):
        raise UsageError(f"{text}: this user may not write there")
    return FileOutput(text)
