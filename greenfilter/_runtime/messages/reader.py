"""The author's code that reads a message line by line, in a greenlet of its own.

It is fed with batches of lines. When it has read all that is there, it waits for more, and its
deadline waits with it; so does the session for the reader, where it has to (:meth:`Reader.join`).
A generator of ``lines`` and a tap are the two kinds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gevent
from greenlet import GreenletExit, getcurrent

from ..._filter.handlers import Handler
from ...errors import MessageError, SessionClosed
from ...protocol import Call, Session
from ..calls import Calls
from ..runners import Runner


class Reader:
    """A task that calls one handler with the lines of one message.

    Args:
        calls: calls the author's code.
        session: whose message it is; it waits in :meth:`join`.
        handler: the handler.
        event: that the handler is called for.

    Attributes:
        sid: of the session.
        runner: who is inside it.
        done: it has ended, or is no longer waited for.
        ended: the last lines have been put.
        error: what the handler gets in place of more lines.
    """

    def __init__(self, calls: Calls, session: Session, handler: Handler, event: Call) -> None:
        self.calls = calls
        self.runners = calls.runners
        self.handler = handler
        self.event = event
        self.sid = session.sid
        self.runner: Runner | None = None
        self.done = False
        self.ended = False
        self.error: MessageError | SessionClosed | None = None
        self._session: Any = session
        self._started = False
        self._idle: Any = None  # the greenlet that waits for more lines
        self._joined = False  # the session waits

    # The session's side, in the hub or in the session's runner

    def wake(self) -> None:
        """Wake it: there is something new for it. Never switches greenlets."""
        if not self._started:
            self._started = True
            self.runners.start(self)
            return
        idle, self._idle = self._idle, None
        if idle is None:
            return
        if self.runner is not None and idle is self.runner.greenlet:
            self.runners.start(self)
        else:  # a greenlet of the author's own reads the lines
            gevent.get_hub().loop.run_callback(idle.switch)

    def join(self, until_done: bool) -> None:
        """Make the session wait. Switches greenlets.

        Args:
            until_done: until it is done; else until it wants more lines, or is done.
        """
        while not (self.done or (self._idle is not None and not until_done)):
            self._joined = True
            try:
                self.runners.wait(self._session)
            finally:
                self._joined = False

    def cancel(self) -> None:
        """End it, if it waits for lines: they will not come. Never switches greenlets."""
        if not self.ended and self.error is None:
            self.error = SessionClosed("the message was given up before its end")
            if self._started:
                self.wake()
            else:
                self.finish()

    def finish(self) -> None:
        """Release whoever waits for it. Never switches greenlets."""
        self.done = True
        self._release_session()

    def give_up(self) -> None:
        """Go on without it, and refuse the message. Never switches greenlets."""
        raise NotImplementedError

    # The reader's own side

    def work(self, runner: Runner) -> None:
        """Run the handler over the message. Switches greenlets."""
        self.runner = runner
        try:
            self.read(runner)
        finally:
            self.runner = None
            self.finish()

    def read(self, runner: Runner) -> None:
        """Call the handler, and deal with what it returns or raises. Switches greenlets."""
        raise NotImplementedError

    def take_lines(self) -> Iterator[bytes] | None:
        """Return the next batch, or None if there is none now.

        Raises:
            MessageError: it cannot be read.
        """
        raise NotImplementedError

    def before_waiting(self) -> None:
        """Do what is due before it waits for more lines. May switch greenlets."""

    def lines(self, runner: Runner) -> Iterator[bytes]:
        """Yield the lines: what the handler is given."""
        turn = runner.turn
        while True:
            if self.error is not None:
                raise self.error
            lines = self.take_lines()
            if lines is None:
                if self.ended:
                    return
                self._wait(runner)
                continue
            runner.begin(runner.running, self.calls.clock())
            for line in lines:
                yield line
                if turn.missed:
                    runner.give_turn()

    def _wait(self, runner: Runner) -> None:
        """Wait for more lines."""
        if runner.abandoned:
            raise GreenletExit  # its session has gone on without it
        self.before_waiting()
        self._idle = getcurrent()
        self._release_session()
        with self.calls.pause_deadline(runner):
            try:
                self.runners.wait(self)
            finally:
                self._idle = None

    def _release_session(self) -> None:
        if self._joined:
            self._joined = False
            self.runners.start(self._session)
