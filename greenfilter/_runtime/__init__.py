"""One filter in one process. Everything here needs gevent; ``import greenfilter`` does not.

The way of an event, each module knowing only those before it:

1. ``channel`` reads smtpd's bytes and writes answers; nothing else touches the socket.
2. ``answers`` turns what handlers return or raise into bytes, through the protocol's guard.
3. ``runners`` are the greenlets that handlers run in, kept and used again.
4. ``calls`` calls the author's code: deadline, thread, mark.
5. ``messages`` has a file for each kind of handler that reads a message.
6. ``backlog`` keeps small what waits in the queue of a session.
7. ``dispatcher`` takes the events of a session in their order (``fast_requests``: the short way).
8. ``housekeeper`` ends what is late.
9. ``runtime`` puts them together.

They are served by ``turn`` (when the loop goes round), ``threads``, ``moved`` (handlers that kept
the loop), ``storage`` (local objects), ``sessions`` (what the parser makes), ``monitor`` (who keeps
the loop) and ``vital`` (errors in the loop).
"""

from .runtime import Runtime as Runtime

__all__ = ["Runtime"]
