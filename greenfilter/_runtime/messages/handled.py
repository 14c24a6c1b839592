"""The base of consumers that call the author's handler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..._filter.context import Context
from ..._filter.handlers import Handler
from ..._process.log import logger
from ...protocol import Stream
from ..calls import Calls
from ..runners import Runner
from .consumer import Consumer, event_of


class HandledConsumer(Consumer):
    """A consumer that calls the author's handler."""

    def __init__(self, calls: Calls, stream: Stream, handler: Handler) -> None:
        super().__init__(calls, stream)
        self.handler = handler
        self.event = event_of(stream)
        self.ctx = Context(self.event)

    def decide(self, decision: Any) -> None:
        """Keep what the handler returned for commit."""
        self.answers.decide_message(self.event, self.stream, self.handler, decision)

    def fail(self, error: BaseException) -> None:
        """Note that the handler failed: commit applies its policy, lines pass unchanged."""
        if not self.stream.open:  # the client has left, and with it the message
            logger.debug("%r ended with its session", self.handler, exc_info=error)
        elif not self.failed:
            self.failed = True
            self.answers.fail_message(self.event, self.stream, self.handler, error)

    def call(self, runner: Runner, fn: Callable[..., Any], *args: Any) -> Any:
        """Call into the author's code."""
        return self.calls.call(runner, self.handler, self.event, fn, *args)
