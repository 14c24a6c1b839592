"""The names of the cases, for a process that is not patched."""

from __future__ import annotations

import itertools

PRIMITIVES = [
    "Lock",
    "RLock",
    "Condition",
    "Event",
    "Semaphore",
    "BoundedSemaphore",
    "Barrier",
    "Queue",
    "LifoQueue",
    "PriorityQueue",
    "SimpleQueue",
    "full_Queue",
    "Future",
    "socket",
    "accept",
    "select",
    "poll",
    "epoll",
    "PollSelector",
    "DefaultSelector",
    "pipe",
    "full_pipe",
    "Thread.join",
    "Popen.wait",
    "Popen.stdout",
]
SPECIAL = ["random_operations", "killed_while_it_waits", "closed_from_a_thread"]


def all_cases() -> list[str]:
    """Return the names of all cases."""
    sides = itertools.product(PRIMITIVES, ("greenlet", "thread"), ("greenlet", "thread"))
    return [f"{name}: {waits} waits for {wakes}" for name, waits, wakes in sides] + SPECIAL
