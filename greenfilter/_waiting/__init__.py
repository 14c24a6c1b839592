"""Make blocking code wait where it should: in its greenlet, or in its thread.

gevent's monkey patching makes everything wait in a greenlet, in the loop of the calling thread.
That is right for the loop's thread, and wrong for a thread of the pool: no loop runs there, objects
belong to the loop of the thread that made them, and a lock loses its wake-up when its first user
waits in C. So this package gives gevent other primitives, before it patches the standard library
with them. They wait in their greenlet in the loop's thread and natively in every other thread, and
each wakes the other:

=====================================  ========================================================
what is replaced                       why
=====================================  ========================================================
``_thread.allocate_lock``              gevent's belongs to the hub of the first thread; on it
                                       stand threading's RLock, Condition, Event, Semaphore and
                                       Barrier, and all of ``queue``, which are the standard
                                       library's own again
``_thread.start_new_thread``           a thread started outside of the loop is a thread
waiting, closing and resolving names   gevent's sockets belong to the thread that made them
in gevent's sockets, so in ``ssl``
``select.select``, ``poll``, ``epoll`` on them stand ``selectors``, ``asyncio``, ``subprocess``
``time.sleep``
``os.read``, ``os.write``, ``waitpid`` pipes and children, on them stand ``multiprocessing``,
and what else waits for a child        ``pty``, and ``subprocess``: gevent's own reaps the
                                       children of all threads
``signal.alarm``, ``setitimer``        they cannot work, and say so
=====================================  ========================================================

A forked child has no loop of ours: everything waits natively there.
"""

from __future__ import annotations

from .patch import patch
from .where import FromThreads

__all__ = ["FromThreads", "patch"]
