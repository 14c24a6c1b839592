"""A development server in this process: its clients use real sockets, its filter is a process."""

from __future__ import annotations

import json
import shlex
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import gevent

from greenfilter._commands.serve.keeper import Source
from greenfilter._commands.serve.server import Options, Server
from greenfilter._commands.serve.transcript import Transcript

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TIMEOUT = 20.0


class Served:
    """A running server and what it has told, as its --json does."""

    def __init__(self, server: Server, lines: list[str]) -> None:
        self.server = server
        self.port = server.address[1]
        self._lines = lines

    def events(self, *kinds: str) -> list[dict[str, Any]]:
        events = [json.loads(line) for line in self._lines]
        return [event for event in events if not kinds or event["event"] in kinds]

    def wait_for(self, what: str, found: Callable[[], Any]) -> None:
        with gevent.Timeout(TIMEOUT, TimeoutError(f"{what} in {self._lines[-20:]}")):
            while not found():
                gevent.sleep(0.005)


@contextmanager
def serving(command: list[str], **options: Any) -> Iterator[Served]:
    lines: list[str] = []
    source = Source(shlex.join(command), proc_exec=True)
    server = Server(
        Options(source, ("127.0.0.1", 0), **options), Transcript(lines.append, as_json=True)
    )
    server.start()
    try:
        yield Served(server, lines)
    finally:
        server.stop()
